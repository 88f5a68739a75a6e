"""Symmetry, density, volume and hull distance: from the source through the store to the bounds table and the atlas."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from mace_bounds import AuditConfig, audit, extract, load_model
from mace_bounds.bounds.geometry import geometry_columns
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import Record, read


def labelled(atoms, name, **info):
    atoms.info |= {"id": name, "REF_energy": -1.0, **info}
    return atoms


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def records():
    """Textbook crystals, one without label, and a record without a structure."""
    crystals = [
        labelled(bulk("NaCl", "rocksalt", 5.64), "salt", e_above_hull=0.0),
        labelled(bulk("Mg"), "magnesium", e_above_hull=0.02),
        labelled(bulk("Si"), "silicon"),
        bulk("Cu"),
    ]
    return [*read(crystals), Record("none", "y", reason="broken")]


@pytest.fixture(scope="module")
def store(records, model, tmp_path_factory):
    return extract(
        records,
        tmp_path_factory.mktemp("stores") / "s",
        model,
        ExtractSettings(symmetry=True, shard_rows=2, workers=1),
    )


def test_the_store_knows_textbook_crystals(store):
    table = store.read().table
    told = table["space_group"].tolist()
    assert told[:3] == ["225 Fm-3m", "194 P6_3/mmc", "227 Fd-3m"]
    assert pd.isna(told[3:]).all()  # without a label there is no coverage to tell apart
    columns = geometry_columns(table)
    density, volume = columns["density_g_per_cm3"], columns["volume_per_atom_a3"]
    np.testing.assert_allclose(density[:4], [2.16, 1.74, 2.33, 8.96], rtol=0.01)
    np.testing.assert_allclose(volume[:4], [5.64**3 / 8, 23.2, 5.43**3 / 8, 3.61**3 / 4], rtol=0.01)
    assert np.isnan([density[4], volume[4]]).all()
    np.testing.assert_array_equal(columns["hull_distance_ev_per_atom"], [0.0, 0.02, np.nan, np.nan, np.nan])


def test_symmetry_is_kept_only_where_it_is_asked_for(records, model, tmp_path):
    plain = extract(records, tmp_path / "s", model, ExtractSettings(shard_rows=2, workers=1))
    assert plain.read().table["space_group"].isna().all()
    assert not plain.manifest.symmetry


@pytest.fixture(scope="module")
def audits(labelled_crystals, tiny_model_folder, tiny_fit, tmp_path_factory):
    """The same crystals as a source, and as a store with symmetry."""
    folder, model = tmp_path_factory.mktemp("audits"), load_model(tiny_model_folder)
    crystals = [atoms.copy() for atoms in labelled_crystals]
    for k, atoms in enumerate(crystals):
        atoms.info["e_above_hull"] = 0.0 if k % 2 else 0.001 * k
    settings = {"model": tiny_model_folder, "head": tiny_fit.folder}
    extract(read(crystals), folder / "with", model, ExtractSettings(symmetry=True, shard_rows=64, workers=1))
    sources = {"source": crystals, "with": folder / "with"}
    config = AuditConfig(plots=False, extract=ExtractSettings(shard_rows=64, workers=1))
    return {
        name: audit(source, folder / f"{name}-out", **settings, config=config)
        for name, source in sources.items()
    }


def test_a_store_as_source_gives_the_same_files(audits):
    one, other = audits["source"].folder, audits["with"].folder
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()} | {"features"}
    for name in ("bounds.parquet", "bounds.csv", "atlas.csv", "coverage.csv", "suspects.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for shard in sorted((one / "features").iterdir()):
        assert shard.read_bytes() == (other.parent / "with" / shard.name).read_bytes()


def test_the_atlas_has_what_the_store_knows(audits):
    atlas = pd.read_csv(audits["with"].folder / "atlas.csv")
    assert {"space_group", "crystal_system", "density", "volume_per_atom", "hull_distance"} <= set(
        atlas["by"]
    )
    assert audits["with"].summary["atlas"]["symmetry"]


def test_coverage_by_hull_distance_is_that_of_the_bounds_table(audits):
    folder = audits["with"].folder
    bounds, atlas = pd.read_parquet(folder / "bounds.parquet"), pd.read_csv(folder / "atlas.csv")
    rows = bounds[(bounds["seen_in"] == "unseen") & (bounds["error_mev_per_atom"].abs() < 3000)]
    stable = rows[rows["hull_distance_ev_per_atom"] == 0]
    told = atlas[(atlas["group"] == "1/3: 0 eV/atom") & (atlas["level"] == 0.9)].iloc[0]
    assert told["by"] == "hull_distance"
    assert told["n"] == len(stable) > 10
    inside = stable["error_mev_per_atom"].between(
        stable["lower_90_mev_per_atom"], stable["upper_90_mev_per_atom"]
    )
    assert told["coverage"] == pytest.approx(inside.mean())
