"""The small regressions behind the scale models: all deterministic, all with closed-form gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head import minimise

_Loss = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
_LARGEST_LOG = 50.0  # e^50 is beyond any ratio of two errors


def laplace_path(
    design: NDArray[np.float64], size: NDArray[np.float64], w: NDArray[np.float64], strengths: Sequence[float]
) -> NDArray[np.float64]:
    """Fit log σ linear in columns by the likelihood of Laplace noise, for several ridge strengths.

    Minimises Σ w (log σ + |r|/σ) + λ|b|²/2 with log σ = b0 + design·b. This is convex, and the free intercept
    has a closed form: b0 = log of the mean of |r| exp(-design·b). Laplace, because residuals of crystals have
    heavy tails: a Gaussian likelihood follows the few largest, a regression of log|r| the luck of the smallest.

    Parameters
    ----------
    design : ndarray, shape (n, p)
        Columns of comparable unit.
    size, w : ndarray, shape (n,)
        |r|, not all zero, and row weights of mean 1.
    strengths : sequence of float
        Ridge strengths λ, in rows.

    Returns
    -------
    ndarray, shape (n_strengths, 1 + p)
        Intercept and slopes for every strength.

    References
    ----------
    P. McCullagh and J. Nelder, *Generalized Linear Models*, 1989, chapter 8 (the same equations: exponential
    noise, log link); L-BFGS as in scipy, in the eigenbasis of the Hessian at its mean.
    """
    total = float(w.sum())
    level = float(w @ size) / total
    a = w * size / level
    centre = np.average(design, axis=0, weights=w)
    x = design - centre
    values, vectors = np.linalg.eigh((x * w[:, None]).T @ x)
    along, values = x @ vectors, np.maximum(values, 0.0)
    out = np.empty((len(strengths), 1 + design.shape[1]))
    start = np.zeros(len(values))
    for k in np.argsort(strengths)[::-1]:  # from the strongest: each starts from the one before
        strength = float(strengths[k])
        unit = 1.0 / np.sqrt(values + strength)

        def loss(
            c: NDArray[np.float64], unit: NDArray[np.float64] = unit, strength: float = strength
        ) -> tuple[float, NDArray[np.float64]]:
            b = c * unit
            eta = -(along @ b)
            top = float(eta.max())
            share = a * np.exp(eta - top)
            mass = float(share.sum())
            gradient = -total * (along.T @ share) / mass + strength * b
            value = total * (np.log(mass / total) + top) + 0.5 * strength * float(b @ b)
            return value / total, gradient * unit / total

        b = _descend(loss, start / unit) * unit
        start = b
        slopes = vectors @ b
        eta = -(along @ b)
        top = float(eta.max())
        intercept = np.log(float(a @ np.exp(eta - top)) / total) + top + np.log(level)
        out[k] = np.concatenate([[intercept - centre @ slopes], slopes])
    return out


def low_rank(
    terms: NDArray[np.float64],
    columns: NDArray[np.float64],
    size: NDArray[np.float64],
    w: NDArray[np.float64],
    strength: float,
    rank: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit σ² = floor + Σ θ_k t_k + |Uᵀu|² by the likelihood of Laplace noise.

    Minimises Σ w (log σ + |r|/σ) + λ(Σθ + |U|²)/2 over θ ≥ 0 (as squares) and U; the floor is free, so that the
    ridge pulls toward a constant.

    Parameters
    ----------
    terms : ndarray, shape (n, k)
        Columns t, not negative, of comparable unit.
    columns : ndarray, shape (n, m)
        Columns u.
    size, w : ndarray, shape (n,)
        |r|, not all zero, and row weights of mean 1.
    strength : float
        λ, in rows.
    rank : int
        Columns of U.

    Returns
    -------
    theta : ndarray, shape (1 + k,)
        Floor first.
    u : ndarray, shape (m, rank)
        U; both in units of ``size``.

    Notes
    -----
    The problem is not convex: it starts from the directions in which a constant is most wrong, the leading
    eigenvectors of Σ w (|r|/mean - 1) u uᵀ, so that the result depends on no seed.
    """
    total, level = float(w.sum()), float(np.average(size, weights=w))
    a, k = size / level, terms.shape[1]
    _, vectors = np.linalg.eigh((columns * (w * (a - 1.0))[:, None]).T @ columns)
    shape = (columns.shape[1], min(rank, columns.shape[1]))
    first = vectors[:, ::-1][:, : shape[1]]
    begin = np.concatenate([[0.0], np.full(k, 0.1), 0.3 * first.ravel()])

    def loss(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        c, u = p[1 : 1 + k], p[1 + k :].reshape(shape)
        floor, along = float(np.exp(np.clip(p[0], -_LARGEST_LOG, _LARGEST_LOG))), columns @ u
        variance = floor + terms @ c**2 + np.einsum("ij,ij->i", along, along)
        sigma = np.sqrt(variance)
        slope = w * (0.5 - 0.5 * a / sigma) / variance
        value = float(w @ (np.log(sigma) + a / sigma)) + 0.5 * strength * float(p[1:] @ p[1:])
        gradient = np.concatenate(
            [
                [float(slope.sum()) * floor],
                2.0 * c * (terms.T @ slope) + strength * c,
                (2.0 * columns.T @ (slope[:, None] * along) + strength * u).ravel(),
            ]
        )
        return value / total, gradient / total

    p = _descend(loss, begin)
    theta = np.concatenate([[np.exp(p[0])], p[1 : 1 + k] ** 2])
    return theta * level**2, p[1 + k :].reshape(shape) * level


def _descend(loss: _Loss, start: NDArray[np.float64]) -> NDArray[np.float64]:
    return minimise(loss, start, name="a scale", max_iter=200, ftol=1e-10, gtol=1e-7)


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
