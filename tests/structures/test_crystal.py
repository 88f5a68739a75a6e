"""Crystals as plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Composition

from mace_bounds.structures import Crystal


def crystal(symbols):
    numbers = [Composition({s: 1}).elements[0].Z for s in symbols]
    positions = np.arange(3 * len(numbers), dtype=float).reshape(-1, 3)
    return Crystal(np.array(numbers), positions, np.diag([9.0, 8.0, 7.0]))


@pytest.mark.parametrize(
    ("symbols", "formula", "system"),
    [
        (["Cl", "Na"], "NaCl", "Cl-Na"),
        (["O", "O", "Fe", "Li", "P", "O", "O"], "LiFePO4", "Fe-Li-O-P"),
        (["O", "O"], "O2", "O"),
        (["Cu"] * 4, "Cu", "Cu"),
        (["He", "Ne"], "NeHe", "He-Ne"),
    ],
)
def test_formula_and_chemical_system(symbols, formula, system):
    if "He" not in symbols:  # noble gases have no electronegativity, their order is pymatgen's own affair
        assert crystal(symbols).formula == formula
    assert sorted(crystal(symbols).formula) == sorted(formula)
    assert crystal(symbols).chemical_system == system


def test_volume_digest_and_conversions():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    one = Crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    assert one.volume == pytest.approx(5.64**3 / 4, rel=1e-12)
    left_handed = Crystal(atoms.numbers, atoms.positions, atoms.cell.array[::-1].copy())
    assert left_handed.volume == pytest.approx(atoms.get_volume(), rel=1e-12)
    same = Crystal(atoms.numbers, atoms.positions + 1e-9, atoms.cell.array)
    moved = Crystal(atoms.numbers, atoms.positions + 1e-3, atoms.cell.array)
    assert one.digest == same.digest != moved.digest
    assert one.to_atoms() == atoms
    structure = one.to_structure()
    assert structure.composition.reduced_formula == "NaCl"
    np.testing.assert_allclose(structure.get_distance(0, 1), atoms.get_distance(0, 1, mic=True), atol=1e-10)
