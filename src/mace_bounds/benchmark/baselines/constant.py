"""One width for every structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mace_bounds.benchmark.baselines.interface import BaselineRows, Widths, array_bytes
from mace_bounds.benchmark.baselines.interface import nll_scale, training_rows


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
class FittedConstant:
    """One width, ``sigma`` in eV/atom."""

    sigma: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Give it to every row."""
        return Widths(rows.centre, np.full(len(rows), self.sigma))

    def n_bytes(self) -> int:
        """Bytes of one number."""
        return array_bytes(self)
