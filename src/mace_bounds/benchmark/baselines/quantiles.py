"""Quantiles of the error that depend on the structure: linear with the pinball loss, and boosted trees."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from mace_bounds.benchmark.baselines.interface import (
    N_FOLDS,
    SMALLEST_EV_PER_ATOM,
    BaselineRows,
    Columns,
    FittedBaseline,
    Widths,
    columns_of,
    composition_folds,
    floor_of,
    fold_factors,
    nll_scale,
    training_columns,
    training_rows,
)
from mace_bounds.errors import HeadError

RIDGES: NDArray[np.float64] = np.logspace(1.0, -4.0, 11)
"""Ridge strengths that are compared, strongest first; the loss is per row, a column has variance 1."""
SMOOTHING = 0.05
"""Width of the rounded kink of the pinball loss; the targets are logarithms, of unit 1."""
_SOFTENING = 0.1  # of the median |error|: below it, log|error| is the luck of a draw, not a size
_SELECTION_ROWS = 20_000  # beyond, the ridge and α are chosen on a share of the compositions
_MAX_STEPS = 500


@dataclass(frozen=True)
class Quantile:
    """σ = α·exp(q(x)), q a linear quantile of log|y - centre| in the features, about ``rows.centre``.

    C. H. Ho, C. Ortner, Y. Wang, arXiv:2510.00721, learn an environment-dependent conformal quantile by
    minimising the pinball loss ρ(r) = max(τ r, (τ - 1) r); here for the bare |error|, per structure, and linear
    where they train a network: R. Koenker and G. Bassett, Econometrica 46, 33 (1978). A quantile of log|error|
    is the logarithm of the quantile of |error|, so the model stays convex and the width positive. A linear
    quantile of |error| itself with a floor made intervals as good within the noise on real rows, at a much worse
    likelihood; other levels were no better. |error| is softened by a tenth of its median.

    The ridge on the slopes (standardised columns) minimises the pinball loss on left-out compositions, and α
    (a number) the Gaussian negative log-likelihood of the same rows. q is limited to its range over these
    rows. Weights enter all three.
    """

    name: str = "quantile"
    level: float = 0.68

    def fit(self, rows: BaselineRows, seed: int) -> FittedQuantile:
        """Choose the ridge on left-out compositions, then fit all rows."""
        kept = training_rows(rows)
        size = np.abs(kept.error)
        softening = max(_SOFTENING * float(np.median(size)), SMALLEST_EV_PER_ATOM)
        target = np.log(size + softening)
        enough_groups = len(np.unique(kept.groups)) // (2 * N_FOLDS)
        n_parts = max(min(-(-len(kept) // _SELECTION_ROWS), enough_groups), 1)
        part = composition_folds(kept.groups, seed + 1, n_parts) == 0
        judged, wanted = kept.take(part), target[part]
        left_out = self._left_out(judged, wanted, seed)
        best = int(np.argmin(pinball(wanted[:, None] - left_out, self.level).T @ judged.weights))
        columns = training_columns(kept)
        coefficients = linear_quantile(
            columns.rotate(kept.x), columns.eigenvalues, target, kept.weights, self.level, float(RIDGES[best])
        )
        quantiles = left_out[:, best]
        _, alpha = nll_scale(judged.error, np.exp(quantiles)[:, None], judged.weights)
        return FittedQuantile(columns, *coefficients, alpha, float(quantiles.min()), float(quantiles.max()))

    def _left_out(self, rows: BaselineRows, target: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        """Return q of each row by fits without its composition, one column per ridge, shape (n, 11)."""
        folds = composition_folds(rows.groups, seed)
        factors = fold_factors(rows, folds)
        out = np.empty((len(rows), len(RIDGES)))
        for k, fold in enumerate(np.unique(folds)):
            held = folds == fold
            columns = columns_of(factors[:k] + factors[k + 1 :])
            seen, unseen = columns.rotate(rows.x[~held]), columns.rotate(rows.x[held])
            for j, ridge in enumerate(RIDGES):
                intercept, slopes = linear_quantile(
                    seen, columns.eigenvalues, target[~held], rows.weights[~held], self.level, float(ridge)
                )
                out[held, j] = intercept + unseen @ slopes
        return out


def pinball(residual: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Pinball loss max(τ r, (τ - 1) r) of each residual."""
    return np.maximum(level * residual, (level - 1.0) * residual)


def linear_quantile(
    u: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
    target: NDArray[np.float64],
    weights: NDArray[np.float64],
    level: float,
    ridge: float,
    smoothing: float = SMOOTHING,
) -> tuple[float, NDArray[np.float64]]:
    """Fit intercept + u·θ to a quantile of the target by the smoothed pinball loss, from a fixed start.

    Minimises mean w (τ r + h log(1 + exp(-r/h))) + ½ ridge |θ|² with L-BFGS; h → 0 gives the pinball loss
    (S. Zheng, Int. J. Mach. Learn. Cybern. 2, 191 (2011)). Scaled by (eigenvalue + ridge)^-½ the columns are
    nearly orthonormal, so that tens of steps are enough whatever their condition.

    ``u`` (n, m): columns, one of which (or a combination) is constant; ``eigenvalues`` (m,): their mean
    squares; ``target``, ``weights`` (n,); ``level``: τ, between 0 and 1; ``ridge``: strength, positive;
    ``smoothing``: h, in the unit of the target.
    Returns ``intercept``: the quantile of all targets, from which the ridge measures; ``slopes`` (m,).
    """
    share = weights / weights.sum()
    intercept = float(np.quantile(target, level, weights=weights, method="inverted_cdf"))
    unit = 1.0 / np.sqrt(eigenvalues + ridge)
    scaled, penalty, rest = u * unit, ridge * unit**2, target - intercept

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        r = rest - scaled @ theta
        value = share @ (level * r + smoothing * np.logaddexp(0.0, -r / smoothing))
        pull = share * (expit(-r / smoothing) - level)
        return float(value + 0.5 * penalty @ theta**2), scaled.T @ pull + penalty * theta

    result = minimize(loss, np.zeros(len(unit)), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS})
    if not result.success:
        raise HeadError(f"the quantile regression did not converge in {result.nit} steps ({result.message}).")
    return intercept, unit * result.x


@dataclass(frozen=True, eq=False)
class FittedQuantile(FittedBaseline):
    """Columns, coefficients and limits of q (logarithms of eV/atom), and α (a number)."""

    columns: Columns
    intercept: float
    slopes: NDArray[np.float64]
    alpha: float
    low: float
    high: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Evaluate α·exp(q); the centre is that of the rows."""
        q = np.clip(self.intercept + self.columns.rotate(rows.x) @ self.slopes, self.low, self.high)
        return Widths(rows.centre, np.maximum(self.alpha * np.exp(q), SMALLEST_EV_PER_ATOM))


LEVEL = 0.9
"""Share of the rows between the two quantiles; at 95 % too few rows decide a tree's leaf."""


@dataclass(frozen=True)
class QuantileBoosting:
    """Interval between the 5 % and the 95 % quantile of y, each by scikit-learn's ``HistGradientBoostingRegressor``.

    Predicting an upper and a lower quantile in place of one number is one of the two ways of J. A. Bilbrey, J. S.
    Firoz, M.-S. Lee, S. Choudhury, npj Comput. Mater. 11, 109 (2025), who train two outputs of MACE's last readout with
    the pinball loss; here trees on its frozen features, with their defaults. The middle of the two is the centre, half
    of their distance the width, so that the conformal layer makes it conformalised quantile regression (Y. Romano, E.
    Patterson, E. Candès, NeurIPS 2019), multiplied and not added. Weights enter the loss. Needs ``scikit-learn``.
    """

    name: str = "quantile_boosting"

    def fit(self, rows: BaselineRows, seed: int) -> FittedBoosting:
        """Fit both quantiles."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        kept = training_rows(rows)
        low, high = (
            HistGradientBoostingRegressor(
                loss="quantile", quantile=quantile, early_stopping=False, random_state=seed
            ).fit(kept.x, kept.y, sample_weight=kept.weights)
            for quantile in (0.5 * (1.0 - LEVEL), 0.5 * (1.0 + LEVEL))
        )
        half = np.maximum(0.5 * (high.predict(kept.x) - low.predict(kept.x)), 0.0)
        return FittedBoosting(low, high, floor_of(half, kept.weights))


@dataclass(frozen=True, eq=False)
class FittedBoosting:
    """The fitted trees, and the smallest width in eV/atom."""

    lower: Any
    upper: Any
    floor: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Middle and half of the distance of the quantiles."""
        lower, upper = self.lower.predict(rows.x), self.upper.predict(rows.x)
        return Widths(0.5 * (lower + upper), np.maximum(0.5 * (upper - lower), self.floor))

    def n_bytes(self) -> int:
        """Bytes of the trees as they would be kept."""
        return len(pickle.dumps((self.lower, self.upper)))
