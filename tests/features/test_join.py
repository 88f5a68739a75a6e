"""Stores of several sources as one store."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.backbones import load_model
from mace_bounds.errors import StoreError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, join
from mace_bounds.structures import read


@pytest.fixture(scope="module")
def halves(labelled_crystals, tiny_model_folder, tmp_path_factory):
    """Two stores of forty and twenty crystals, with shards of different sizes."""
    folder, model = tmp_path_factory.mktemp("halves"), load_model(tiny_model_folder)
    for name, chosen, rows in (("a", slice(0, 40), 16), ("b", slice(40, 60), 9)):
        records = read(labelled_crystals[chosen])
        extract(
            records, folder / name, model, ExtractSettings(shard_rows=rows, symmetry=name == "a", workers=1)
        )
    return folder / "a", folder / "b"


def test_the_joined_store_holds_the_rows_of_both_in_order(halves, labelled_crystals, tmp_path):
    joined = join(tmp_path / "new" / "joined", halves)
    assert joined.manifest.complete
    assert joined.manifest.n_records == 60
    assert not joined.manifest.symmetry  # of one part only
    parts = [FeatureStore(half).read() for half in halves]
    rows = joined.read()
    assert rows.table["id"].tolist() == [atoms.info["id"] for atoms in labelled_crystals[:60]]
    pd.testing.assert_frame_equal(rows.table, pd.concat([p.table for p in parts], ignore_index=True))
    np.testing.assert_array_equal(rows.features, np.concatenate([p.features for p in parts]))
    assert sorted(path.name for path in tmp_path.joinpath("new").iterdir()) == ["joined"]


def test_digests_tell_stores_apart(halves, labelled_crystals, tiny_model_folder, tmp_path):
    digests = {FeatureStore(half).digest() for half in halves}
    assert len(digests) == 2
    changed = [atoms.copy() for atoms in labelled_crystals[40:60]]
    changed[3].info["REF_energy"] += 0.1  # the same ids
    other = extract(
        read(changed),
        tmp_path / "other",
        load_model(tiny_model_folder),
        ExtractSettings(shard_rows=9, workers=1),
    )
    assert other.digest() not in digests
    assert other.manifest.ids_sha256 == FeatureStore(halves[1]).manifest.ids_sha256


def test_what_cannot_be_joined_is_refused(halves, labelled_crystals, tiny_model_folder, tmp_path):
    with pytest.raises(StoreError, match="40 ids are in several sources \\(made-0000, made-0001, made-0002"):
        join(tmp_path / "twice", [halves[0], halves[0]])
    with pytest.raises(StoreError, match="choose another"):
        join(halves[0], [halves[1]])
    double = load_model(tiny_model_folder, dtype="float64")
    other = extract(read(labelled_crystals[60:70]), tmp_path / "double", double).folder
    with pytest.raises(StoreError, match=r"^dtype of .*double"):
        join(tmp_path / "mixed", [halves[0], other])
    part = tmp_path / "part"
    extract(
        read(labelled_crystals[60:80]),
        part,
        load_model(tiny_model_folder),
        ExtractSettings(shard_rows=5, part=(1, 2), workers=1),
    )
    with pytest.raises(StoreError, match="was interrupted"):
        join(tmp_path / "unfinished", [halves[0], part])
    assert {path.name for path in tmp_path.iterdir()} == {"double", "part"}
