"""What cannot be scored is refused in one sentence, quickly, whatever the cell."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.data import covalent_radii
from ase.geometry import get_distances, minkowski_reduce
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.errors import StructureError
from mace_bounds.structures import Crystal, check, structure_flags
from mace_bounds.structures.check import reduced_cell


def crystal(numbers, positions, cell):
    return Crystal(np.array(numbers), np.array(positions, dtype=float), np.array(cell, dtype=float))


def of_atoms(atoms):
    return crystal(atoms.numbers, atoms.positions, atoms.cell.array)


def test_real_crystals_pass():
    for atoms in (bulk("Cu"), bulk("Si") * (3, 3, 3), bulk("NaCl", "rocksalt", a=5.64), bulk("Ti")):
        check(of_atoms(atoms))
        assert structure_flags(of_atoms(atoms)) == ()


@pytest.mark.parametrize(
    ("numbers", "positions", "cell", "words"),
    [
        ([29], [[np.nan, 0, 0]], np.eye(3) * 4, "NaN"),
        ([29], [[0, 0, 0]], np.diag([4, 4, np.inf]), "NaN"),
        ([29], [[0, 0, 0]], np.diag([4, 4, 0]), "volume"),
        ([29], [[0, 0, 0]], [[4, 0, 0], [0, 4, 0], [4, 4, 1e-9]], "volume"),
        ([29], [[0, 0, 0]], np.eye(3) * 1e5, "a lattice vector of"),
        ([29], [[0, 1e9, 0]], np.eye(3) * 4, "from the origin"),
        ([29, 8], [[0, 0, 0], [0.1, 0, 0]], np.eye(3) * 4, "0.1 Å"),
        ([29, 8], [[0, 0, 0], [3.9, 4.0, 8.0]], np.eye(3) * 4, "0.1 Å"),
        ([29], [[0, 0, 0]], np.diag([0.3, 40, 40]), "periodic image"),
        ([29], [[0, 0, 0]], np.eye(3) * 0.55, "neighbours"),
    ],
)
def test_refused_in_one_sentence(numbers, positions, cell, words):
    with pytest.raises(StructureError, match=words) as caught:
        check(crystal(numbers, positions, cell))
    assert "\n" not in str(caught.value)
    assert re.fullmatch(r"[^;]+; [^;]+\.", str(caught.value))


def test_limits_and_elements():
    copper = of_atoms(bulk("Cu") * (2, 2, 2))
    with pytest.raises(StructureError, match="8 atoms, more than 7"):
        check(copper, max_atoms=7)
    with pytest.raises(StructureError, match="Cu"):
        check(copper, elements={1, 8})
    check(copper, elements={1, 8, 29})
    empty = Crystal(np.zeros(0, dtype=int), np.zeros((0, 3)), np.eye(3))
    with pytest.raises(StructureError, match="structure is empty"):
        check(empty)


def test_skewed_cell_is_the_same_lattice():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    skew = np.array([[1, 0, 0], [90, 1, 0], [-37, 55, 1]])
    check(crystal(atoms.numbers, atoms.positions, skew @ atoms.cell.array))
    close = atoms.cell.array[0] * 0.05  # 0.2 Å from the first atom, hidden two cells away
    hidden = close + 2 * atoms.cell.array[1] - 5 * atoms.cell.array[2]
    with pytest.raises(StructureError, match=r"0\.199 Å"):
        check(crystal([11, 17], [atoms.positions[0], atoms.positions[0] + hidden], skew @ atoms.cell.array))


matrices = st.lists(st.integers(-9, 9), min_size=9, max_size=9).map(
    lambda v: np.array(v, dtype=float).reshape(3, 3)
)


@settings(deadline=None, max_examples=150)
@given(matrices.filter(lambda m: abs(np.linalg.det(m)) > 0.5))
def test_reduction_is_minkowski_and_keeps_the_lattice(cell):
    reduced = reduced_cell(cell)
    theirs, _ = minkowski_reduce(cell)
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(reduced, axis=1)), np.sort(np.linalg.norm(theirs, axis=1)), rtol=1e-9
    )
    transformation = reduced @ np.linalg.inv(cell)
    np.testing.assert_allclose(transformation, np.rint(transformation), atol=1e-6)
    assert abs(np.linalg.det(transformation)) == pytest.approx(1.0)


@settings(deadline=None, max_examples=100)
@given(
    matrices.map(lambda m: m / 3).filter(lambda m: abs(np.linalg.det(m)) > 0.6),
    st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=2, max_size=5),
)
def test_overlap_decision_agrees_with_brute_force(cell, fractional):
    positions = np.array(fractional) @ cell
    reduced, _ = minkowski_reduce(cell)
    _, distances = get_distances(positions, cell=reduced, pbc=True)
    shortest = min(np.linalg.norm(reduced, axis=1).min(), distances[np.triu_indices(len(positions), 1)].min())
    if abs(shortest - 0.5) < 1e-6:
        return
    message = ""
    try:
        check(crystal([8] * len(positions), positions, cell))
    except StructureError as error:
        message = str(error)
    if "neighbours" not in message:  # the density is judged first
        assert ("less than 0.5 Å" in message) == (shortest < 0.5)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3, 1e150, 1e308])
def test_absurd_cells_are_judged_at_once(scale):
    rng = np.random.default_rng(0)
    for _ in range(50):
        cell = np.clip(rng.normal(size=(3, 3)), -1, 1) * np.array([scale, 1.0, 1 / scale])[:, None]
        with pytest.raises(StructureError):
            check(crystal([8, 8, 8], [[0, 0, 0], [0, 0, 0], [1, 1, 1]], cell))


def test_many_atoms_are_compared_in_chunks(monkeypatch):
    atoms = bulk("Cu") * (16, 16, 16)
    sizes = []
    plain = np.einsum
    monkeypatch.setattr(sys.modules["mace_bounds.structures.check"], "_MANY_ATOMS", 5000)
    monkeypatch.setattr(np, "einsum", lambda rule, *a: (sizes.append(a[0].shape[:2]), plain(rule, *a))[1])
    check(of_atoms(atoms), max_atoms=5000)
    pairs = [rows * columns for rows, columns in sizes]
    assert max(pairs) <= 500_000  # memory stays bounded
    assert sum(pairs) < 0.6 * len(atoms) ** 2  # every pair once, not twice


@pytest.mark.parametrize("seed", range(20))
def test_very_many_atoms_are_compared_on_a_grid_with_the_same_result(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    cell = reduced_cell(np.diag(rng.uniform(2, 12, 3)) + rng.normal(0, 1, (3, 3)))
    positions = rng.uniform(-20, 40, (int(rng.integers(2, 9)), 3))
    found = []
    for limit in (2_000, 1):
        monkeypatch.setattr(sys.modules["mace_bounds.structures.check"], "_MANY_ATOMS", limit)
        try:
            # exact up to the radius of lithium
            found.append(min(check(crystal([3] * len(positions), positions, cell)), covalent_radii[3]))
        except StructureError as error:
            found.append(str(error))
    assert found[0] == (pytest.approx(found[1], abs=1e-9) if isinstance(found[1], float) else found[1])


def test_isolated_atoms_are_legal_but_flagged():
    alone = crystal([2], [[0, 0, 0]], np.eye(3) * 15)
    check(alone)
    assert structure_flags(alone) == ("isolated_atoms", "vacuum")
    pair = crystal([8, 8], [[0, 0, 0], [14.0, 0, 0]], np.eye(3) * 15)
    assert structure_flags(pair) == ("vacuum",)
    three = crystal([7, 7, 2], [[0, 0, 0], [1.2, 0, 0], [10, 10, 10]], np.eye(3) * 20)
    assert structure_flags(three) == ("isolated_atoms", "vacuum")
