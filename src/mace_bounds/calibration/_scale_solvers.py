"""The two small regressions behind the scale models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RIDGE_GRID: NDArray[np.float64] = np.logspace(-1.0, 4.0, 16)
"""Ridge strengths that :func:`grouped_ridge` compares, in units of rows."""


def grouped_ridge(
    design: NDArray[np.float64], target: NDArray[np.float64], w: NDArray[np.float64], folds: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """Ridge regression with a free intercept, its strength chosen by folds.

    Parameters
    ----------
    design : ndarray, shape (n, p)
        Columns of comparable unit.
    target, w : ndarray, shape (n,)
        What to predict, and row weights.
    folds : ndarray of int64, shape (n,)
        Fold of each row.

    Returns
    -------
    intercept : float
    slopes : ndarray, shape (p,)
        Zero for a column of zeros.
    """
    losses = np.zeros(RIDGE_GRID.size)
    for fold in np.unique(folds):
        test = folds == fold
        if not (w[~test].sum() > 0 and w[test].sum() > 0):
            continue
        intercepts, slopes = _ridge_path(design[~test], target[~test], w[~test])
        error = target[test, None] - intercepts - design[test] @ slopes
        losses += w[test] @ error**2
    intercepts, slopes = _ridge_path(design, target, w)
    best = int(np.argmin(losses[::-1]))  # ties go to the stronger ridge
    best = RIDGE_GRID.size - 1 - best
    return float(intercepts[best]), slopes[:, best]


def _ridge_path(
    design: NDArray[np.float64], target: NDArray[np.float64], w: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return intercepts (g,) and slopes (p, g) for every strength, from one eigendecomposition."""
    centre, level = np.average(design, axis=0, weights=w), float(np.average(target, weights=w))
    x = design - centre
    values, vectors = np.linalg.eigh((x * w[:, None]).T @ x)
    right = vectors.T @ (x.T @ (w * (target - level)))
    slopes = vectors @ (right[:, None] / (np.maximum(values, 0.0)[:, None] + RIDGE_GRID))
    return level - centre @ slopes, slopes


def gamma_nnls(
    design: NDArray[np.float64],
    target: NDArray[np.float64],
    w: NDArray[np.float64],
    max_iterations: int = 50,
    tolerance: float = 1e-6,
) -> NDArray[np.float64]:
    """Fit a mean that is linear in non-negative columns with non-negative coefficients, for gamma-like noise.

    Minimises the gamma deviance Σ w (y/μ + log μ), μ = design·θ, θ ≥ 0: the noise of a squared residual is
    proportional to its mean, so plain least squares would only see the largest rows.

    Parameters
    ----------
    design : ndarray, shape (n, p)
        Columns, not negative.
    target, w : ndarray, shape (n,)
        Non-negative sizes (|r| or r²), and row weights.
    max_iterations, tolerance
        Of the iteratively reweighted least squares; stop on the relative change of the deviance.

    Returns
    -------
    ndarray, shape (p,)
        Coefficients, not negative.

    References
    ----------
    McCullagh & Nelder, *Generalized Linear Models*, 1989, chapter 8; Lawson & Hanson, NNLS.
    """
    from scipy.optimize import nnls

    level = float(np.average(target, weights=w))
    unit = np.maximum(np.abs(design).max(axis=0), 1e-300)
    x, y = design / unit, target / level
    mean = np.ones(len(y))
    theta = np.zeros(x.shape[1])
    best, deviance = theta, np.inf
    for _ in range(max_iterations):
        weight = w / mean**2
        gram = (x * weight[:, None]).T @ x
        gram[np.diag_indices_from(gram)] += 1e-10 * np.trace(gram) / len(gram)
        factor = np.linalg.cholesky(gram)
        step, _ = nnls(factor.T, np.linalg.solve(factor, x.T @ (weight * y)))
        theta = step if not theta.any() else 0.5 * (theta + step)  # damped: undamped steps can cycle
        mean = np.maximum(x @ theta, 1e-6)
        value = float(np.average(y / mean + np.log(mean), weights=w))
        if value < deviance:
            best = theta
        if abs(deviance - value) <= tolerance * (1.0 + abs(value)):
            break
        deviance = min(value, deviance)
    coefficients: NDArray[np.float64] = best * level / unit
    return coefficients
