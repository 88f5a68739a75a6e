"""Widths about a given centre: one for all, last-layer prediction rigidity, the spread of several models."""

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
from mace_bounds.errors import HeadError


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


@dataclass(frozen=True)
class ModelSpread:
    """σ = α × standard deviation of the energies per atom of the model and of others, about ``rows.centre``.

    What is done with several foundation models for want of anything else, with α by maximum likelihood of the training
    errors (F. Musil et al., J. Chem. Theory Comput. 15, 906 (2019)). α is a number; it knows nothing of features.
    """

    name: str = "model_spread"

    def fit(self, rows: BaselineRows, seed: int) -> FittedSpread:  # noqa: ARG002 - nothing is drawn
        """Choose α."""
        kept = training_rows(rows)
        spread = spread_of(kept)
        spread = np.maximum(spread, floor_of(spread, kept.weights))
        _, alpha = nll_scale(kept.error, spread[:, None], kept.weights)
        return FittedSpread(alpha, floor_of(alpha * spread, kept.weights))


def spread_of(rows: BaselineRows) -> NDArray[np.float64]:
    """Standard deviation over models, shape (n,), eV/atom; HeadError where there are no other models."""
    if rows.others is None or not rows.others.shape[1]:
        raise HeadError(
            "there are no energies of other models; give a table of them (--predictions TABLE --energy-columns A,B)."
        )
    own = np.zeros((len(rows), 1))
    return np.asarray(np.concatenate([own, rows.others], axis=1).std(axis=1, ddof=1))


@dataclass(frozen=True, eq=False)
class FittedSpread(FittedBaseline):
    """α (a number) and the smallest width (eV/atom)."""

    alpha: float
    floor: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Evaluate σ; the centre is that of the rows."""
        return Widths(rows.centre, np.maximum(self.alpha * spread_of(rows), self.floor))
