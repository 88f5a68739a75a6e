"""Space groups of textbook crystals."""

import numpy as np
import pytest
from ase.build import bulk

from mace_bounds.structures import Crystal, crystal_system, read, space_group


def crystal(atoms):
    return next(iter(read([atoms]))).crystal


@pytest.mark.parametrize(
    "atoms, wanted",
    [
        (bulk("NaCl", "rocksalt", 5.64), "225 Fm-3m"),
        (bulk("NaCl", "rocksalt", 5.64, cubic=True), "225 Fm-3m"),
        (bulk("Si"), "227 Fd-3m"),
        (bulk("Mg"), "194 P6_3/mmc"),
        (bulk("CsCl", "cesiumchloride", 4.12), "221 Pm-3m"),
        (bulk("ZnS", "zincblende", 5.41), "216 F-43m"),
        (bulk("ZnO", "wurtzite", 3.25, 5.2), "186 P6_3mc"),
    ],
)
def test_textbook_crystals(atoms, wanted):
    assert space_group(crystal(atoms)) == wanted


def test_displaced_atoms_leave_none():
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    assert space_group(crystal(atoms)) == "001 P1"


def test_a_cell_without_volume_is_unknown():
    good = crystal(bulk("Si"))
    assert space_group(Crystal(good.numbers, good.positions, np.zeros((3, 3)))) == "unknown"


@pytest.mark.parametrize(
    "group, name",
    [
        ("001 P1", "triclinic"),
        ("003 P2", "monoclinic"),
        ("074 Imma", "orthorhombic"),
        ("075 P4", "tetragonal"),
        ("167 R-3c", "trigonal"),
        ("168 P6", "hexagonal"),
        ("230 Ia-3d", "cubic"),
        ("unknown", "unknown"),
    ],
)
def test_crystal_systems(group, name):
    assert crystal_system(group) == name
