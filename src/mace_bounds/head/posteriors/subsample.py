"""A bounded choice of rows that represents all leverages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head.chunks import Array


def stratified_rows(
    leverage: Array, usable: NDArray[np.bool_], limit: int, seed: int = 0
) -> tuple[NDArray[np.int64], Array]:
    """Choose at most ``limit`` rows, one from each of as many strata of equal size by leverage.

    Parameters
    ----------
    leverage : ndarray, shape (n,)
        What the strata are ordered by.
    usable : ndarray of bool, shape (n,)
        Rows to choose from.
    limit : int
        Largest number of rows; all usable ones are taken where there are no more.
    seed : int
        Of the choice inside the strata. It is made by rank of leverage, so the order of rows is irrelevant.

    Returns
    -------
    rows : ndarray of int64, shape (k,)
        Indices in increasing order.
    counts : ndarray, shape (k,)
        How many rows each stands for.
    """
    rows = np.flatnonzero(usable)
    if len(rows) <= limit:
        return rows, np.ones(len(rows))
    ordered = rows[np.argsort(leverage[rows], kind="stable")]
    edges = np.linspace(0, len(rows), limit + 1).astype(np.int64)
    counts = np.diff(edges)
    chosen = ordered[edges[:-1] + np.random.default_rng(seed).integers(counts)]
    order = np.argsort(chosen)
    return chosen[order], counts[order].astype(np.float64)
