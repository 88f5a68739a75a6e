"""Down-weight outliers, so that a few wrong labels do not move the mean.

References: P. J. Huber, Ann. Math. Stat. 35, 73 (1964); iteratively re-weighted least squares as in
statsmodels' ``RLM``, but on leave-one-out residuals, so that a row of high leverage cannot hide its own
error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds.head.chunks import Array, Chunk, Chunks, array_chunks
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.linear import fit_linear
from mace_bounds.head.pops_fit import fit_pops
from mace_bounds.head.pops_head import PopsFit
from mace_bounds.head.statistics import MAD_TO_STD


def huber_weights(chunks: Chunks, config: PopsConfig | None = None) -> Array:
    """Return Huber weights of the rows by iterative re-weighting on leave-one-out residuals.

    Parameters
    ----------
    chunks : Chunks
        Re-iterable rows; their own weights are multiplied by the Huber weight in each fit.
    config : PopsConfig, optional
        ``huber_threshold``, ``huber_max_iter`` and ``huber_tolerance`` are used, and the settings of the
        mean.

    Returns
    -------
    ndarray, shape (n,)
        Factors in (0, 1]: 1 up to ``huber_threshold`` robust standard deviations (normalised median absolute
        deviation of the leave-one-out residuals of rows with positive weight), threshold/|r| beyond.
    """
    config = config or PopsConfig()
    weights: Array | None = None
    for _ in range(config.huber_max_iter):
        linear = fit_linear(chunks if weights is None else reweighted(chunks, weights), config)
        loo = linear.loo_residual
        counted = loo[linear.weight > 0.0]
        scale = MAD_TO_STD * float(np.median(np.abs(counted - np.median(counted))))
        limit = config.huber_threshold * scale
        size = np.abs(loo)
        new = np.ones(len(loo))
        if scale > 0.0:
            far = size > limit
            new[far] = limit / size[far]
        change = float(np.max(np.abs(new - (1.0 if weights is None else weights))))
        weights = new
        if change < config.huber_tolerance:
            break
    return np.ones(0) if weights is None else weights


def fit_robust(
    x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None, config: PopsConfig | None = None
) -> PopsFit:
    """Fit a POPS head with Huber weights, which the head's config then states (``huber=True``).

    Parameters
    ----------
    x : array, shape (n, P)
        Features.
    y : array, shape (n,)
        Residuals, eV/atom.
    weight : array, shape (n,), optional
        Weights of the rows, multiplied by the Huber weights.
    config : PopsConfig, optional
        Settings.

    Returns
    -------
    PopsFit
        As :func:`fit_pops`; ``weight`` holds the combined weights, ``loo_residual`` the leave-one-out
        residuals under them.
    """
    config = replace(config or PopsConfig(), huber=True)
    chunks = array_chunks(x, y, weight)
    return fit_pops(reweighted(chunks, huber_weights(chunks, config)), config, original=chunks)


def reweighted(chunks: Chunks, factors: Array) -> Chunks:
    """Return the chunks with their weights multiplied by ``factors``, shape (n,)."""

    def iterate() -> Iterator[Chunk]:
        start = 0
        for x, y, w in chunks():
            factor = factors[start : start + len(y)]
            start += len(y)
            yield x, y, factor if w is None else np.asarray(w, dtype=np.float64) * factor

    return iterate
