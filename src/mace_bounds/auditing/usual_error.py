"""How large errors usually are where a row lies, and how much better a wrong label explains a larger one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FREEDOM = 3.0  # degrees of freedom: a model's errors have heavy tails
_RIDGE = 0.01
_WRONG_LABEL_EV = 1.0  # eV/atom, the typical size of a wrong label's shift


def fit_usual_error(surprise: Array, covariates: Array) -> tuple[Array, Array, Array]:
    """Fit what surprises usually are: log s = b0 + b·z, where s is the scale of a Student distribution.

    Parameters
    ----------
    surprise : ndarray, shape (n,)
        Errors less what was expected of them; wrong labels among them are outvoted.
    covariates : ndarray, shape (n, c)
        What the scale grows with; standardised inside to z.

    Returns
    -------
    coefficients : ndarray, shape (1 + c,)
        b0 and the slopes, which are not negative.
    mean, spread : ndarray, shape (c,)
        Of the covariates.

    Notes
    -----
    Maximum likelihood with three degrees of freedom and a small ridge on the slopes.
    """
    from scipy.optimize import minimize

    mean, spread = covariates.mean(axis=0), covariates.std(axis=0)
    z = _design(covariates, mean, spread)
    penalty = np.where(np.arange(z.shape[1]) > 0, _RIDGE, 0.0)

    def loss(b: Array) -> tuple[float, Array]:
        log_s = z @ b
        squared = (surprise * np.exp(-log_s)) ** 2 / _FREEDOM
        value = np.mean(log_s + 0.5 * (_FREEDOM + 1) * np.log1p(squared)) + 0.5 * penalty @ b**2
        slope = 1 - (_FREEDOM + 1) * squared / (1 + squared)
        return float(value), np.asarray(z.T @ slope / len(z) + penalty * b)

    start = np.zeros(z.shape[1])
    start[0] = np.log(max(1.4826 * float(np.median(np.abs(surprise))), 1e-6))
    bounds = [(None, None)] + [(0.0, None)] * covariates.shape[1]
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x), mean, spread


def usual_error(fitted: tuple[Array, Array, Array], covariates: Array) -> Array:
    """Scale s of rows with these covariates, shape (n,)."""
    coefficients, mean, spread = fitted
    return np.asarray(np.exp(_design(covariates, mean, spread) @ coefficients))


def evidence(surprise: Array, usual: Array) -> Array:
    """How many powers of ten likelier a wrong label makes surprises, shape (n,); energies in eV/atom.

    Notes
    -----
    The decimal logarithm of a ratio of two densities: a Cauchy distribution of 1 eV/atom and the usual error, for a
    shifted label; and the Student distribution of the usual error, for the model's own.
    """
    from scipy.stats import cauchy, t

    shifted = cauchy.logpdf(surprise, scale=_WRONG_LABEL_EV + usual)
    own = t.logpdf(surprise, _FREEDOM, scale=usual)
    return np.asarray((shifted - own) / np.log(10))


def _design(covariates: Array, mean: Array, spread: Array) -> Array:
    z = np.where(spread > 1e-9, (covariates - mean) / np.where(spread > 1e-9, spread, 1.0), 0.0)
    return np.column_stack([np.ones(len(z)), z])
