"""Two quantiles of the error by gradient boosting of trees."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from mace_bounds.benchmark.baselines.interface import BaselineRows, Widths, floor_of, training_rows

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
