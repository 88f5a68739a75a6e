"""Fit a POPS head: evidence, leverage, pointwise corrections, box.

Reference: T. D. Swinburne and D. Perez, "Parameter uncertainties for imperfect surrogate models in the
low-noise regime", Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError

from ._chunks import Array, Chunks, checked_rows
from ._config import PopsConfig
from ._design import Design, make_design
from ._evidence import Evidence, maximise_evidence
from ._head import PopsFit, PopsHead
from ._posterior import fit_box
from ._tsqr import TsqrFactor

_MIN_REST = 1e-8  # smallest 1 - h: below it the row fits itself and its LOO residual is round-off
_TIE = 1e-10  # rows of equal features differ in leverage by round-off and are selected together


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The mean and the per-row quantities, before any posterior.

    Attributes
    ----------
    design : Design
        Raw to fitted columns.
    evidence : Evidence
        The ridge fit of y / y_scale.
    y_scale : float
        Root mean square of y, eV/atom (1 in compatibility mode).
    n_rows : int
        Rows of positive weight.
    gain : ndarray, shape (n,)
        xᵀAx of each row, without its weight.
    residual : ndarray, shape (n,)
        y minus the mean, in units of y_scale.
    weight : ndarray, shape (n,)
        Weights as used.
    """

    design: Design
    evidence: Evidence
    y_scale: float
    n_rows: int
    gain: Array
    residual: Array
    weight: Array

    @property
    def leverage(self) -> Array:
        """Regularised hat values, shape (n,)."""
        return self.weight * self.gain

    @property
    def loo_residual(self) -> Array:
        """Leave-one-out residuals e/(1 - h), shape (n,), in units of y_scale."""
        return self.residual / np.maximum(1.0 - self.leverage, _MIN_REST)


def fit_pops(chunks: Chunks, config: PopsConfig | None = None, factor: TsqrFactor | None = None) -> PopsFit:
    """Fit a POPS head to residuals, in four passes over the rows and memory for one chunk.

    Parameters
    ----------
    chunks : Chunks
        Re-iterable rows (see :func:`array_chunks`); y in eV/atom.
    config : PopsConfig, optional
        Settings; the defaults if not given.
    factor : TsqrFactor, optional
        The factor of exactly these rows where workers have already made it; saves one pass.

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
    selected = select_rows(linear, config)
    ratio = _correction_ratio(linear, selected)
    whitening = linear.evidence.basis * linear.evidence.spread

    def corrections() -> Iterator[Array]:
        start = 0
        for x, _, _ in checked_rows(chunks):
            rows = slice(start, start + len(x))
            keep = selected[rows]
            start += len(x)
            if keep.any():
                u = linear.design.transform(x[keep]) @ whitening
                u *= ratio[rows][keep][:, None]
                yield u

    count = int(np.count_nonzero(selected))
    box = fit_box(
        corrections,
        count,
        linear.evidence.basis,
        linear.evidence.spread,
        config.mode_threshold,
        config.clip_percent,
    )
    unit = linear.y_scale
    design, evidence = linear.design, linear.evidence
    head = PopsHead(
        config=config,
        active=design.active,
        constant=design.constant,
        reference=design.reference,
        center=design.center,
        scale=design.scale,
        coefficients=evidence.coefficients * unit,
        whitening=whitening,
        axes=box.axes,
        rms=box.rms * unit,
        lower=box.lower * unit,
        upper=box.upper * unit,
        envelope_lower=box.envelope_lower * unit,
        envelope_upper=box.envelope_upper * unit,
        alpha=evidence.alpha / unit**2,
        lambda_=evidence.lambda_ / unit**2,
        effective_parameters=evidence.effective_parameters,
        n_rows=linear.n_rows,
        n_selected=count,
        n_iter=evidence.n_iter,
        converged=evidence.converged,
    )
    return PopsFit(
        head=head,
        leverage=linear.leverage,
        residual=linear.residual * unit,
        loo_residual=linear.loo_residual * unit,
        selected=selected,
        weight=linear.weight,
    )


def fit_linear(chunks: Chunks, config: PopsConfig, factor: TsqrFactor | None = None) -> LinearFit:
    """Fit the mean by evidence and compute gain and residual of every row (two passes)."""
    factor = factorise(chunks) if factor is None else factor
    design = make_design(factor, config)
    # Weights are normalised to mean 1, so that a precision counts rows; the reference takes them as they are.
    mean_weight = 1.0 if config.compatible else factor.weight_sum / factor.n_rows
    sample_count = factor.weight_sum / mean_weight
    zy = design.transform_factor(factor.r) / np.sqrt(mean_weight)
    size = float(np.linalg.norm(zy[:, -1])) / np.sqrt(sample_count)
    y_scale = 1.0 if config.compatible or size == 0.0 else size
    zy[:, -1] /= y_scale
    centred = factor.r[1:, -1] / (y_scale * np.sqrt(factor.weight_sum))
    evidence = maximise_evidence(zy, sample_count, float(centred @ centred), config)
    whitening = evidence.basis * evidence.spread
    gain, residual, weight = (np.empty(factor.n_total) for _ in range(3))
    start = 0
    for x, y, w in checked_rows(chunks):
        rows = slice(start, start + len(x))
        start += len(x)
        if start > factor.n_total:
            break
        z = design.transform(x)
        u = z @ whitening
        gain[rows] = np.einsum("ij,ij->i", u, u)
        residual[rows] = y / y_scale - z @ evidence.coefficients
        weight[rows] = w / mean_weight
    if start != factor.n_total:
        raise HeadError(
            f"expected the same {factor.n_total} rows in every pass, got {start} or more; make the chunks "
            "re-iterable."
        )
    return LinearFit(design, evidence, y_scale, factor.n_rows, gain, residual, weight)


def factorise(chunks: Chunks) -> TsqrFactor:
    """Return the TSQR factor of all rows (one pass)."""
    factor: TsqrFactor | None = None
    for x, y, w in checked_rows(chunks):
        factor = TsqrFactor(x.shape[1]) if factor is None else factor
        factor.update(x, y, w)
    if factor is None:
        raise HeadError("the fit was given no rows; add labelled rows.")
    return factor


def select_rows(linear: LinearFit, config: PopsConfig) -> NDArray[np.bool_]:
    """Return the rows at or above the leverage percentile, shape (n,)."""
    leverage = linear.leverage
    if config.compatible:
        return np.asarray(leverage >= np.percentile(leverage, config.leverage_percentile))
    counted = linear.weight > 0.0
    threshold = np.percentile(leverage[counted], config.leverage_percentile)
    return np.asarray(counted & (leverage >= threshold * (1.0 - _TIE)))


def _correction_ratio(linear: LinearFit, selected: NDArray[np.bool_]) -> Array:
    """Return e/xᵀAx where a correction exists: its weight cancels; rows of zero leverage get none."""
    ratio = np.zeros(len(selected))
    good = selected & (linear.leverage > 0.0)
    ratio[good] = linear.residual[good] / linear.gain[good]
    return ratio
