"""Parts of a store: the same bytes after the merge, or a message that names what is missing, extra or twice."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.mace_builds import TINY, build
from helpers.store_bytes import digests
from helpers.store_records import records
from mace_bounds._io import locked, visible
from mace_bounds.backbones import load_model
from mace_bounds.errors import StoreError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, join, merge
from mace_bounds.structures import Record, read


@pytest.fixture(scope="module")
def model():
    return load_model(build(TINY), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The store of a run in one piece."""
    return extract(
        records(), tmp_path_factory.mktemp("whole") / "s", model, ExtractSettings(shard_rows=4, workers=1)
    ).folder


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """Four parts of the same store, each in its own folder."""
    folder = tmp_path_factory.mktemp("parts")
    for i in range(1, 5):
        extract(records(), folder / f"p{i}", model, ExtractSettings(shard_rows=4, part=(i, 4), workers=1))
    return [folder / f"p{i}" for i in range(1, 5)]


@pytest.fixture
def parts(made, tmp_path):
    """A copy of them to spoil."""
    return [shutil.copytree(part, tmp_path / part.name) for part in made]


def test_parts_in_folders_of_their_own(parts, whole, tmp_path):
    assert [len(FeatureStore(part).shards()) for part in parts] == [3, 3, 2, 2]
    with pytest.raises(StoreError, match="it is a part"):
        FeatureStore(parts[0]).read()
    store = merge(tmp_path / "out", parts)
    assert digests(store.folder) == digests(whole)
    assert digests(merge(store.folder, parts).folder) == digests(whole)  # once more does no harm
    assert digests(merge(store.folder).folder) == digests(whole)


def test_parts_in_one_folder(model, whole, tmp_path):
    out, seen = tmp_path / "s", []
    for i in (3, 1, 4, 2):
        extract(
            records(),
            out,
            model,
            ExtractSettings(shard_rows=4, part=(i, 4), workers=1),
            progress=lambda *n: seen.append(n),
        )
    assert seen[:2] == [(4, 0), (8, 1)]  # part 3: the records 8 to 11 and 24 to 27
    assert not FeatureStore(out).manifest.complete
    merge(out)
    assert digests(out) == digests(whole)
    extract(records(), out, model, ExtractSettings(shard_rows=4, part=(1, 4), workers=1))
    assert digests(out) == digests(whole)


def test_a_plain_run_finishes_what_parts_have_begun(model, whole, tmp_path):
    extract(records(), tmp_path / "s", model, ExtractSettings(shard_rows=4, part=(2, 4), workers=1))
    extract(records(), tmp_path / "s", model, ExtractSettings(shard_rows=4, workers=1))
    assert digests(tmp_path / "s") == digests(whole)


def test_more_parts_than_shards(model, tmp_path):
    folders = [tmp_path / str(i) for i in range(1, 4)]
    for i, folder in enumerate(folders, 1):
        extract(records(8), folder, model, ExtractSettings(shard_rows=4, part=(i, 3), workers=1))
    assert merge(tmp_path / "out", folders).manifest.n_records == 8


def test_missing_records_are_named_with_the_part_to_run_again(parts, tmp_path):
    with pytest.raises(StoreError) as caught:
        merge(tmp_path / "out", [parts[0], parts[2], parts[3]])
    assert "missing are 12 (r4, r5, r6, r7, r20 and 7 more) and extra are none" in str(caught.value)
    assert "with --shard 2/4 again" in str(caught.value)
    assert not (tmp_path / "out").exists()
    (parts[3] / "shard-000007.parquet").unlink()
    (parts[1] / "plan.parquet").unlink()
    with pytest.raises(StoreError, match=r"missing are 4 \(r28, r29, r30, r31\) .* --shard 4/4 again"):
        merge(tmp_path / "out", parts)


def test_records_that_are_there_twice_are_named(model, parts, tmp_path):
    with pytest.raises(StoreError, match=r"^4 \(r4, r5, r6, r7\) are in .*p2 and in .*p2"):
        merge(tmp_path / "out", [*parts, shutil.copytree(parts[1], tmp_path / "again" / "p2")])
    extract(records(), tmp_path / "half", model, ExtractSettings(shard_rows=4, part=(1, 2), workers=1))
    with pytest.raises(StoreError, match=r"^4 \(r0, r1, r2, r3\) are in"):
        merge(tmp_path / "out", [tmp_path / "half", *parts])


def test_extra_records_are_named(model, parts, tmp_path):
    """The source of one part was longer, or had another record in it."""
    shutil.copy(parts[0] / "shard-000000.parquet", parts[0] / "shard-000012.parquet")
    with pytest.raises(StoreError, match=r"missing are none and extra are 4 \(r0, r1, r2, r3\)"):
        merge(tmp_path / "out", parts)
    (parts[0] / "shard-000012.parquet").unlink()
    changed = [Record("new", r.source, r.crystal) if r.id == "r8" else r for r in records()]
    other = tmp_path / "other"
    extract(changed, other, model, ExtractSettings(shard_rows=4, part=(3, 4), workers=1))
    with pytest.raises(StoreError, match=r"other has changed against .*missing 1 \(r8\), extra 1 \(new\)"):
        merge(tmp_path / "out", [parts[0], parts[1], other, parts[3]])
    (other / "plan.parquet").unlink()
    with pytest.raises(
        StoreError, match=r"missing are 1 \(r8\) and extra are 1 \(new\); make these parts anew"
    ):
        merge(tmp_path / "out", [parts[0], parts[1], other, parts[3]])


def test_other_structures_under_the_same_ids_are_refused(model, parts, tmp_path):
    changed = [Record(r.id, r.source, r.crystal, energy_ev=1.0) if r.id == "r8" else r for r in records()]
    other = tmp_path / "other"
    extract(changed, other, model, ExtractSettings(shard_rows=4, part=(3, 4), workers=1))
    (other / "plan.parquet").unlink()
    with pytest.raises(StoreError, match="other structures or labels"):
        merge(tmp_path / "out", [parts[0], parts[1], other, parts[3]])
    with pytest.raises(StoreError, match=r"source has changed since the other parts in"):
        extract(changed, parts[3], model, ExtractSettings(shard_rows=4, part=(3, 4), workers=1))


def test_what_else_is_refused(model, parts, tmp_path):
    with pytest.raises(StoreError, match=r"nowhere is no feature store"):
        merge(tmp_path / "out", [tmp_path / "nowhere"])
    extract(
        records(),
        tmp_path / "other",
        model,
        ExtractSettings(kind="descriptors", shard_rows=4, part=(1, 4), workers=1),
    )
    with pytest.raises(StoreError, match=r"other was begun with, columns, kind differ"):
        merge(tmp_path / "out", [*parts, tmp_path / "other"])
    for part in parts:
        (part / "plan.parquet").unlink()
    with pytest.raises(StoreError, match="none has left its plan"):
        merge(tmp_path / "out", parts)
    (parts[0] / "plan.parquet").write_text("x")
    with pytest.raises(StoreError, match="cannot be read; delete it"):
        merge(tmp_path / "out", parts)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("mine")
    extract(records(4), tmp_path / "ok", model, ExtractSettings(part=(1, 1), workers=1))
    with pytest.raises(StoreError, match="holds something else"):
        merge(tmp_path / "mine", [tmp_path / "ok"])
    extract(records(5), tmp_path / "five", model, ExtractSettings(workers=1))
    with pytest.raises(StoreError, match="five is a store of other structures than these parts"):
        merge(tmp_path / "five", [tmp_path / "ok"])


def test_parts_that_begin_at_the_same_instant(model, tmp_path):
    """Another part's half-written manifest is no reason to refuse the folder."""
    left = tmp_path / "s" / ".manifest.json.0123abcd.mace-bounds"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{")
    extract(records(4), tmp_path / "s", model, ExtractSettings(part=(1, 1), workers=1))
    merge(tmp_path / "s")
    assert visible(tmp_path / "s") == {"manifest.json", "shard-000000.parquet"}
    assert not left.exists()


def test_parts_hold_only_themselves(model, tmp_path):
    """Jobs of an array share a folder; the same part twice, a whole run twice, and a merge amid one do not."""

    def again(settings):
        def note(*_):
            if not seen:
                seen.append("begun")
                with pytest.raises(
                    StoreError, match=rf"another run is writing into .*process {os.getpid()} on"
                ):
                    extract(records(8), tmp_path / "s", model, settings)

        return note

    for settings in (
        ExtractSettings(shard_rows=4, part=(1, 2), workers=1),
        ExtractSettings(shard_rows=4, workers=1),
    ):
        seen = []
        extract(records(8), tmp_path / "s", model, settings, progress=again(settings))
        assert seen
    with locked(tmp_path / "t", ".lock-1-of-2"):
        extract(records(8), tmp_path / "t", model, ExtractSettings(shard_rows=4, part=(2, 2), workers=1))
    extract(records(8), tmp_path / "t", model, ExtractSettings(shard_rows=4, part=(1, 2), workers=1))
    with locked(tmp_path / "t"), pytest.raises(StoreError, match="another run is writing"):
        merge(tmp_path / "t")
    assert merge(tmp_path / "t").manifest.n_records == 8


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
    known = {FeatureStore(half).digest() for half in halves}
    assert len(known) == 2
    changed = [atoms.copy() for atoms in labelled_crystals[40:60]]
    changed[3].info["REF_energy"] += 0.1  # the same ids
    other = extract(
        read(changed),
        tmp_path / "other",
        load_model(tiny_model_folder),
        ExtractSettings(shard_rows=9, workers=1),
    )
    assert other.digest() not in known
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


def test_a_model_of_the_same_tensors_that_is_built_in_another_way_neither_goes_on_nor_joins(
    halves, labelled_crystals, tiny_model_folder, tmp_path
):
    module = load_model(tiny_model_folder, device="cpu").module
    module.radial_embedding.cutoff_fn.p += 1
    other = replace(load_model(module, device="cpu"), name="tiny")
    begun, settings = FeatureStore(halves[0]), ExtractSettings(shard_rows=16, symmetry=True, workers=1)
    assert other.digest == begun.manifest.model_digest
    with pytest.raises(StoreError, match=r"has the tensors of the one .* energies differ by up to"):
        extract(read(labelled_crystals[:40]), begun.folder, other, settings)
    store = extract(read(labelled_crystals[60:64]), tmp_path / "other", other, settings)
    with pytest.raises(StoreError, match=r"has the tensors of the one .* energies differ by up to"):
        join(tmp_path / "joined", [begun.folder, store.folder])
