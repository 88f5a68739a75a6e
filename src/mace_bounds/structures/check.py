"""Whether a crystal can be scored at all: cheap, and safe for absurd cells.

Every limit is in Å on positions and cell, so that what passes here can be given to any model.
"""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from mace_bounds.errors import StructureError

if TYPE_CHECKING:
    from mace_bounds.structures.crystal import Crystal

MOST_ATOMS = 100_000
"""No limit on the atoms of a structure is higher: their energies would take hours."""

MIN_DISTANCE_ANGSTROM = 0.5
MAX_CELL_ANGSTROM = 1_000.0
MAX_POSITION_ANGSTROM = 1e5
MIN_VOLUME_CUBIC_ANGSTROM = 0.1
NEIGHBOUR_RADIUS_ANGSTROM = 6.0
MAX_NEIGHBOURS = 2_000
_MIN_FLATNESS = 1e-6  # volume over the product of the lengths; flatter cells lose all digits
_PAIRS_PER_CHUNK = 500_000
_MANY_ATOMS = 2_000  # from here on the comparison of all pairs takes longer than a grid
_MAX_CUBES = 100_000
_TIE = 1e-9
_NEXT_IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=np.float64)
_NO_IMAGE = np.zeros((1, 3))


def check(crystal: Crystal, *, elements: AbstractSet[int] | None = None, max_atoms: int = 500) -> float:
    """Refuse a crystal that cannot be scored, in one sentence.

    Parameters
    ----------
    crystal : Crystal
        The structure.
    elements : set of int, optional
        Atomic numbers that the model knows; None accepts all.
    max_atoms : int
        Largest number of atoms in the cell.

    Returns
    -------
    float
        The shortest distance between two atoms, periodic images included, Å; one that is larger than the largest
        covalent radius, beyond which no atoms are close, may come out too large.

    Raises
    ------
    StructureError
        For an empty or too large cell, elements missing in the model, numbers that are not finite or absurd,
        a cell without volume, atoms closer than 0.5 Å (periodic images included), or a density that gives
        more than 2,000 neighbours within 6 Å.
    """
    n_atoms = len(crystal.numbers)
    if n_atoms == 0:
        raise StructureError("the structure is empty; check the source.")
    if n_atoms > max_atoms:
        raise StructureError(too_many_atoms(n_atoms, max_atoms))
    if elements is not None and not elements >= crystal.counts.keys():
        names = ", ".join(chemical_symbols[z] for z in crystal.counts if z not in elements)
        raise StructureError(f"the model does not know {names}; choose another model.")
    _check_numbers(crystal)
    cell = reduced_cell(crystal.cell)
    _check_density(crystal)
    reach = max(MIN_DISTANCE_ANGSTROM, float(covalent_radii[crystal.numbers].max()))
    return _shortest_distance(crystal.positions, cell, reach)


def too_many_atoms(n_atoms: int, max_atoms: int) -> str:
    """Return the sentence that refuses a structure with more atoms than the limit."""
    if n_atoms > MOST_ATOMS:
        return (
            f"the structure has {n_atoms} atoms, and no more than {MOST_ATOMS} are read; take a smaller cell."
        )
    return f"the structure has {n_atoms} atoms, more than {max_atoms}; raise --max-atoms to accept it."


def reduced_cell(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lattice with its shortest vectors (pairwise and triple size reduction).

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Finite lattice vectors as rows, Å, with a volume.

    Returns
    -------
    ndarray, shape (3, 3)
        Vectors of the same lattice, sorted by length, none of which another one or the sum of two shortens.

    References
    ----------
    Semaev, "A 3-dimensional lattice reduction algorithm", CaLC 2001.
    """
    vectors = cell
    for _ in range(1_000):
        gram = (vectors @ vectors.T).tolist()
        order = sorted(range(3), key=lambda i: gram[i][i])
        step = _reduction_step(gram, *order)
        if step is None:
            return np.ascontiguousarray(vectors[order])
        i, combination = step
        shorter = np.array(combination, dtype=float) @ vectors
        if shorter @ shorter >= gram[i][i] * (1 - _TIE):  # round-off: nothing gained
            return np.ascontiguousarray(vectors[order])
        vectors = vectors.copy()
        vectors[i] = shorter
    raise StructureError("the cell is too skewed to be reduced; use a standard cell.")


def _reduction_step(
    gram: list[list[float]], i: int, j: int, k: int
) -> tuple[int, tuple[float, float, float]] | None:
    """Return which vector to replace by which integer combination; i, j, k go from short to long."""
    for long, short in ((j, i), (k, i), (k, j)):
        factor = gram[long][short] / gram[short][short]
        if abs(factor) > 0.5 + _TIE:
            combination = [0.0, 0.0, 0.0]
            combination[long], combination[short] = 1.0, -float(round(factor))
            return long, (combination[0], combination[1], combination[2])
    for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        change = gram[i][i] + gram[j][j] + 2 * (a * gram[k][i] + b * gram[k][j] + a * b * gram[i][j])
        if change < -_TIE * gram[k][k]:
            combination = [0.0, 0.0, 0.0]
            combination[i], combination[j], combination[k] = float(a), float(b), 1.0
            return k, (combination[0], combination[1], combination[2])
    return None


def _check_numbers(crystal: Crystal) -> None:
    largest = float(np.abs(crystal.positions).max())  # NaN and infinity pass through the maximum
    if not (math.isfinite(largest) and np.isfinite(crystal.cell).all()):
        raise StructureError("positions or cell hold NaN or infinity; correct the source.")
    if largest > MAX_POSITION_ANGSTROM:
        raise StructureError(
            f"an atom is {largest:.3g} Å from the origin, more than {MAX_POSITION_ANGSTROM:g} Å; check the units."
        )
    lengths = [math.hypot(*vector) for vector in crystal.cell.tolist()]
    if max(lengths) > MAX_CELL_ANGSTROM:
        raise StructureError(
            f"a lattice vector of {max(lengths):.3g} Å is longer than {MAX_CELL_ANGSTROM:g} Å; check the units."
        )
    volume = crystal.volume
    if volume < MIN_VOLUME_CUBIC_ANGSTROM or volume < _MIN_FLATNESS * math.prod(lengths):
        raise StructureError(
            f"the cell has next to no volume ({volume:.3g} Å³); correct the lattice vectors."
        )


def _check_density(crystal: Crystal) -> None:
    sphere = 4.0 / 3.0 * np.pi * NEIGHBOUR_RADIUS_ANGSTROM**3
    neighbours = len(crystal.numbers) / crystal.volume * sphere
    if neighbours > MAX_NEIGHBOURS:
        raise StructureError(
            f"an atom has about {neighbours:.0f} neighbours within {NEIGHBOUR_RADIUS_ANGSTROM:g} Å, more than "
            f"{MAX_NEIGHBOURS}; check the cell's units."
        )


def _shortest_distance(positions: NDArray[np.float64], cell: NDArray[np.float64], reach: float) -> float:
    """The shortest distance, exact up to ``reach``; refuses pairs closer than the limit.

    In a reduced cell only the next images matter.
    """
    own = math.sqrt(cell[0] @ cell[0])  # the first vector of a reduced cell is the shortest of the lattice
    if own < MIN_DISTANCE_ANGSTROM:
        raise StructureError(
            f"each atom is {own:.3g} Å from its own periodic image, less than {MIN_DISTANCE_ANGSTROM:g} Å; correct the "
            "cell."
        )
    n = len(positions)
    if n < 2:
        return own
    if n > _MANY_ATOMS:
        return _refuse_overlap(min(own, _shortest_by_grid(positions, cell, reach)))
    inverse = np.linalg.inv(cell)
    thinnest = 1.0 / math.sqrt((inverse * inverse).sum(axis=0).max())  # smallest distance of lattice planes
    # in a cell thicker than twice the distance, a pair that is close is its own nearest wrapped image
    steps = _NO_IMAGE if thinnest > 2.1 * reach else _NEXT_IMAGES @ cell
    shortest = own
    rows = max(1, _PAIRS_PER_CHUNK // (n * len(steps)))
    for start in range(0, n - 1, rows):
        stop = min(start + rows, n)
        difference = positions[start:stop, None] - positions[None, start:]
        difference -= np.rint(difference @ inverse) @ cell
        images = difference[:, :, None] + steps
        squared = np.einsum("ijsx,ijsx->ijs", images, images).min(axis=-1)
        local = np.arange(stop - start)
        squared[local, local] = np.inf
        shortest = min(shortest, _refuse_overlap(math.sqrt(float(squared.min()))))
    return shortest


def _refuse_overlap(distance: float) -> float:
    if distance < MIN_DISTANCE_ANGSTROM:
        raise StructureError(
            f"two atoms are {distance:.3g} Å apart, less than {MIN_DISTANCE_ANGSTROM:g} Å; remove duplicate "
            "or overlapping atoms."
        )
    return distance


def _shortest_by_grid(positions: NDArray[np.float64], cell: NDArray[np.float64], radius: float) -> float:
    """The shortest distance between atoms of a large cell, or the radius where none is shorter."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    inside = positions - np.floor(positions @ np.linalg.inv(cell)) @ cell
    extent = float(np.prod(np.abs(cell).sum(axis=0) + 2 * radius))
    first, second, images, distances = find_points_in_spheres(
        inside,
        inside,
        radius,
        np.ones(3, dtype=np.int64),
        cell,
        tol=0.0,
        min_r=(extent / _MAX_CUBES) ** (1 / 3),
    )
    pairs = (first != second) | images.any(axis=1)
    return float(distances[pairs].min(initial=radius))
