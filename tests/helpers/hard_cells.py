"""Cells that tell neighbour lists apart."""

from __future__ import annotations

import numpy as np

from mace_bounds.structures import Crystal


def crystal(cell: object, n: int, spread: float = 1.0, seed: int = 0) -> Crystal:
    """Silicon atoms at random places of a cell (three lengths or three vectors), or of several cells."""
    vectors = np.array(cell, dtype=float)
    vectors = np.diag(vectors) if vectors.ndim == 1 else vectors
    fractional = spread * np.random.default_rng(seed).random((n, 3))
    return Crystal(np.full(n, 14), fractional @ vectors, vectors)


SLAB = crystal([5.1, 6.2, 4.3], 20)
HARD_CELLS = {
    "many images": crystal([1.1, 1.3, 1.2], 1),
    "one thin direction": crystal([1.05, 9.3, 14.2], 4),
    "skewed": crystal([[4.0, 0.0, 0.0], [15.7, 4.1, 0.0], [-9.8, 8.2, 3.9]], 3),
    "left-handed": crystal([[0.0, 4.0, 0.3], [5.0, 0.2, 0.0], [0.1, 0.0, 6.0]], 5),
    "outside of the cell": crystal([4.1, 5.2, 3.3], 6, spread=7.0),
    "far outside of the cell": crystal([4.1, 5.2, 3.3], 3, spread=1e4),
    "isolated atom": crystal([50.0, 50.0, 50.0], 1),
    "vacuum slab": Crystal(SLAB.numbers, SLAB.positions, np.diag([5.1, 6.2, 40.0])),
    "molecule in a box": crystal([2.9, 2.8, 3.1], 5),
    "200 atoms": crystal([14.0, 14.0, 14.0], 200),
    "300 atoms, skewed": crystal([[17.0, 0.0, 0.0], [8.0, 15.0, 0.0], [-7.0, 6.0, 16.0]], 300),
}
HARD_CELLS["molecule in a box"] = Crystal(
    HARD_CELLS["molecule in a box"].numbers, HARD_CELLS["molecule in a box"].positions, 30.0 * np.eye(3)
)
