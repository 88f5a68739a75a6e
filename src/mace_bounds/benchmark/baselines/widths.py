"""Widths about a given centre: one for all, and last-layer prediction rigidity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import (
    BaselineRows,
    Columns,
    FittedBaseline,
    Widths,
    columns_of,
    composition_folds,
    floor_of,
    fold_factors,
    nll_scale,
    training_rows,
)


@dataclass(frozen=True)
class Constant:
    """The width that a test-set RMSE gives: σ² = Σ w (y - centre)² / Σ w, about ``rows.centre``.

    The likeliest Gaussian width of the training rows (maximum likelihood, one parameter); weights enter.
    """

    name: str = "constant"

    def fit(self, rows: BaselineRows, seed: int) -> FittedConstant:  # noqa: ARG002 - nothing is drawn
        """Average the squared errors of the training rows."""
        kept = training_rows(rows)
        _, sigma = nll_scale(kept.error, np.ones((len(kept), 1)), kept.weights)
        return FittedConstant(sigma)


@dataclass(frozen=True)
class FittedConstant(FittedBaseline):
    """One width, ``sigma`` in eV/atom."""

    sigma: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Give it to every row."""
        return Widths(rows.centre, np.full(len(rows), self.sigma))


REGULARISERS: NDArray[np.float64] = np.logspace(-10.0, 2.0, 25)
"""Values of ς² that are compared, in units of the mean eigenvalue of C."""


@dataclass(frozen=True)
class Llpr:
    """σ = α √(zᵀ (C + ς² I)⁻¹ z) about ``rows.centre``.

    F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024): the last-layer
    approximation, whose α and ς are calibrated by maximum likelihood. z are the standardised features with a
    constant, C = Σ w z zᵀ / Σ w (a mean where the paper has a sum; α takes the factor up).

    α (eV/atom) and ς² (dimensionless) minimise the Gaussian negative log-likelihood of y - centre over
    training rows, each with the C of the folds that do not hold its composition; for a given ς the best α is in
    closed form. The final C is that of all training rows. Weights enter C and the likelihood.
    """

    name: str = "llpr"

    def fit(self, rows: BaselineRows, seed: int) -> FittedLlpr:
        """Calibrate α and ς on left-out compositions, then take C from all rows."""
        kept = training_rows(rows)
        folds = composition_folds(kept.groups, seed)
        factors = fold_factors(kept, folds)
        shapes = np.empty((len(kept), len(REGULARISERS)))
        for k, fold in enumerate(np.unique(folds)):
            rest = columns_of(factors[:k] + factors[k + 1 :])
            shapes[folds == fold] = np.sqrt(_rigidity(rest, kept.x[folds == fold]))
        best, alpha = nll_scale(kept.error, shapes, kept.weights)
        floor = floor_of(alpha * shapes[:, best], kept.weights)
        return FittedLlpr(columns_of(factors), float(REGULARISERS[best]), alpha, floor)


def _rigidity(columns: Columns, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """zᵀ (C + ς² I)⁻¹ z for every ς² of the grid, shape (n, 25)."""
    squares = columns.rotate(x) ** 2
    return np.asarray(squares @ (1.0 / (columns.eigenvalues[:, None] + REGULARISERS)))


@dataclass(frozen=True, eq=False)
class FittedLlpr(FittedBaseline):
    """Eigenbasis of C, ς² (dimensionless), α and the smallest width (eV/atom)."""

    columns: Columns
    regulariser: float
    alpha: float
    floor: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Evaluate σ; the centre is that of the rows."""
        squares = self.columns.rotate(rows.x) ** 2
        shape = np.sqrt(squares @ (1.0 / (self.columns.eigenvalues + self.regulariser)))
        return Widths(rows.centre, np.maximum(self.alpha * shape, self.floor))
