"""Whether factors made by several workers give the same head however they are merged."""

from __future__ import annotations

from copy import deepcopy
from itertools import islice

import numpy as np

from bench_head_data import BLOCK_ROWS, make_blocks
from mace_bounds.head import PopsHead, TsqrFactor, array_chunks, factorise, fit_pops, predict


def merge_in_any_order(factors: list[TsqrFactor], rng: np.random.Generator) -> TsqrFactor:
    """Join two at a time, drawn at random, until one is left."""
    pool = deepcopy(factors)
    while len(pool) > 1:
        one, two = (pool.pop(rng.integers(len(pool))) for _ in range(2))
        pool.append(one.merge(two))
    return pool[0]


def difference(one: PopsHead, two: PopsHead, x: np.ndarray) -> float:
    """Largest relative difference of coefficients (to the largest) and, row by row, of every width that is predicted."""
    a, b = predict(one, x), predict(two, x)
    pairs = [
        (a.epistemic_std, b.epistemic_std),
        (a.misspecification_std, b.misspecification_std),
        (a.support_upper - a.support_lower, b.support_upper - b.support_lower),
    ]
    size = np.abs(two.ridge.coefficients).max()
    return max(
        float(np.abs(one.ridge.coefficients - two.ridge.coefficients).max() / size),
        *(float(np.abs(u / v - 1.0).max()) for u, v in pairs),
    )


def merge_study(columns: int, blocks: int, groupings: int, workers: int = 8, seed: int = 0) -> float:
    """Largest difference between the head of one worker and those of eight, merged in random orders and groups."""
    parts = list(islice(make_blocks(columns, seed), blocks))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    rng = np.random.default_rng(seed)
    weight = rng.gamma(3.0, size=len(y))
    alone = fit_pops(array_chunks(x, y, weight)).head
    cuts = np.sort(rng.choice(np.arange(1, len(y)), workers - 1, replace=False))  # shares of unequal size
    shares = np.split(np.arange(len(y)), cuts)
    factors = [factorise(array_chunks(x[rows], y[rows], weight[rows])) for rows in shares]
    worst = 0.0
    for _ in range(groupings):
        merged = merge_in_any_order(factors, rng)
        together = fit_pops(array_chunks(x, y, weight), factor=merged).head
        worst = max(worst, difference(together, alone, x[:BLOCK_ROWS]))
    return worst
