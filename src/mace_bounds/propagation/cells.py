"""Cells that are scaled, strained and displaced: the grids on which features are computed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.structures import Crystal

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric tensor in the order xx, yy, zz, yz, xz, xy."""


def at_volume(crystal: Crystal, volume_a3: float) -> Crystal:
    """Scale a cell and its positions to a volume, Å³; shape and fractional positions stay."""
    factor = (volume_a3 / crystal.volume) ** (1.0 / 3.0)
    return Crystal(crystal.numbers, crystal.positions * factor, crystal.cell * factor)


def at_volumes(crystal: Crystal, volumes_a3: Iterable[float]) -> list[Crystal]:
    """:func:`at_volume` for several."""
    return [at_volume(crystal, float(volume)) for volume in volumes_a3]


def strain_tensor(voigt: ArrayLike) -> NDArray[np.float64]:
    """Tensor of strain components in Voigt's order, whose last three are engineering strains 2ε, shape (3, 3)."""
    values = np.asarray(voigt, dtype=np.float64)
    tensor = np.zeros((3, 3))
    for k, (i, j) in enumerate(VOIGT):
        tensor[i, j] = tensor[j, i] = values[k] if i == j else 0.5 * values[k]
    return tensor


def deformed(crystal: Crystal, lagrangian: ArrayLike, displacements_a: ArrayLike | None = None) -> Crystal:
    """Strain a cell by a Lagrangian strain η without rotation, after moving its atoms.

    Parameters
    ----------
    crystal : Crystal
    lagrangian : array_like, shape (6,)
        η in Voigt's order: vectors are multiplied by the symmetric U with U² = 1 + 2η.
    displacements_a : array_like, shape (n_atoms, 3), optional
        Moves in the unstrained cell, Å.
    """
    values, vectors = np.linalg.eigh(np.eye(3) + 2.0 * strain_tensor(lagrangian))
    stretch = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    moved = crystal.positions if displacements_a is None else crystal.positions + np.asarray(displacements_a)
    return Crystal(crystal.numbers, moved @ stretch, crystal.cell @ stretch)


def rotated(crystal: Crystal, rotation: NDArray[np.float64]) -> Crystal:
    """Turn a cell: every vector v becomes R v, R of shape (3, 3)."""
    return Crystal(crystal.numbers, crystal.positions @ rotation.T, crystal.cell @ rotation.T)
