"""Uniform on an ellipsoid of low rank, fitted to leave-one-out residuals by minimising its generalisation error.

The generalisation error is the mean of -log p(residual) under the ellipsoid's projected predictive
p = (1 - r²/s²)^((q-1)/2) / s · const, s = |Mᵀu|. Its term -log(1 - r²/s²) is a barrier: exact covering would let
one wrong label decide the size. So beyond t0 = r/s it goes on as a logarithm with the slope it has there,
which bounds the pull of a row on log s by K = (q - 1) t0²/(1 - t0²). Where the mean pull vanishes, as it does
at the optimum, at most the share 1/K of the weight is beyond t0 s: coverage is relaxed by choice of K.

Reference of the low-rank form and of the principle: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6,
015008 (2025), section 2 (the generalisation error in the low-noise limit is a covering constraint); of logarithmic
barriers: S. Boyd and L. Vandenberghe, "Convex Optimization" (2004), section 11.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from mace_bounds.head.chunks import Array
from mace_bounds.head.folder import read_tensor
from mace_bounds.head.numerics import minimise, weighted_quantile
from mace_bounds.head.posteriors.interface import PosteriorRows, stratified_rows

if TYPE_CHECKING:
    from mace_bounds.head.config import PopsConfig

_MAX_ROWS = 20_000
_PRIOR = 3.0  # strength of the prior towards one constant width, as a number of rows
_LEAST_SIZE = (
    1e-3  # where most residuals are zero, those below this fraction of the largest are not told apart
)
_TINY = 1e-30
_BLOCK_ROWS = 2048
_MAX_STEPS = 2000  # to convergence: a search cut short magnifies round-off of another order of rows


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Deviations b = L v, with v uniform in the unit ball of R^q.

    A projection a · b is s t with half-width s = |Lᵀa| and t one coordinate of v, whose density
    Γ(q/2 + 1) / (√π Γ((q + 1)/2)) · (1 - t²)^((q - 1)/2) has variance 1/(q + 2).

    References
    ----------
    K.-T. Fang, S. Kotz and K. W. Ng, "Symmetric multivariate and related distributions" (1990), section 3.4:
    the marginal of the uniform distribution in the ball (Pearson type II).
    """

    axes: Array  # shape (m, q): L in principal coordinates, eV/atom

    @classmethod
    def fit(cls, rows: PosteriorRows, config: PopsConfig) -> Self:
        """Fit it to leave-one-out residuals of all rows, or of 20,000 that are stratified by leverage."""
        chosen, counts = stratified_rows(rows.leverage, rows.weight > 0.0, _MAX_ROWS)
        mask = np.zeros(len(rows.weight), dtype=np.bool_)
        mask[chosen] = True
        u, weight = np.empty((len(chosen), len(rows.rms))), np.empty(len(chosen))
        start = 0
        for block, block_weight in rows.whitened(mask):
            stop = start + len(block)
            u[start:stop], weight[start:stop] = block, block_weight
            start = stop
        axes = fit_ellipsoid(
            u,
            rows.loo_residual[chosen],
            weight * counts,
            config.ellipsoid_rank,
            config.ellipsoid_outside_percent / 100.0,
        )
        return cls(rows.to_axes.T @ axes * rows.y_scale)

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
        """L v, v uniform in the ball: a Gaussian direction, and the q-th root of a uniform number as radius."""
        rank = self.axes.shape[1]
        direction = rng.standard_normal((n, rank))
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        return np.asarray((direction * rng.uniform(size=(n, 1)) ** (1.0 / rank)) @ self.axes.T)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Its axes."""
        return {"axes": self.axes}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], size: int) -> Self:
        """Rebuild it from :meth:`to_tensors`."""
        return cls(read_tensor(tensors, "axes", (size, None)))


def log_ball_normaliser(rank: int) -> float:
    """Logarithm of Γ(q/2 + 1) / (√π Γ((q + 1)/2))."""
    return float(gammaln(0.5 * rank + 1.0) - 0.5 * np.log(np.pi) - gammaln(0.5 * (rank + 1.0)))


def fit_ellipsoid(u: Array, residual: Array, weight: Array, rank: int, outside: float) -> Array:
    """Fit M, so that the half-width of a row of whitened coordinates u is |Mᵀu|.

    ``u`` (n, m): whitened coordinates; ``residual`` (n,): leave-one-out residuals, eV/atom; ``weight`` (n,):
    non-negative weights; ``rank``: q ≥ 2, dimensions of the ellipsoid; ``outside``: largest share of the
    weight beyond t0 half-widths, 1/K, in (0, 1).
    Returns (m, rank): M, eV/atom; zero where the residuals or the coordinates are.

    A Gaussian prior, worth a few rows, pulls M towards the column that gives all rows one width. The squared
    median of the residuals is added to their squares: how small a residual is says little about its scale, and
    wells at zeros go away. The start is that constant and the largest axes of Σ w r² u uᵀ; the
    optimiser, L-BFGS-B, is deterministic.
    """
    m = u.shape[1]
    used = (weight > 0.0) & (np.einsum("ij,ij->i", u, u) > 0.0)
    weight = np.where(used, weight, 0.0)
    if not (weight * np.abs(residual)).any():
        return np.zeros((m, rank))
    u, weight, residual = u[used], weight[used] / weight.sum(), np.abs(residual[used])
    median = weighted_quantile(residual, weight, 0.5)
    size = median if median > 0.0 else float(residual.max())
    squared = (residual / size) ** 2
    rows = 1.0 / float(weight @ weight)  # Kish's effective number
    coordinates = np.sqrt(rows)  # makes the mean of w u uᵀ about 1
    floor = 1.0 if median > 0.0 else _LEAST_SIZE**2
    width = constant_half_width(squared, weight, rank, outside)
    squared = (squared + floor) / width**2
    u = u * coordinates
    centre, start = _start(u, squared, weight, rank)
    strength = _PRIOR / rows

    def objective(flat: Array) -> tuple[float, Array]:
        widths = flat.reshape(m, rank)
        value, gradient = generalisation_error(widths, u, squared, weight, outside)
        away = widths - centre
        penalty = 0.5 * strength * float(np.sum(away * away))
        return value + penalty, (gradient + strength * away).ravel()

    best = minimise(
        objective,
        start.ravel(),
        name="the ellipsoid",
        max_iter=_MAX_STEPS,
        ftol=1e-13,
        gtol=1e-8,
        maxfun=2 * _MAX_STEPS,
        maxcor=20,
    )
    return np.asarray(best.reshape(m, rank) * (coordinates * width * size))


def generalisation_error(
    widths: Array, u: Array, squared: Array, weight: Array, outside: float
) -> tuple[float, Array]:
    """Mean of -log p over rows, in nats, and its gradient.

    ``widths`` (m, q): M; ``u`` (n, m): whitened coordinates; ``squared`` (n,): squared residuals; ``weight``
    (n,): weights of sum 1; ``outside``: 1/K, see the module.
    Returns ``value``: the exact mean of -log p where all rows are within t0 half-widths; ``gradient`` (m, q):
    its derivative by M.
    """
    rank = widths.shape[1]
    projected = u @ widths
    s2 = np.maximum(np.einsum("ij,ij->i", projected, projected), _TINY)
    barrier, pull = _barrier(squared / s2, rank, outside)
    value = float(weight @ (0.5 * np.log(s2) + barrier)) - log_ball_normaliser(rank)
    projected *= (weight * (1.0 - pull) / s2)[:, None]
    return value, np.asarray(u.T @ projected)


def constant_half_width(squared: Array, weight: Array, rank: int, outside: float) -> float:
    """Half-width of least generalisation error if all rows share it (weights of sum 1)."""
    largest = float(np.max(squared, where=weight > 0.0, initial=0.0))
    least = weighted_quantile(squared, weight, 1.0 - outside)
    if least <= 0.0:  # too many rows without any residual for an optimum: cover the others
        return float(np.sqrt(largest))
    lower, upper = np.log(least), np.log(2.0 * rank * largest)

    def mean_pull(log_s2: float) -> float:
        return float(weight @ _barrier(squared / np.exp(log_s2), rank, outside)[1]) - 1.0

    if mean_pull(lower) <= 0.0:
        return float(np.exp(0.5 * lower))
    from scipy.optimize import brentq

    return float(np.exp(0.5 * brentq(mean_pull, lower, upper, xtol=1e-13)))


def _barrier(ratio: Array, rank: int, outside: float) -> tuple[Array, Array]:
    """Barrier at (r/s)² and its derivative by log(r), which is its pull on log s."""
    power = rank - 1.0
    turn = 1.0 / (1.0 + power * outside)  # t0²
    within = np.minimum(ratio, turn)
    beyond = np.log(np.maximum(ratio / turn, 1.0))
    barrier = 0.5 * (beyond / outside - power * np.log1p(-within))
    return barrier, power * within / (1.0 - within)


def _start(u: Array, squared: Array, weight: Array, rank: int) -> tuple[Array, Array]:
    """Centre of the prior (one constant width of 1 in the first column) and start of the search."""
    centre = np.zeros((u.shape[1], rank))
    centre[:, 0] = np.linalg.lstsq(_gram(u, weight), u.T @ weight, rcond=1e-12)[0]
    values, vectors = np.linalg.eigh(_gram(u, weight * squared))
    top = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, : rank - 1]
    size = float(weight @ np.sum((u @ top) ** 2, axis=1))
    start = centre.copy()
    start[:, 1 : 1 + top.shape[1]] = top * (0.5 / np.sqrt(max(size, _TINY)))
    return centre, start


def _gram(u: Array, weight: Array) -> Array:
    """Σ w u uᵀ, shape (m, m), without a copy of u."""
    total = np.zeros((u.shape[1], u.shape[1]))
    for start in range(0, len(u), _BLOCK_ROWS):
        block = u[start : start + _BLOCK_ROWS]
        total += block.T @ (weight[start : start + _BLOCK_ROWS, None] * block)
    return total
