"""Periodic neighbour lists.

They come from pymatgen's ``find_points_in_spheres``: of the libraries that pip installs the fastest on crystals
(``scripts/bench_neighbours.py``), kept by the Materials Project, and needed by this package anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.features._graph import Graph
from mace_bounds.structures import reduced_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.structures import Crystal

SAME_ATOM_A = 1e-6  # pymatgen counts an atom among its own neighbours, at zero or at round-off
MAX_CUBES = 100_000  # of the grid that pymatgen lays over the crystal, about 300 bytes each
_PERIODIC = np.ones(3, dtype=np.int64)


def build_graph(crystal: Crystal, cutoff: float) -> Graph:
    """Every pair of atoms closer than ``cutoff`` Å, periodic images included, sorted by receiver.

    The search is done in the shortest cell of the lattice, with all atoms inside: its time and memory do not
    depend on how skewed the given cell is, or where the atoms lie.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = reduced_cell(crystal.cell)
    inside = crystal.positions - np.floor(crystal.positions @ np.linalg.inv(cell)) @ cell
    # Wide grids for huge cells: the radius is a lower limit of the width of a cube.
    extent = float(np.prod(np.abs(cell).sum(axis=0) + 2 * cutoff))
    receivers, senders, images, lengths = find_points_in_spheres(
        inside, inside, cutoff, _PERIODIC, cell, tol=0.0, min_r=(extent / MAX_CUBES) ** (1 / 3)
    )
    others = np.flatnonzero(lengths > SAME_ATOM_A)
    edge_index = np.stack([senders.take(others), receivers.take(others)])
    return Graph(crystal.numbers, inside, edge_index, _translations(images.take(others, axis=0), -cell))


def _translations(images: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``images @ cell`` term by term: by BLAS, the reverse of an edge might not have just the opposite shift."""
    i, j, k = np.ascontiguousarray(images.T)
    a, b, c = cell[:, :, None]
    return np.ascontiguousarray((a * i + b * j + c * k).T)
