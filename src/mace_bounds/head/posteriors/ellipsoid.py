"""Uniform on an ellipsoid of low rank, and the exact distribution of its projections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from mace_bounds.head.chunks import Array


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Deviations b = L v, with v uniform in the unit ball of R^q.

    A projection a · b is s t with half-width s = |Lᵀa| and t one coordinate of v, whose density
    Γ(q/2 + 1) / (√π Γ((q + 1)/2)) · (1 - t²)^((q - 1)/2) has variance 1/(q + 2).

    Attributes
    ----------
    axes : ndarray, shape (m, q)
        L in principal coordinates, eV/atom.

    References
    ----------
    K.-T. Fang, S. Kotz and K. W. Ng, "Symmetric multivariate and related distributions" (1990), section 3.4:
    the marginal of the uniform distribution in the ball (Pearson type II).
    """

    axes: Array

    def half_width(self, along: Array) -> Array:
        """Half-width s of the support, shape (n,)."""
        return np.asarray(np.linalg.norm(along @ self.axes, axis=1))

    def std(self, along: Array) -> Array:
        """Standard deviation s/√(q + 2)."""
        return np.asarray(self.half_width(along) / np.sqrt(self.axes.shape[1] + 2.0))

    def support(self, along: Array) -> tuple[Array, Array]:
        """Range: -s and s."""
        reach = self.half_width(along)
        return -reach, reach

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw uniformly from the ellipsoid, shape (n, m): a random direction and a radius U^(1/q)."""
        rank = self.axes.shape[1]
        ball = rng.standard_normal((n, rank))
        ball *= rng.random((n, 1)) ** (1.0 / rank) / np.linalg.norm(ball, axis=1, keepdims=True)
        return np.asarray(ball @ self.axes.T)


def log_ball_density(t: ArrayLike, rank: int) -> Array:
    """Log density at ``t`` of one coordinate of a uniform point in the unit ball of R^rank; -inf outside."""
    inside = np.maximum(1.0 - np.asarray(t, dtype=np.float64) ** 2, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(log_ball_normaliser(rank) + 0.5 * (rank - 1.0) * np.log(inside))


def log_ball_normaliser(rank: int) -> float:
    """Logarithm of Γ(q/2 + 1) / (√π Γ((q + 1)/2))."""
    return float(gammaln(0.5 * rank + 1.0) - 0.5 * np.log(np.pi) - gammaln(0.5 * (rank + 1.0)))
