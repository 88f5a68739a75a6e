"""What symmetry saves: Nye's counts of constants, Hessians and stencils against those without symmetry."""

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal

from helpers.lennard_jones import LennardJones
from mace_bounds.propagation import EnergySurface, Potential, central_stencil, minimum
from mace_bounds.propagation.invariance import (
    Operations,
    columns_of,
    count_of_forms,
    invariant_forms,
    invariant_vectors,
    operations_of,
)
from mace_bounds.structures import Crystal, read

MODEL = LennardJones(inner_a=4.0, cutoff_a=5.5)


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


TRICLINIC = Crystal(
    np.array([18, 10]),
    np.array([[0.0, 0.0, 0.0], [1.2, 1.9, 2.3]]),
    np.array([[3.9, 0.0, 0.0], [0.4, 4.2, 0.0], [0.7, 0.3, 4.6]]),
)
CALCITE = ase_crystal(
    ["Ca", "C", "O"], [(0, 0, 0), (0, 0, 0.25), (0.257, 0, 0.25)], spacegroup=167,
    cellpar=[4.99, 4.99, 17.06, 90, 90, 120], primitive_cell=True,
)  # fmt: skip
RUTILE = ase_crystal(
    ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90]
)


@pytest.mark.parametrize(
    ("atoms", "constants"),
    [
        (bulk("NaCl", "rocksalt", 5.64), 3),
        (bulk("Mg"), 5),
        (CALCITE, 6),
        (RUTILE, 6),
        (TRICLINIC, 21),
    ],
)
def test_elastic_constants_are_as_many_as_in_nye(atoms, constants):
    """J. F. Nye, "Physical Properties of Crystals" (1957), table 9."""
    cell = atoms if isinstance(atoms, Crystal) else crystal(atoms)
    matrices = operations_of(cell).strained()
    assert count_of_forms(matrices) == constants
    forms = invariant_forms(matrices)
    for form in forms:
        for s in matrices:
            np.testing.assert_allclose(s.T @ form @ s, form, atol=1e-12)


def test_operations_carry_atoms_to_atoms():
    cell = crystal(RUTILE)
    operations = operations_of(cell)
    assert len(operations) == 16  # P4_2/mnm
    about = cell.positions - cell.positions[0]
    inverse = np.linalg.inv(cell.cell)
    for r, p in zip(operations.rotations, operations.permutations, strict=True):
        assert (cell.numbers[p] == cell.numbers).all()
        moved = about @ r.T + cell.positions[p[0]]
        left = (moved - cell.positions[p]) @ inverse
        np.testing.assert_allclose(left, np.round(left), atol=1e-6)


def test_a_cell_without_symmetry_has_the_identity():
    operations = operations_of(TRICLINIC)
    assert len(operations) == 1
    np.testing.assert_array_equal(operations.permutations, [[0, 1]])


@pytest.mark.parametrize("freedom", ["fixed", "full"])
def test_a_hessian_by_symmetry_is_that_of_all_differences(freedom):
    """Around a vacancy in a cube, at a minimum with 48 operations and at a place with none."""
    atoms = bulk("Ar", "fcc", 3.95, cubic=True).repeat(2)[1:]
    cell = Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)
    potential = Potential.frozen(MODEL)
    surface = EnergySurface.of(cell, potential, freedom)
    found = minimum(potential, surface, points=4)
    assert len(surface.symmetric(found.q)[1]) == 48
    n, d, h = len(cell.numbers), surface.size, 2e-3

    def slope(move, h):
        return (surface.gradient(found.q + h * move) - surface.gradient(found.q - h * move)) / (2 * h)

    direct = np.array([(4 * slope(e, h) - slope(e, 2 * h)) / 3 for e in np.eye(d)])
    np.testing.assert_allclose(found.hessian, 0.5 * (direct + direct.T), atol=2e-6 * np.abs(direct).max())
    q = 0.05 * np.random.default_rng(0).standard_normal(d)
    assert len(surface.symmetric(q)[1]) == 1
    calls = []

    def product(atom, direction):
        calls.append(atom)
        return direct[3 * atom : 3 * atom + 3, : 3 * n].T.reshape(n, 3, 3) @ direction

    columns_of(surface.operations, product, range(n))
    # shells of 12, 3, 12, 3 and 1 atoms with the sites mm2, 4/mmm, mm2, 4/mmm (two directions each) and m-3m (one)
    assert len(calls) == 9


def test_what_is_known_of_a_symmetric_function_needs_few_points():
    """x² + y² + 3 z² and a slope along z, for fourfold rotations about z."""
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    group = np.array([np.linalg.matrix_power(quarter, k) for k in range(4)])
    assert len(invariant_vectors(group)) == 1
    stencil = central_stencil([0.1, 0.1, 0.2], group)
    assert len(stencil.points) == 5
    values = np.array([p[0] ** 2 + p[1] ** 2 + 3 * p[2] ** 2 + 0.7 * p[2] - 1 for p in stencil.points])
    np.testing.assert_allclose(stencil.hessian(values[None])[0], np.diag([2.0, 2, 6]), atol=1e-10)
    np.testing.assert_allclose(stencil.gradient(values[None])[0], [0, 0, 0.7], atol=1e-10)


def test_operations_are_chosen():
    operations = operations_of(crystal(bulk("Ar", "fcc", 4.0)))
    assert len(operations) == 48
    assert isinstance(operations[operations.rotations[:, 0, 0] > 0.5], Operations)
