"""The authors' POPS package as a peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mace_bounds.benchmark.baselines.interface import BaselineRows, Widths, array_bytes
from mace_bounds.benchmark.baselines.interface import SMALLEST_EV_PER_ATOM, training_rows


@dataclass(frozen=True)
class PopsRegression:
    """``popsregression.POPSRegression(fit_intercept=True)``, otherwise with its defaults, on the raw columns.

    T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce. Its
    own mean is the centre, σ its ``return_std``: misspecification (from random draws in the hypercube)
    and epistemic variance added. Nothing is calibrated. Weights are passed on as ``sample_weight``. Needs the
    package ``popsregression``, and memory for about 3 n m float64. Unit eV/atom.
    """

    name: str = "popsregression"

    def fit(self, rows: BaselineRows, seed: int) -> FittedPopsRegression:
        """Fit it; its draws come from numpy's global generator, which is seeded and put back."""
        from popsregression import POPSRegression

        kept = training_rows(rows)
        with _global_seed(seed):
            model = POPSRegression(fit_intercept=True).fit(kept.x, kept.y, sample_weight=kept.weights)
        return FittedPopsRegression(model)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator for a while: the reference has no seed of its own."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@dataclass(frozen=True, eq=False)
class FittedPopsRegression:
    """The fitted model of the other package."""

    model: Any

    def predict(self, rows: BaselineRows) -> Widths:
        """Return its mean and its ``return_std``."""
        mean, std = self.model.predict(rows.x, return_std=True)
        return Widths(np.asarray(mean), np.maximum(std, SMALLEST_EV_PER_ATOM))

    def n_bytes(self) -> int:
        """Bytes of its coefficients and two covariances; its samples are not needed for mean and σ."""
        return array_bytes([self.model.coef_, self.model.sigma_, self.model.misspecification_sigma_])
