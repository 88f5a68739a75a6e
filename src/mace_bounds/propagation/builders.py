"""Cells with a surface, a fault or room for a defect, made from a perfect crystal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.structures import Crystal, symmetry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VACUUM_A, THICKNESS_A = 12.0, 10.0
SHORTEST_A = 8.5
"""Shortest side of a cell with a defect."""
BETWEEN_FAULTS_A = 12.0
"""Distance of a fault from its periodic image."""


def conventional_cell(crystal: Crystal) -> Crystal:
    """Conventional cell by spglib, axes of cubic crystals along x, y, z; the cell itself where it finds none."""
    import spglib

    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    found = spglib.standardize_cell((crystal.cell, fractional, crystal.numbers), symprec=0.01)
    if found is None:
        return crystal
    cell, places, numbers = found
    return Crystal(np.asarray(numbers, dtype=np.int64), np.asarray(places @ cell), np.asarray(cell))


def supercell(crystal: Crystal, shortest_a: float = SHORTEST_A) -> Crystal:
    """Repeat the conventional cell until its sides are long enough."""
    conventional = conventional_cell(crystal)
    atoms = conventional.to_atoms()
    repeats = np.ceil(shortest_a / np.linalg.norm(conventional.cell, axis=1) - 1e-6).astype(int)
    atoms = atoms.repeat(np.maximum(repeats, 1))
    return Crystal(np.asarray(atoms.numbers, dtype=np.int64), atoms.positions, atoms.cell.array)


def slab(crystal: Crystal, miller: Sequence[int], thickness_a: float = THICKNESS_A) -> Crystal:
    """A slab with a surface (hkl) of the conventional cell, of 10 Å or more, and 12 Å of vacuum along the third vector.

    It ends where the gap between layers is widest, so that few bonds are cut.
    """
    layers = 1
    while True:
        whole, unit = _layered(crystal, miller, layers)
        heights = whole.positions @ unit
        if np.ptp(heights) >= thickness_a:
            break
        layers += 1
    cell = whole.cell.copy()
    cell[2] = unit * (np.ptp(heights) + VACUUM_A)
    return Crystal(whole.numbers, whole.positions, cell)


def dumbbell(perfect: Crystal, direction: Sequence[float]) -> Crystal:
    """Two atoms in the place of the first, apart by 0.8 of the nearest distance along a direction (Cartesian)."""
    along = np.asarray(direction, dtype=np.float64)
    along = along / np.linalg.norm(along)
    nearest = np.linalg.norm(perfect.positions[1:] - perfect.positions[0], axis=1).min()
    half, site = 0.4 * nearest * along, perfect.positions[:1]
    places = np.concatenate([site - half, site + half, perfect.positions[1:]])
    return Crystal(np.concatenate([perfect.numbers[:1], perfect.numbers]), places, perfect.cell)


def slip(
    crystal: Crystal, miller: Sequence[int], direction: Sequence[int]
) -> tuple[Crystal, NDArray[np.float64]]:
    """A cell to be cut and slipped along a plane (hkl), and the shortest lattice vector along [uvw] in it, Å.

    Indices are of the conventional cell. The first two vectors span the plane, and the third leads through 12 Å or more
    to the next cut, which is in the widest gap between layers: one fault a cell where the slip is added to the third
    vector and positions stay.

    Raises
    ------
    StructureError
        If the direction is not in the plane.
    """
    one, unit = _layered(crystal, miller, 1)
    along = np.asarray(direction, dtype=np.float64) @ conventional_cell(crystal).cell
    if abs(along @ unit) > 1e-6 * np.linalg.norm(along) or not along.any():
        named = ["".join(map(str, indices)) for indices in (miller, direction)]
        raise StructureError(
            f"the direction [{named[1]}] is not in the plane ({named[0]}); choose one with h u + k v + l w = 0."
        )
    layers = int(np.ceil(BETWEEN_FAULTS_A / abs(one.cell[2] @ unit) - 1e-6))
    # the layer is a primitive cell of the crystal, so its vectors tell lattice vectors
    indices = np.round(along @ np.linalg.inv(one.cell)).astype(int)
    return _layered(crystal, miller, layers)[0], along / np.gcd.reduce(indices)


def slipped(crystal: Crystal, vector_a: NDArray[np.float64]) -> Crystal:
    """A cell of :func:`slip` whose halves are moved against each other by a vector in the plane."""
    cell = crystal.cell.copy()
    cell[2] += vector_a
    return Crystal(crystal.numbers, crystal.positions, cell)


def _layered(crystal: Crystal, miller: Sequence[int], layers: int) -> tuple[Crystal, NDArray[np.float64]]:
    """A primitive cell whose first two vectors span a plane (hkl), repeated along the third, and the plane's normal.

    The widest gap between its layers is at its ends, and the third vector leads along the normal.
    """
    conventional = conventional_cell(crystal)
    primitive = symmetry_of(conventional).primitive
    # ase and numpy take indices that are text for other ones without a word
    normal = np.linalg.inv(conventional.cell) @ np.array([int(index) for index in miller], dtype=np.float64)
    # centrings are halves and thirds: six times the lattice planes that a primitive vector leads through are whole
    steps = np.round(6 * primitive.cell @ normal).astype(int)
    cell = _in_plane_first(steps // np.gcd.reduce(steps)) @ primitive.cell
    if np.linalg.det(cell) < 0:
        cell = cell[[1, 0, 2]]
    part = np.linalg.solve(cell.T, primitive.positions.T).T
    part -= np.floor(part + 1e-6)  # what is at 1 but for round-off is at 0
    ordered = np.sort(part[:, 2])
    gaps = np.append(ordered[1:], ordered[0] + 1.0) - ordered
    widest = int(np.argmax(np.round(gaps, 6)))
    part[:, 2] = np.mod(part[:, 2] - ordered[widest] - 0.5 * gaps[widest], 1.0)
    every = np.concatenate([part + np.array([0.0, 0.0, k]) for k in range(layers)]) @ cell
    numbers = np.tile(primitive.numbers, layers)
    whole = Crystal(numbers, every, cell * [[1.0], [1.0], [float(layers)]])
    return whole, normal / np.linalg.norm(normal)


def _in_plane_first(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Unimodular matrix whose first two rows have no step through the planes, and whose third has one; short ones."""
    small = range(-4, 5)
    every = np.array([(i, j, k) for i in small for j in small for k in small if (i, j, k) != (0, 0, 0)])
    every = every[np.argsort((every**2).sum(axis=1), kind="stable")]
    inside, through = every[every @ steps == 0], every[every @ steps == 1]
    for a in inside:
        for b in inside:
            for c in through[:1]:
                if abs(round(float(np.linalg.det([a, b, c])))) == 1:
                    return np.array([a, b, c])
    raise StructureError("the indices of the plane are too large; give smaller ones.")
