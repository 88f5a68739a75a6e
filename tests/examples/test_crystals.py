"""The CIF files that ship: they read, and their bond lengths follow from the textbook geometry."""

from math import sqrt

import numpy as np
import pytest

from mace_bounds.examples import example_files, example_store
from mace_bounds.features import FeatureStore
from mace_bounds.structures import Crystal, read

# formula, atoms in the cell, (pair, nearest distance in Å from the lattice parameters, neighbours at it)
CRYSTALS = {
    "NaCl": ("NaCl", 8, ("Na", "Cl", 5.640 / 2, 6)),
    "MgO": ("MgO", 8, ("Mg", "O", 4.212 / 2, 6)),
    "CsCl": ("CsCl", 2, ("Cs", "Cl", 4.123 * sqrt(3) / 2, 8)),
    "Si": ("Si", 8, ("Si", "Si", 5.431 * sqrt(3) / 4, 4)),
    "GaAs": ("GaAs", 8, ("Ga", "As", 5.653 * sqrt(3) / 4, 4)),
    "ZnS": ("ZnS", 8, ("Zn", "S", 5.409 * sqrt(3) / 4, 4)),
    "Cu": ("Cu", 4, ("Cu", "Cu", 3.615 / sqrt(2), 12)),
    "TiO2": ("TiO2", 6, ("Ti", "O", sqrt(2 * (0.195 * 4.594) ** 2 + (2.959 / 2) ** 2), 4)),
    "BaTiO3": ("BaTiO3", 5, ("Ti", "O", 4.009 / 2, 6)),
    # O at (0, 0, z) and Co at (2/3, 1/3, 1/3) of the hexagonal cell are a/√3 apart in the plane
    "LiCoO2": ("LiCoO2", 12, ("Co", "O", sqrt(2.816**2 / 3 + ((1 / 3 - 0.260) * 14.05) ** 2), 6)),
}


def one(path) -> Crystal:
    (record,) = read(path)
    assert record.reason is None
    assert record.crystal is not None
    return record.crystal


def test_every_file_is_covered_here():
    assert sorted(path.stem for path in example_files()) == sorted(CRYSTALS)


@pytest.mark.parametrize("name", CRYSTALS)
def test_geometry(name):
    from ase.neighborlist import neighbor_list

    formula, n_atoms, (a, b, distance, coordination) = CRYSTALS[name]
    crystal = one(example_files(name)[0])
    assert crystal.formula == formula
    assert len(crystal.numbers) == n_atoms

    atoms = crystal.to_atoms()
    symbols = atoms.get_chemical_symbols()
    i, j, d = neighbor_list("ijd", atoms, distance + 0.02)
    assert d.min() == pytest.approx(distance, abs=1e-3)
    assert {frozenset((symbols[p], symbols[q])) for p, q in zip(i, j, strict=True)} == {frozenset((a, b))}
    centre = symbols.index(a)
    assert (i == centre).sum() == coordination


def test_broken_file_gives_a_reason():
    (record,) = read(example_files("broken")[0])
    assert record.crystal is None
    assert record.reason is not None
    assert "0.28" in record.reason


def test_unknown_example_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"unobtainium.*NaCl"):
        example_files("unobtainium")


def test_the_example_store_holds_errors_of_the_real_model_and_no_structures():
    store = FeatureStore(example_store())
    assert (store.manifest.energies_of, store.manifest.model) == ("MACE-MPA-0", "mini")
    table = store.read().table
    assert len(table) == 782
    assert table["reason"].isna().all()
    assert not {"positions", "cell"} & set(table)
    # the first row of the published table: wbm-3-38149, Sm(MgSn)2
    row = table.set_index("id").loc["wbm-3-38149"]
    assert (row["energy_ev"], row["energy_model_ev"]) == (-34.79162033, -35.0343)
    error = (table["energy_ev"] - table["energy_model_ev"]) / table["n_atoms"]
    # Matbench Discovery gives 20 to 30 meV/atom for models of this kind on WBM
    assert 0.015 < np.abs(error).mean() < 0.035
