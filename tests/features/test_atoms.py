"""Features of single atoms: their sums, order, bytes, samples and merging."""

from dataclasses import replace

import numpy as np
import pytest

from mace_bounds.backbones import load_model
from mace_bounds.errors import StoreError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, extract_rows, merge
from mace_bounds.structures import Crystal, Record

from helpers.store_bytes import digests  # isort: skip
from helpers.store_records import records  # isort: skip


@pytest.fixture(scope="module")
def model():
    return load_model("mini", device="cpu")


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    return extract(
        records(),
        tmp_path_factory.mktemp("atoms") / "store",
        model,
        ExtractSettings(atoms=True, shard_rows=3, workers=1),
    )


def test_atoms_sum_to_the_features_of_their_structure(store):
    assert store.manifest.atoms
    for rows in store.rows(atoms=True):
        good = rows.table["reason"].isna().to_numpy()
        assert np.array_equal(rows.atoms.counts, np.where(good, rows.table["n_atoms"].fillna(0), 0))
        of_structure = np.repeat(np.arange(len(good)), rows.atoms.counts)
        sums = np.zeros_like(rows.features)
        np.add.at(sums, of_structure, rows.atoms.values.astype(np.float64))
        # float32 keeps 24 bits of each term
        assert np.abs(sums - rows.features)[good].max() < 1e-5


def test_atoms_come_in_the_order_of_their_sites(model):
    sites = np.array([[0.0, 0.0, 0.0], [2.8, 0.1, 0.0], [0.2, 2.7, 0.0], [0.1, 0.0, 2.9]])
    crystal = Crystal(np.array([11, 17, 17, 8]), sites, 5.6 * np.eye(3))
    record = Record("sites", "test", crystal)
    order = np.random.default_rng(0).permutation(len(crystal.numbers))
    shuffled = replace(crystal, numbers=crystal.numbers[order], positions=crystal.positions[order])
    other = records()[0]
    one = extract_rows([other, record], model, atoms=True).take(np.array([False, True])).atoms
    two = extract_rows([replace(record, crystal=shuffled), other], model, atoms=True).atoms
    assert np.abs(one.values[order] - two.values[: len(order)]).max() < 1e-5
    assert np.ptp(one.values, axis=0).max() > 1e-2  # the sites differ, so that order can be told


def test_without_atoms_nothing_changes(model, store, tmp_path):
    plain = extract(records(), tmp_path / "plain", model, ExtractSettings(shard_rows=3, workers=1))
    assert not plain.manifest.atoms
    assert all(rows.atoms is None for rows in plain.rows(atoms=True))
    assert plain.read(max_atoms=100).atoms is None
    assert np.array_equal(plain.read().features, store.read().features, equal_nan=True)
    assert extract_rows(records(), model).atoms is None


def test_resumed_and_merged_stores_have_the_same_bytes(model, store, tmp_path):
    resumed = tmp_path / "resumed"
    extract(records(), resumed, model, ExtractSettings(atoms=True, shard_rows=3, workers=1))
    sorted(resumed.glob("shard-*.parquet"))[1].unlink()
    extract(records(), resumed, model, ExtractSettings(atoms=True, shard_rows=3, workers=1))
    assert digests(resumed) == digests(store.folder)
    for i in (1, 2):
        extract(
            records(),
            tmp_path / "parts",
            model,
            ExtractSettings(atoms=True, shard_rows=3, part=(i, 2), workers=1),
        )
    merge(tmp_path / "parts")
    assert digests(tmp_path / "parts") == digests(store.folder)
    with pytest.raises(StoreError, match="atoms differ"):
        extract(records(), resumed, model, ExtractSettings(shard_rows=3, workers=1))


def test_a_sample_of_atoms_is_bounded_and_chosen_by_the_structures(model, tmp_path):
    labelled = [replace(r, energy_ev=-1.0, label_kind="made up") for r in records() if r.crystal is not None]
    sizes = [len(r.crystal.numbers) for r in labelled]
    limit = sum(sizes) // 2
    kept = []
    for name, source in (("one", labelled), ("two", labelled[::-1])):
        extract(source, tmp_path / name, model, ExtractSettings(atoms=True, shard_rows=2, workers=1))
        rows = FeatureStore(tmp_path / name).read(max_atoms=limit)
        assert 0 < rows.atoms.counts.sum() <= limit
        assert len(rows.atoms.values) == rows.atoms.counts.sum()
        kept.append(set(rows.table["structure_hash"][rows.atoms.counts > 0]))
        full = FeatureStore(tmp_path / name).read(max_atoms=10**6).atoms
        assert np.array_equal(full.take(rows.atoms.counts > 0).values, rows.atoms.values)
    assert kept[0] == kept[1]
