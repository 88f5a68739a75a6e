"""Noise and prior precision by evidence maximisation, in the eigenbasis.

References: D. J. C. MacKay, Neural Comput. 4, 415 (1992), equations 2.19-2.21; M. E. Tipping, J. Mach. Learn.
Res. 1, 211 (2001); scikit-learn's ``BayesianRidge`` for hyperpriors, start and stop.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from mace_bounds.head.chunks import Array
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.minimise import FitWarning


@dataclass(frozen=True, eq=False)
class Evidence:
    """A Bayesian ridge fit.

    Attributes
    ----------
    coefficients : ndarray, shape (m,)
        Posterior mean.
    basis : ndarray, shape (m, m)
        Right singular vectors V of the design as columns, stiffest first.
    spread : ndarray, shape (m,)
        D = (s² + λ/α)^-½, so that the whitening is F = V D and α Σ = F Fᵀ.
    alpha, lambda_ : float
        Precision of noise and of weights.
    effective_parameters : float
        γ, the number of well-determined parameters.
    n_iter : int
        Steps taken.
    converged : bool
        Whether the stop was reached within the allowed steps.
    """

    coefficients: Array
    basis: Array
    spread: Array
    alpha: float
    lambda_: float
    effective_parameters: float
    n_iter: int
    converged: bool


def maximise_evidence(zy: Array, sample_count: float, y_variance: float, config: PopsConfig) -> Evidence:
    """Fit weights, α and λ by MacKay's fixed point.

    Parameters
    ----------
    zy : ndarray, shape (rows, m + 1)
        Design and target up to an orthogonal transformation, rows ≥ m + 1.
    sample_count : float
        Number of rows of positive weight.
    y_variance : float
        Weighted variance of the target: 1/α at the start.
    config : PopsConfig
        Hyperpriors and stop.
    """
    z, y = zy[:, :-1], zy[:, -1]
    u, s, vt = linalg.svd(z, full_matrices=False, check_finite=False)
    uy = u.T @ y
    rest = y - u @ uy
    outside = float(rest @ rest)
    eig, p = s * s, s * uy
    alpha, lam = 1.0 / (y_variance + float(np.finfo(np.float64).eps)), 1.0
    converged = False
    gamma, n_iter = 0.0, 0
    for n_iter in range(1, config.max_iter + 1):  # noqa: B007 - the count is reported
        c = p / (eig + lam / alpha)
        misfit = uy - s * c
        sse = float(misfit @ misfit) + outside
        gamma = float(np.sum(alpha * eig / (lam + alpha * eig)))
        new_lam = (gamma + 2.0 * config.lambda_1) / (float(c @ c) + 2.0 * config.lambda_2)
        new_alpha = (sample_count - gamma + 2.0 * config.alpha_1) / (sse + 2.0 * config.alpha_2)
        change = max(abs(new_lam / lam - 1.0), abs(new_alpha / alpha - 1.0))
        lam, alpha = new_lam, new_alpha
        converged = change < config.relative_tolerance
        if converged:
            break
    if not converged:
        warnings.warn(
            f"the evidence iteration of the mean did not converge in {config.max_iter} steps",
            FitWarning,
            stacklevel=2,
        )
    ridge = lam / alpha
    return Evidence(
        coefficients=vt.T @ (p / (eig + ridge)),
        basis=np.ascontiguousarray(vt.T),
        spread=1.0 / np.sqrt(eig + ridge),
        alpha=alpha,
        lambda_=lam,
        effective_parameters=gamma,
        n_iter=n_iter,
        converged=converged,
    )
