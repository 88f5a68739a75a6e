"""Feature rows to the columns that a head is fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

N_ELEMENTS = 118


def atomic_fractions(
    elements: Sequence[Sequence[int]], counts: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Share of each element, shape (n_rows, 118), column ``Z - 1``.

    Parameters
    ----------
    elements, counts : sequences of length n_rows
        Atomic numbers of each row and how many atoms of each.
    """
    fractions = np.zeros((len(elements), N_ELEMENTS))
    for row, numbers, n in zip(fractions, elements, counts, strict=True):
        row[np.asarray(numbers, dtype=int) - 1] = np.asarray(n, dtype=float) / np.sum(n)
    return fractions


def design_matrix(
    features: NDArray[np.float64],
    n_atoms: NDArray[np.float64],
    fractions: NDArray[np.float64],
    *,
    composition: bool,
) -> NDArray[np.float64]:
    """Per-atom rows x = φ/N, with the atomic fractions beside them or not.

    Parameters
    ----------
    features : ndarray, shape (n_rows, n_features)
        Sums over atoms.
    n_atoms : ndarray, shape (n_rows,)
    fractions : ndarray, shape (n_rows, 118)
        Atomic fractions; joined as columns when ``composition`` is true.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_features [+ 118])
    """
    per_atom = features / n_atoms[:, None]
    return np.concatenate([per_atom, fractions], axis=1) if composition else per_atom
