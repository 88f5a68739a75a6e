"""Bayesian ridge regression of E_DFT - E_MACE on the features, with its own error bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import BaselineRows, Widths, array_bytes
from mace_bounds.benchmark.baselines.interface import SMALLEST_EV_PER_ATOM, training_rows
from mace_bounds.head import Design, PopsConfig, array_chunks, fit_linear


@dataclass(frozen=True)
class BayesianRidge:
    """Posterior predictive of a linear model with Gaussian noise; its own mean, nothing calibrated.

    σ² = zᵀ Σ z, plus 1/α with ``noise``: α Σ = (ZᵀWZ + (λ/α) I)⁻¹, z the standardised columns with a constant
    that shares the prior, α and λ by evidence (D. J. C. MacKay, Neural Comput. 4, 415 (1992), equations
    2.19–2.21; C. M. Bishop, *Pattern Recognition and Machine Learning* (2006), equations 3.58–3.59; the
    fixed point of scikit-learn's ``BayesianRidge``). Without noise the width is only epistemic and falls as
    1/√n: what is left out is what POPS is about. Weights multiply squared errors; the noise is that of a row of
    weight 1. The fit sees y, not the centre.
    """

    name: str
    noise: bool

    def fit(self, rows: BaselineRows, seed: int) -> FittedRidge:  # noqa: ARG002 - nothing is drawn
        """Fit mean, noise and prior precision to the labels."""
        kept = training_rows(rows)
        linear = fit_linear(array_chunks(kept.x, kept.y, kept.weights), PopsConfig())
        evidence, unit = linear.evidence, linear.y_scale
        return FittedRidge(
            design=linear.design,
            coefficients=evidence.coefficients * unit,
            whitening=evidence.basis * evidence.spread,
            noise_variance=unit**2 / evidence.alpha,
            adds_noise=self.noise,
        )


@dataclass(frozen=True, eq=False)
class FittedRidge:
    """Coefficients (m,) in eV/atom, whitening F (m, m) with α Σ = F Fᵀ, and 1/α in (eV/atom)²."""

    design: Design
    coefficients: NDArray[np.float64]
    whitening: NDArray[np.float64]
    noise_variance: float
    adds_noise: bool

    def predict(self, rows: BaselineRows) -> Widths:
        """Mean and standard deviation of the posterior predictive."""
        z = self.design.transform(rows.x)
        u = z @ self.whitening
        variance = self.noise_variance * (np.einsum("ij,ij->i", u, u) + float(self.adds_noise))
        return Widths(z @ self.coefficients, np.maximum(np.sqrt(variance), SMALLEST_EV_PER_ATOM))

    def n_bytes(self) -> int:
        """Bytes of design, coefficients and covariance factor."""
        return array_bytes(self)
