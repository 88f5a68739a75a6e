"""Periodic neighbour lists.

They come from pymatgen's ``find_points_in_spheres``: of the libraries that pip installs the fastest on crystals
(``scripts/bench_neighbours.py``), kept by the Materials Project, and needed by this package anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.backbones.graph import Graph
from mace_bounds.structures import reduced_cell

if TYPE_CHECKING:
    from mace_bounds.structures import Crystal

MAX_CUBES = 100_000  # of the grid that pymatgen lays over the crystal, about 300 bytes each
_PERIODIC = np.ones(3, dtype=np.int64)
_ORDER = 2.0 ** np.array([0, 16, 32])  # of images: one that is not zero comes before or after its opposite


def build_graph(crystal: Crystal, cutoff: float) -> Graph:
    """Every pair of atoms closer than ``cutoff`` Å once, periodic images included, in the order of the first atoms.

    The search is done in the shortest cell of the lattice, with all atoms inside: its time and memory do not
    depend on how skewed the given cell is, or where the atoms lie.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = reduced_cell(crystal.cell)
    inside = crystal.positions - np.floor(crystal.positions @ np.linalg.inv(cell)) @ cell
    # Wide grids for huge cells: the radius is a lower limit of the width of a cube.
    extent = float(np.prod(np.abs(cell).sum(axis=0) + 2 * cutoff))
    first, second, images, _ = find_points_in_spheres(
        inside, inside, cutoff, _PERIODIC, cell, tol=0.0, min_r=(extent / MAX_CUBES) ** (1 / 3)
    )
    # Both directions are found. An atom pairs with half of its own images, and not with itself.
    once = np.flatnonzero((second < first) | ((second == first) & (images @ _ORDER > 0)))
    pairs = np.stack([first.take(once), second.take(once)])
    return Graph(crystal.numbers, inside, pairs, images.take(once, axis=0) @ -cell)
