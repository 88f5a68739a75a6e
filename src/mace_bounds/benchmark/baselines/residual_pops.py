"""POPS with the rows chosen by their residual, as popsregression does from its version 0.5 on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import (
    SMALLEST_EV_PER_ATOM,
    BaselineRows,
    FittedBaseline,
    Widths,
    training_rows,
)
from mace_bounds.head import Design, PopsConfig, array_chunks, fit_linear

_SMALLEST_LEVERAGE = 1e-6  # as there
_MODES = 1e-8  # eigenvalues of the corrections, over the largest, that count, as there


@dataclass(frozen=True)
class PopsByResidual:
    """Hypercube of the pointwise corrections of all rows but those that the mean fits a hundred times better than most.

    ``popsregression`` 0.5 (T. D. Swinburne, D. Perez; not released when this was written) takes rows with a residual of
    at least ``minimum_relative_error`` times the root mean square one, where 0.4 takes the upper half by leverage.
    Otherwise the method of Mach. Learn.: Sci. Technol. 6, 015008 (2025) with its defaults: principal axes of the
    corrections, a box of their extremes, nothing clipped. Columns are standardised, and the variance of the uniform box
    is taken exactly, where it is sampled there. σ² is the misspecification and the epistemic variance; the mean is its
    own. Weights multiply squared errors.
    """

    name: str = "residual_pops"
    minimum_relative_error: float = 0.01

    def fit(self, rows: BaselineRows, seed: int) -> FittedPopsByResidual:  # noqa: ARG002 - nothing is drawn
        """Fit mean, corrections and box."""
        kept = training_rows(rows)
        linear = fit_linear(array_chunks(kept.x, kept.y, kept.weights), PopsConfig())
        root = np.sqrt(kept.weights)
        u = linear.design.transform(kept.x) @ linear.whitening * root[:, None]
        error = linear.residual * root
        leverage = np.maximum(np.sum(u**2, axis=1), _SMALLEST_LEVERAGE)
        rmse = float(np.sqrt(np.mean(error**2)))
        chosen = np.abs(error) >= self.minimum_relative_error * rmse
        corrections = ((error / leverage)[:, None] * (u @ linear.whitening.T))[chosen]
        values, vectors = np.linalg.eigh(corrections.T @ corrections)
        axes = vectors[:, values > _MODES * values.max()]
        projected = corrections @ axes
        low, high = (side(projected, axis=0) if axes.size else np.zeros(0) for side in (np.min, np.max))
        evidence, unit = linear.evidence, linear.y_scale
        return FittedPopsByResidual(
            design=linear.design,
            coefficients=evidence.coefficients * unit,
            whitening=linear.whitening * unit / np.sqrt(evidence.alpha),
            half=axes * (0.5 * (high - low) * unit / np.sqrt(3.0)),
            middle=axes @ (0.5 * (high + low) * unit),
        )


@dataclass(frozen=True, eq=False)
class FittedPopsByResidual(FittedBaseline):
    """Mean, roots of the epistemic and the misspecification covariance about the middle of the box; eV/atom."""

    design: Design
    coefficients: NDArray[np.float64]  # shape (m,)
    whitening: NDArray[np.float64]  # shape (m, m)
    half: NDArray[np.float64]  # shape (m, k)
    middle: NDArray[np.float64]  # shape (m,)

    def predict(self, rows: BaselineRows) -> Widths:
        """Mean and total standard deviation."""
        z = self.design.transform(rows.x)
        parts = [z @ self.whitening, z @ self.half, (z @ self.middle)[:, None]]
        variance = sum(np.sum(part**2, axis=1) for part in parts)
        return Widths(z @ self.coefficients, np.maximum(np.sqrt(variance), SMALLEST_EV_PER_ATOM))
