"""Worst-slab coverage: how low coverage falls on a slice of feature space that nobody named in advance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError


def lowest_window(values: NDArray[np.float64], shortest: int) -> tuple[int, int]:
    """Return the window [start, stop) of at least ``shortest`` entries with the lowest mean, exactly.

    Dinkelbach's iteration: for a guess t of the mean, prefix sums of ``values - t`` show in O(n) whether a
    window below t exists; its mean is the next guess.
    """
    n = values.size
    start, stop = 0, n
    guess = float(values.mean())
    while True:
        prefix = np.concatenate([[0.0], np.cumsum(values - guess)])
        highest = np.maximum.accumulate(prefix[: n - shortest + 1])
        gap = prefix[shortest:] - highest
        end = int(np.argmin(gap))
        if gap[end] >= -1e-9 * n:
            return start, stop
        start, stop = int(np.argmax(prefix[: end + 1])), end + shortest
        guess = float(values[start:stop].mean())


def worst_slab_coverage(
    hit: ArrayLike,
    features: ArrayLike,
    *,
    share: float = 0.1,
    n_directions: int = 200,
    seed: int = 0,
) -> float:
    """Measure coverage on the worst slab ``a <= v·x <= b`` that holds at least ``share`` of the rows.

    The slab is found on one random half of the rows and measured on the other, so that the minimum over
    many slabs is not mistaken for bad coverage.

    Parameters
    ----------
    hit : array_like of bool, shape (n,)
        Whether the row lies in its interval.
    features : array_like, shape (n, p)
        Floating-point numbers, standardised inside; for example leverage, log size, composition.
    share : float
        Least share of the rows in the slab.
    n_directions : int
        Random directions searched; the p axes are searched too.
    seed : int
        Of the halves and the directions.

    Returns
    -------
    float
        Coverage on the held-out rows in the slab.

    References
    ----------
    Cauchois, Gupta, Duchi, JMLR 22 (2021), section 4; Romano, Sesia, Candès, NeurIPS 2020, appendix S1.2.
    """
    inside, x = np.asarray(hit, dtype=np.float64), np.asarray(features)
    if x.ndim != 2 or len(x) != inside.size or inside.size < 20 or not 0 < share <= 1:
        raise HeadError(
            f"features of shape {x.shape}, {inside.size} rows and the share {share} make no slab: it takes 20 rows "
            "with features and a share in (0, 1]; label more rows."
        )
    spread = x.std(axis=0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(inside.size)
    search, measure = order[: inside.size // 2], order[inside.size // 2 :]
    directions = np.vstack([np.eye(x.shape[1]), rng.standard_normal((n_directions, x.shape[1]))])
    directions = (directions / np.where(spread > 0, spread, 1.0)).astype(
        x.dtype
    )  # standardises without a copy
    searched = x[search]
    shortest = max(1, int(np.ceil(share * search.size)))
    worst, chosen = np.inf, (directions[0], -np.inf, np.inf)
    for direction in directions:
        projected = searched @ direction
        ranking = np.argsort(projected, kind="stable")
        start, stop = lowest_window(inside[search][ranking], shortest)
        mean = float(inside[search][ranking[start:stop]].mean())
        if mean < worst:
            worst = mean
            chosen = (direction, projected[ranking[start]], projected[ranking[stop - 1]])
    direction, low, high = chosen
    projected = (x @ direction)[measure]
    in_slab = (projected >= low) & (projected <= high)
    return float(inside[measure][in_slab].mean()) if in_slab.any() else float(inside[measure].mean())
