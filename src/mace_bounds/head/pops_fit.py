"""Fit a POPS head: evidence, leverage, pointwise corrections, posterior.

Reference: T. D. Swinburne and D. Perez, "Parameter uncertainties for imperfect surrogate models in the
low-noise regime", Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head.chunks import Array, Chunks, checked_rows
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.linear import LinearFit, fit_linear
from mace_bounds.head.pops_head import PopsFit, PopsHead
from mace_bounds.head.posteriors import Corrections, fit_axes, fit_ellipsoid, stratified_rows
from mace_bounds.head.tsqr import TsqrFactor

_TIE = 1e-10  # rows of equal features differ in leverage by round-off and are selected together
_ELLIPSOID_ROWS = 20_000
_ENSEMBLE_MEMBERS = 1000


def fit_pops(
    chunks: Chunks,
    config: PopsConfig | None = None,
    factor: TsqrFactor | None = None,
    *,
    original: Chunks | None = None,
) -> PopsFit:
    """Fit a POPS head to residuals, in four passes over the rows and memory for one chunk.

    The ellipsoid and the ensemble take one pass more, and memory for the rows they use: all, up to 20,000 and
    1000, else as many that are stratified by leverage.

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
    evidence, design, unit = linear.evidence, linear.design, linear.y_scale
    selected = select_rows(linear, config)
    count = int(np.count_nonzero(selected))
    found = fit_axes(
        _corrections(chunks, linear, selected),
        count,
        evidence.basis,
        evidence.spread,
        config.mode_threshold,
        config.clip_percent,
        whitened=config.basis == "whitened",
    )
    members = axes = None
    if config.posterior == "ensemble":
        kept = np.zeros(len(selected), dtype=bool)
        kept[stratified_rows(linear.leverage, selected, _ENSEMBLE_MEMBERS)[0]] = True
        members = np.concatenate(list(_corrections(chunks, linear, kept)(found.to_axes))) * unit
    if config.wants_ellipsoid:
        axes = found.to_axes.T @ _ellipsoid(original or chunks, linear, config) * unit
    head = PopsHead(
        config=config,
        active=design.active,
        constant=design.constant,
        reference=design.reference,
        center=design.center,
        scale=design.scale,
        coefficients=evidence.coefficients * unit,
        whitening=linear.whitening,
        axes=found.axes,
        rms=found.rms * unit,
        lower=found.clipped.lower * unit,
        upper=found.clipped.upper * unit,
        envelope_lower=found.envelope.lower * unit,
        envelope_upper=found.envelope.upper * unit,
        alpha=evidence.alpha / unit**2,
        lambda_=evidence.lambda_ / unit**2,
        effective_parameters=evidence.effective_parameters,
        n_rows=linear.n_rows,
        n_selected=count,
        n_iter=evidence.n_iter,
        converged=evidence.converged,
        ellipsoid_axes=axes,
        corrections=members,
    )
    return PopsFit(
        head=head,
        leverage=linear.leverage,
        residual=linear.residual * unit,
        loo_residual=linear.loo_residual * unit,
        selected=selected,
        weight=linear.weight,
    )


def select_rows(linear: LinearFit, config: PopsConfig) -> NDArray[np.bool_]:
    """Return the rows at or above the leverage percentile, shape (n,)."""
    leverage = linear.leverage
    if config.compatible:
        return np.asarray(leverage >= np.percentile(leverage, config.leverage_percentile))
    counted = linear.weight > 0.0
    threshold = np.percentile(leverage[counted], config.leverage_percentile)
    return np.asarray(counted & (leverage >= threshold * (1.0 - _TIE)))


def _corrections(chunks: Chunks, linear: LinearFit, chosen: NDArray[np.bool_]) -> Corrections:
    """Offer the whitened corrections (e/h) u of the chosen rows; rows of zero leverage have none."""
    ratio = np.zeros(len(chosen))
    good = chosen & (linear.leverage > 0.0)
    ratio[good] = linear.residual[good] / linear.gain[good]  # the weight cancels

    def iterate(directions: Array) -> Iterator[Array]:
        onto = linear.whitening @ directions  # one product per row instead of two
        for along, _, rows in _projected_rows(chunks, linear, chosen, onto):
            along *= ratio[rows][:, None]
            yield along

    return iterate


def _ellipsoid(chunks: Chunks, linear: LinearFit, config: PopsConfig) -> Array:
    """Fit M to the leave-one-out residuals, in units of y_scale, of rows of all leverages."""
    rows, counts = stratified_rows(linear.leverage, linear.weight > 0.0, _ELLIPSOID_ROWS)
    chosen = np.zeros(len(linear.weight), dtype=bool)
    chosen[rows] = True
    u, weight = np.empty((len(rows), linear.design.size)), np.empty(len(rows))
    start = 0
    for block, w, _ in _projected_rows(chunks, linear, chosen, linear.whitening):
        u[start : start + len(w)], weight[start : start + len(w)] = block, w
        start += len(w)
    return fit_ellipsoid(
        u,
        linear.loo_residual[rows],
        weight * counts,
        config.ellipsoid_rank,
        config.ellipsoid_outside_percent / 100.0,
    )


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
