"""Fit a POPS head: evidence, leverage, pointwise corrections, posterior; and the same with outliers down-weighted.

References: T. D. Swinburne and D. Perez, "Parameter uncertainties for imperfect surrogate models in the
low-noise regime", Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce. P. J. Huber, Ann. Math.
Stat. 35, 73 (1964); iteratively re-weighted least squares as in statsmodels' ``RLM``, but on leave-one-out residuals,
so that a row of high leverage cannot hide its own error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from mace_bounds.head.chunks import (
    Array,
    Chunk,
    Chunks,
    QrAccumulator,
    TsqrFactor,
    array_chunks,
    checked_rows,
)
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.linear import LinearFit, fit_linear
from mace_bounds.head.numerics import MAD_TO_STD
from mace_bounds.head.pops_head import PopsFit, PopsHead, Ridge
from mace_bounds.head.posteriors import POSTERIORS, PosteriorRows

_TIE = 1e-10  # rows of equal features differ in leverage by round-off and are selected together

Corrections = Callable[[Array], Iterable[Array]]
"""Yields blocks (n, k) of (e/h) u · T: the whitened corrections of chosen rows times the T (m, k) it is given."""


def fit_pops(
    chunks: Chunks,
    config: PopsConfig | None = None,
    factor: TsqrFactor | None = None,
    *,
    original: Chunks | None = None,
) -> PopsFit:
    """Fit a POPS head to residuals, in three passes over the rows and memory for one chunk.

    Each posterior takes one pass more. The ellipsoid and the ensemble take memory for the rows they use: all, up to
    20,000 and 1000, else as many that are stratified by leverage.

    Parameters
    ----------
    chunks : Chunks
        Re-iterable rows (see :func:`array_chunks`); y in eV/atom.
    config : PopsConfig, optional
        Settings; the defaults if not given.
    factor : TsqrFactor, optional
        The factor of exactly these rows where workers have already made it; saves one pass.
    original : Chunks, optional
        The rows with the weights that they had before robust re-weighting, for the ellipsoid, which deals with
        outliers itself; ``chunks`` if not given.

    Returns
    -------
    PopsFit
        The head, and leverage, residuals and selection of every row.

    Raises
    ------
    HeadError
        If rows are unusable, fewer than two, or change between passes.
    """
    config = config or PopsConfig()
    linear = fit_linear(chunks, config, factor)
    evidence, y_scale = linear.evidence, linear.y_scale
    selected = select_rows(linear, config)
    count = int(np.count_nonzero(selected))
    axes, to_axes, singular = principal_axes(
        _corrections(chunks, linear, selected), evidence.basis, evidence.spread
    )
    rows = PosteriorRows(
        y_scale=y_scale,
        selected=selected,
        leverage=linear.leverage,
        weight=linear.weight,
        loo_residual=linear.loo_residual,
        rms=singular / np.sqrt(count),
        to_axes=to_axes,
        corrections=lambda chosen: _corrections(chunks, linear, chosen)(to_axes),
        whitened=lambda chosen: (
            (u, weight)
            for u, weight, _ in _projected_rows(original or chunks, linear, chosen, linear.whitening)
        ),
    )
    head = PopsHead(
        config=config,
        design=linear.design,
        ridge=Ridge(
            coefficients=evidence.coefficients * y_scale,
            whitening=linear.whitening,
            alpha=evidence.alpha / y_scale**2,
            lambda_=evidence.lambda_ / y_scale**2,
            effective_parameters=evidence.effective_parameters,
            n_rows=linear.n_rows,
            n_iter=evidence.n_iter,
            converged=evidence.converged,
        ),
        axes=axes,
        posteriors={name: POSTERIORS[name].fit(rows, config) for name in config.posteriors},
        n_selected=count,
    )
    return PopsFit(
        head=head,
        leverage=linear.leverage,
        residual=linear.residual * y_scale,
        loo_residual=linear.loo_residual * y_scale,
        selected=selected,
        weight=linear.weight,
    )


def principal_axes(corrections: Corrections, basis: Array, spread: Array) -> tuple[Array, Array, Array]:
    """Principal axes of the corrections, by QR of their whitened form.

    The corrections are never formed from α Σ twice, which would lose the square of the condition number.

    ``corrections``: yields blocks (n, k) of the whitened corrections, as rows, times the matrix (m, k) it is
    given; ``basis`` (m, m): V, orthonormal; ``spread`` (m,): D; the corrections are (whitened) · (V D)ᵀ.
    Returns ``axes`` (m, m): W, as columns, widest first; the largest component of each is positive;
    ``to_axes`` (m, m): turns whitened corrections into principal coordinates; ``singular`` (m,): square roots
    of the eigenvalues of the sum of second moments.
    """
    m = len(spread)
    accumulator = QrAccumulator(m)
    for block in corrections(np.eye(m)):
        accumulator.add(block)
    _, singular, vt = linalg.svd(accumulator.r * spread, full_matrices=False, check_finite=False)
    axes = basis @ vt.T
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=0)[None, :], axis=0)[0]
    rotation = vt.T * np.where(largest < 0.0, -1.0, 1.0)
    return basis @ rotation, spread[:, None] * rotation, singular


def select_rows(linear: LinearFit, config: PopsConfig) -> NDArray[np.bool_]:
    """Return the rows at or above the leverage percentile, shape (n,)."""
    leverage = linear.leverage
    counted = linear.weight > 0.0
    threshold = np.percentile(leverage[counted], config.leverage_percentile)
    return np.asarray(counted & (leverage >= threshold * (1.0 - _TIE)))


def _corrections(chunks: Chunks, linear: LinearFit, chosen: NDArray[np.bool_]) -> Corrections:
    """Offer the whitened corrections (e/h) u of the chosen rows; rows of zero leverage have none."""
    ratio = np.zeros(len(chosen))
    good = chosen & (linear.leverage > 0.0)
    ratio[good] = linear.residual[good] / linear.unweighted_leverage[good]  # the weight cancels

    def iterate(directions: Array) -> Iterator[Array]:
        onto = linear.whitening @ directions  # one product per row instead of two
        for along, _, rows in _projected_rows(chunks, linear, chosen, onto):
            along *= ratio[rows][:, None]
            yield along

    return iterate


def _projected_rows(
    chunks: Chunks, linear: LinearFit, chosen: NDArray[np.bool_], onto: Array
) -> Iterator[tuple[Array, Array, NDArray[np.int64]]]:
    """Yield zᵀ·onto, weights and indices of the chosen rows, chunk by chunk."""
    start = 0
    for x, _, w in checked_rows(chunks):
        keep = np.flatnonzero(chosen[start : start + len(x)])
        if len(keep):
            z = linear.design.transform(x[keep])
            yield (onto.T @ z.T).T, w[keep], keep + start  # columns in one piece, as QR and percentiles want
        start += len(x)


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
