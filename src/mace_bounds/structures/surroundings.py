"""What is odd about where the atoms of a crystal sit: atoms alone, atoms in one another, empty space."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from mace_bounds.structures.check import NEIGHBOUR_RADIUS_ANGSTROM, reduced_cell

if TYPE_CHECKING:
    from mace_bounds.structures.crystal import Crystal

CLOSE_SHARE = 0.5
"""Atoms closer than this share of the sum of their covalent radii are flagged. Of 7,000 crystals of four databases none
was closer, and only cells under extreme pressure came near."""

EMPTY_DISTANCE_ANGSTROM = 2.5
"""A point farther than this from the covalent sphere of every atom is empty; no point of a dense crystal is."""

EMPTY_SHARE = 0.05
"""Cells of which more than this share is empty are flagged."""

OXYGEN_BONDS = ("peroxide", "superoxide", "ozonide")
"""Flags of crystals whose oxygen atoms are bonded to each other, to which MP2020 has corrections of their own."""

PLAIN_OXIDE = "plain_oxide"
"""Flag of a crystal with the composition of a peroxide or superoxide that is none."""

_LONGEST_BOND_ANGSTROM = (
    1.05 * 1.49
)  # O-O of a peroxide, as pymatgen's oxide_type has it with its default tolerance
_O, _ALKALI, _EARTHS = 8, {3, 11, 19, 37, 55}, {4, 12, 20, 38, 56}

_MOST_POINTS = 24  # along a lattice vector: a coarser grid is enough where a cell is large
_FEW_PAIRS = 100_000  # of points and atoms: all distances are sooner there than a tree
_DENSE = 2.0  # cells with less volume than this times that of the covalent spheres hold no vacuum


def structure_flags(crystal: Crystal, shortest_angstrom: float = 0.0) -> tuple[str, ...]:
    """Flags of a crystal that the model can compute, but that is unlike the crystals that bounds are measured on.

    Parameters
    ----------
    crystal : Crystal
        A crystal that :func:`~mace_bounds.structures.check` accepts.
    shortest_angstrom : float
        Its shortest distance between atoms, Å, where known: it saves a search.

    Returns
    -------
    tuple of str
        ``isolated_atoms`` (an atom without a neighbour within 6 Å), ``close_atoms`` (two atoms closer than half the
        sum of their covalent radii), ``vacuum`` (more than 5 % of the cell is farther than 2.5 Å from the covalent
        spheres of all atoms: slabs, wires, molecules in a box). Radii: Cordero et al., Dalton Trans. 2008, 2832.
        ``peroxide``, ``superoxide`` or ``ozonide`` by distances between oxygen atoms, and ``plain_oxide`` where only
        the composition is that of one.
    """
    return _odd_flags(crystal, shortest_angstrom) + _oxide_flags(crystal, shortest_angstrom)


def _odd_flags(crystal: Crystal, shortest_angstrom: float) -> tuple[str, ...]:
    radii = covalent_radii[crystal.numbers]
    spheres = 4.0 / 3.0 * np.pi * float((radii**3).sum())
    # no point of space is farther from a lattice than half the root of the sum of its vectors' squares
    farthest = 0.5 * float(np.linalg.norm(crystal.cell)) - float(radii.max())
    loose = crystal.volume > _DENSE * spheres and farthest > EMPTY_DISTANCE_ANGSTROM
    tight = shortest_angstrom < 2.0 * CLOSE_SHARE * float(radii.max())
    alone = crystal.volume / len(radii) >= 100.0  # even a body-centred gas of less has neighbours within 6 Å
    if not (loose or tight or alone):
        return ()
    cell = reduced_cell(crystal.cell)
    found = {
        "isolated_atoms": alone and _isolated(crystal.positions, cell),
        "close_atoms": tight and _close(crystal.positions, cell, radii),
        "vacuum": loose and _empty_share(crystal.positions, cell, radii) > EMPTY_SHARE,
    }
    return tuple(flag for flag, there in found.items() if there)


def _oxide_flags(crystal: Crystal, shortest_angstrom: float) -> tuple[str, ...]:
    oxygen = crystal.numbers == _O
    n, others = int(oxygen.sum()), set(crystal.counts) - {_O}
    if not n or not others:
        return ()
    if shortest_angstrom < _LONGEST_BOND_ANGSTROM and _bonded(crystal, oxygen):
        kind = _oxide_type(crystal)
        if kind in OXYGEN_BONDS:
            return (kind,)
    m = len(oxygen) - n
    by_formula = len(others) == 1 and ((others <= _ALKALI and n >= m) or (others <= _EARTHS and n > m))
    return (PLAIN_OXIDE,) if by_formula else ()


def _bonded(crystal: Crystal, chosen: NDArray[np.bool_]) -> bool:
    """Whether two of some atoms of a crystal, or an atom and its image, are bonded as oxygen atoms are."""
    cell, positions = reduced_cell(crystal.cell), crystal.positions[chosen]
    images, _ = _images(positions, cell, _LONGEST_BOND_ANGSTROM)
    nearest = _distances(images, _wrapped(positions, cell), 2, _LONGEST_BOND_ANGSTROM)[0][:, 1]
    return bool(np.isfinite(nearest).any())


def _oxide_type(crystal: Crystal) -> str:
    from pymatgen.core.structure_analyzer import oxide_type

    return str(oxide_type(crystal.to_structure(), 1.05))


def _isolated(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> bool:
    images, _ = _images(positions, cell, NEIGHBOUR_RADIUS_ANGSTROM)
    return bool(
        _distances(images, _wrapped(positions, cell), 2, NEIGHBOUR_RADIUS_ANGSTROM)[0][:, 1].max() == np.inf
    )


def _close(positions: NDArray[np.float64], cell: NDArray[np.float64], radii: NDArray[np.float64]) -> bool:
    reach = 2.0 * CLOSE_SHARE * float(radii.max())
    images, atoms = _images(positions, cell, reach)
    distances, neighbours = _distances(images, _wrapped(positions, cell), 8, reach)
    there = np.isfinite(distances[:, 1:])
    near = radii[atoms[np.where(there, neighbours[:, 1:], 0)]]
    return bool((distances[:, 1:] < CLOSE_SHARE * (radii[:, None] + near))[there].any())


def _empty_share(
    positions: NDArray[np.float64], cell: NDArray[np.float64], radii: NDArray[np.float64]
) -> float:
    """Share of the cell's volume that is empty, on a grid; a coarse grid sends away most crystals."""
    reach = EMPTY_DISTANCE_ANGSTROM + float(radii.max())
    images, atoms = _images(positions, cell, reach)
    share = 0.0
    for spacing, fewest, margin in ((2.0, 4, 0.5), (1.0, 4, 0.0)):
        counts = np.clip(np.ceil(np.linalg.norm(cell, axis=1) / spacing), fewest, _MOST_POINTS).astype(int)
        axes = [(np.arange(n) + 0.5) / n for n in counts]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
        gaps = _gaps(images, radii[atoms], points, reach)
        share = float((gaps > EMPTY_DISTANCE_ANGSTROM - margin).mean())
        if share == 0.0:
            break
    return share


def _gaps(
    images: NDArray[np.float64], radii: NDArray[np.float64], points: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Distance from each point to the nearest covalent sphere, Å; inf where no atom is within ``reach``."""
    from scipy.spatial.distance import cdist

    if len(points) * len(images) <= _FEW_PAIRS:
        return np.asarray((cdist(points, images) - radii).min(axis=1, initial=np.inf))
    distances, neighbours = _distances(images, points, 4, reach)
    there = np.isfinite(distances)
    return np.asarray(np.where(there, distances - radii[np.where(there, neighbours, 0)], np.inf).min(axis=1))


def _wrapped(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    fractional = positions @ np.linalg.inv(cell)
    return np.asarray((fractional - np.floor(fractional)) @ cell)


def _images(
    positions: NDArray[np.float64], cell: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Atoms in the cell and around it as far as ``reach``, Å, and which atom of the cell each is."""
    inverse = np.linalg.inv(cell)
    fractional = positions @ inverse
    fractional = fractional - np.floor(fractional)
    margin = reach * np.linalg.norm(inverse, axis=0)  # over the distance between lattice planes
    steps = np.array(
        list(product(*(range(-n, n + 1) for n in np.ceil(margin).astype(int)))), dtype=np.float64
    )
    images = (steps[:, None] + fractional).reshape(-1, 3)
    inside = ((images > -margin) & (images < 1.0 + margin)).all(axis=1)
    return images[inside] @ cell, np.tile(np.arange(len(positions)), len(steps))[inside]


def _distances(
    images: NDArray[np.float64], points: NDArray[np.float64], most: int, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances from each point to the nearest ``most`` atoms within ``reach``, Å (inf where there are fewer)."""
    from scipy.spatial import cKDTree  # half a second that other commands need not wait for

    found = cKDTree(images).query(points, k=range(1, most + 1), distance_upper_bound=reach)
    return np.asarray(found[0]), np.asarray(found[1])
