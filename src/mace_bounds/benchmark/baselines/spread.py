"""The spread of several models over one structure as a width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import (
    FLOOR_SHARE,
    SMALLEST_EV_PER_ATOM,
    BaselineRows,
    FittedBaseline,
    Widths,
    floor_of,
    nll_scale,
    training_rows,
)
from mace_bounds.errors import HeadError


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
        floor = max(FLOOR_SHARE * float(np.average(spread, weights=kept.weights)), SMALLEST_EV_PER_ATOM)
        spread = np.maximum(spread, floor)
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
