"""Conformal quantiles, split and CV+: from scores |r|/σ on calibration rows to intervals with a coverage guarantee.

If calibration rows and new rows are exchangeable, the interval ``centre ± q σ(x)`` with q the
⌈(n+1)·level⌉-th smallest score covers with probability at least ``level`` (Vovk et al., *Algorithmic
Learning in a Random World*, 2005; Lei et al., JASA 113, 1094 (2018), theorem 2.2). Too few rows for a level
give q = inf: an honest "cannot say".

CV+ bounds are conformal intervals from left-out scores, so that every labelled row both fits and calibrates. A score is
z_i = (y_i - c_k(x_i)) / σ_k(x_i) with k the fold whose head has not seen row i. For a new row, each score is combined
with the centre and scale of the fold it came from: the bound is a quantile of c_k(x) + σ_k(x) z_i over i. One fold that
stands apart from the fit is split conformal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError

_ROUND_OFF = 1e-9  # (n + 1) * level must not step up because 0.95 is not a binary number
_FEW_VALUES = 2**16  # rows times scores up to which sorting beats halving
_HALVINGS = 44  # of a bracket that is already between the folds' own quantiles

Array = NDArray[np.float64]


def conformal_scores(residual: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Return |residual| / sigma, shape (n,); both in the same unit."""
    r, s = np.asarray(residual, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if r.shape != s.shape or r.ndim != 1:
        raise HeadError(
            f"residuals and widths have the shapes {r.shape} and {s.shape}, not one length; align them."
        )
    if not np.all(s > 0):
        raise HeadError("widths must be positive, and some are zero, negative or NaN; floor them first.")
    return np.abs(r) / s


def conformal_quantile(
    scores: ArrayLike, level: float, weights: ArrayLike | None = None, test_weight: float | None = None
) -> float:
    """Return the conformal quantile of calibration rows: with equal weights the ⌈(n+1)·level⌉-th smallest score.

    Parameters
    ----------
    scores : array_like, shape (n,)
        Scores |r|/σ of the calibration rows, any order.
    level : float
        Nominal coverage, between 0 and 1.
    weights : array_like, shape (n,), optional
        Not negative: a likelihood ratio under covariate shift, or 1 / (rows of the composition) where every composition
        shall count once.
    test_weight : float, optional
        Weight of the new row; the mean of ``weights`` by default.

    Returns
    -------
    float
        Smallest score whose cumulated weight reaches ``level`` of the total (new row included), or ``inf`` if there are
        too few: without weights if n < level / (1 - level) (n < 19 at 95 %, n < 99 at 99 %).

    Raises
    ------
    HeadError
        If a score is NaN, the level is outside (0, 1), or weights are negative or sum to zero.

    References
    ----------
    Tibshirani, Barber, Candès, Ramdas, NeurIPS 2019, equation 7.
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or np.any(np.isnan(s)):
        raise HeadError("scores must be a 1-D array without NaN; drop rows without a label first.")
    if not 0.0 < level < 1.0:
        raise HeadError(f"the level {level:g} is not between 0 and 1; write 95 per cent as 0.95.")
    if weights is None and not s.size:
        return math.inf
    w = np.ones(s.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != s.shape or not np.all(w >= 0) or not w.sum() > 0:
        raise HeadError(
            "each score needs a non-negative weight, and their sum must be positive; correct the weights."
        )
    extra = float(w.mean()) if test_weight is None else test_weight
    order = np.argsort(s, kind="stable")
    cumulated = np.cumsum(w[order]) / (w.sum() + extra)
    position = int(np.searchsorted(cumulated, level - _ROUND_OFF / (s.size + 1)))
    return float(s[order[position]]) if position < s.size else math.inf


@dataclass(frozen=True, eq=False)
class LeftOutScores:
    """Scores of labelled rows, each by a head that has not seen it."""

    scores: ArrayLike  # shape (n,): z_i = (y_i - c_k) / σ_k; their sizes where bounds are symmetric
    # shape (n,): which of the K heads left row i out, 0 to K - 1; one head by default
    folds: ArrayLike | None = None
    # lower and upper bounds from quantiles of their own, (1 - level) / 2 outside each, for which a level
    # needs twice the rows; by default both come from the size of z
    signed: bool = False
    weights: ArrayLike | None = None  # shape (n,): row weights, not negative; equal by default
    # weight for which room is kept; the mean of ``weights`` by default, more where rows come in clusters
    test_weight: float | None = None

    def arrays(self) -> tuple[Array, NDArray[np.int64], Array]:
        """Scores, folds and weights as arrays of one length; HeadError if they have several."""
        z = np.asarray(self.scores, dtype=np.float64)
        k = np.zeros(z.size, dtype=np.int64) if self.folds is None else np.asarray(self.folds, dtype=np.int64)
        w = np.ones(z.size) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if z.ndim != 1 or not z.shape == k.shape == w.shape:
            raise HeadError(
                f"scores, folds and weights have the shapes {z.shape}, {k.shape} and {w.shape}, not one length; align "
                "them."
            )
        return z, k, w

    @cached_property
    def ordered(self) -> tuple[Ordered, Ordered]:
        """Scores below and above, checked and sorted once for all levels and rows; HeadError if they are unusable."""
        z, k, w = self.arrays()
        if np.any(np.isnan(z)) or np.any(k < 0):
            raise HeadError("scores must not be NaN, and folds from 0 to K - 1; correct them.")
        if not np.all(w >= 0) or (z.size and not w.sum() > 0):
            raise HeadError(
                "each score needs a non-negative weight, and their sum must be positive; correct the weights."
            )
        new = float(w.mean()) if self.test_weight is None and z.size else float(self.test_weight or 1.0)
        if self.signed:
            return _ordered(-z, k, w, new), _ordered(z, k, w, new)
        both = _ordered(np.abs(z), k, w, new)
        return both, both


def cv_plus_bounds(
    centre: ArrayLike, sigma: ArrayLike, left_out: LeftOutScores, level: float
) -> tuple[Array, Array]:
    """Bound new rows by the heads of the folds and the scores that each left out.

    Parameters
    ----------
    centre, sigma : array_like, shape (K, m)
        What the head of each fold says of the m new rows; one unit, σ > 0.
    left_out : LeftOutScores
        Of n labelled rows.
    level : float
        Nominal coverage, between 0 and 1.

    Returns
    -------
    lower, upper : ndarray, shape (m,)
        ∓inf where there are too few scores for the level.

    Raises
    ------
    HeadError
        If shapes do not match, a score is NaN, a width is not positive or the level is outside (0, 1).

    Notes
    -----
    With one fold (split conformal: the head saw none of the scored rows) a new row that is exchangeable with them is
    covered with probability at least ``level``. With K folds of equal size, n exchangeable rows and equal weights the
    guarantee is 1 - 2α - min{2(1 - 1/K)/(n/K + 1), (1 - K/n)/(K + 1)} with α = 1 - level; coverage is close to
    ``level`` in practice, because fitting is stable. Neither theorem covers unequal weights. Where rows of one
    cluster are alike, folds must not split clusters; with a ``test_weight`` of one cluster the rank counts clusters.

    References
    ----------
    Barber, Candès, Ramdas, Tibshirani, Ann. Stat. 49, 486 (2021), equation 11 and theorem 4; scores other
    than the absolute residual: Gupta, Kuchibhotla, Ramdas, Pattern Recognition 127, 108496 (2022); one fold:
    Lei et al., JASA 113, 1094 (2018), theorem 2.2.
    """
    lower, upper = cv_plus_bounds_at(centre, sigma, left_out, [level])
    return lower[0], upper[0]


def cv_plus_bounds_at(
    centre: ArrayLike, sigma: ArrayLike, left_out: LeftOutScores, levels: Sequence[float]
) -> tuple[Array, Array]:
    """:func:`cv_plus_bounds` at several levels, shape (n_levels, m) each: they share the sorting of scores."""
    both = _both_tails(centre, sigma, left_out)
    for level in levels:
        if not 0.0 < level < 1.0:
            raise HeadError(f"the level {level:g} is not between 0 and 1; write 95 per cent as 0.95.")
    tails = [0.5 * (1.0 + level) if left_out.signed else level for level in levels]
    lower, upper = (side.quantiles(tails) for side in both)
    return -lower, upper


def cv_plus_level(centre: ArrayLike, sigma: ArrayLike, left_out: LeftOutScores, value: ArrayLike) -> Array:
    """Return the level above which :func:`cv_plus_bounds` hold a value: where a row lies in its own intervals.

    Parameters
    ----------
    centre, sigma, left_out
        As in :func:`cv_plus_bounds`.
    value : array_like, shape (m,)
        What the intervals should hold, in the unit of ``centre``.

    Returns
    -------
    ndarray, shape (m,)
        In [0, 1): intervals of a higher level hold the value, those of a lower one do not.
    """
    v = np.asarray(value, dtype=np.float64)
    below, above = _both_tails(centre, sigma, left_out)
    tail = np.maximum(below.share_under(-v), above.share_under(v))
    return np.maximum(2.0 * tail - 1.0, 0.0) if left_out.signed else tail


def _both_tails(centre: ArrayLike, sigma: ArrayLike, left_out: LeftOutScores) -> tuple[_Tail, _Tail]:
    """The lower bound, mirrored, and the upper one."""
    c, s = np.asarray(centre, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if c.ndim != 2 or c.shape != s.shape:
        raise HeadError(
            f"centres and widths have the shapes {c.shape} and {s.shape}, not (K, m); align them."
        )
    down, up = left_out.ordered
    if not np.all(s > 0) or (up.folds.size and up.folds[-1] >= len(c)):
        raise HeadError("widths must be positive, and folds from 0 to K - 1; correct them.")
    return _Tail(-c, s, down), _Tail(c, s, up)


@dataclass(frozen=True, eq=False)
class Ordered:
    """Scores of each fold in increasing order, fold after fold."""

    scores: Array  # shape (n,)
    folds: NDArray[np.int64]  # shape (n,)
    weights: Array  # shape (n,)
    new: float  # room for the new row
    slack: float

    @cached_property
    def total(self) -> float:
        """Of the weights, room for the new row included."""
        return self.weight + self.new

    @cached_property
    def weight(self) -> float:
        """Of all scores."""
        return float(self.weights.sum())

    @cached_property
    def by_fold(self) -> list[tuple[int, Array, Array]]:
        """Folds that left something out, with their scores and the weights up to each score, from 0."""
        own = [(k, self.folds == k) for k in np.unique(self.folds)]
        return [(int(k), self.scores[r], np.concatenate([[0.0], np.cumsum(self.weights[r])])) for k, r in own]


def _ordered(z: Array, k: NDArray[np.int64], w: Array, new: float) -> Ordered:
    order = np.lexsort((w, z, k))
    return Ordered(z[order], k[order], w[order], new, _ROUND_OFF / (len(w) + 1))


@dataclass(frozen=True, eq=False)
class _Tail:
    """Values c_k + σ_k z_i of m new rows: scores with centre and scale by the head of the fold that left each out."""

    centre: Array  # shape (K, m)
    sigma: Array
    left_out: Ordered

    def mass(self, t: Array, side: Literal["left", "right"]) -> Array:
        """Weight of the values up to t (``side="right"``) or under it (``"left"``), shape (m,)."""
        out = np.zeros(len(t))
        for k, z, w in self.left_out.by_fold:
            out += w[np.searchsorted(z, (t - self.centre[k]) / self.sigma[k], side=side)]
        return out

    def share_under(self, t: Array) -> Array:
        return self.mass(t, "left") / self.left_out.total

    def quantiles(self, levels: Sequence[float]) -> Array:
        """Smallest values that have a level of the total weight up to themselves, shape (n_levels, m); else inf."""
        out = np.full((len(levels), self.centre.shape[1]), np.inf)
        targets = (np.asarray(levels) - self.left_out.slack) * self.left_out.total
        there = np.flatnonzero(targets <= self.left_out.weight)
        if out.shape[1] * len(self.left_out.scores) <= _FEW_VALUES:
            out[there] = self._by_sorting(targets[there])
        else:
            for k in there:
                out[k] = self._by_halving(float(targets[k]))
        return out

    def _by_halving(self, target: float) -> Array:
        share = target / self.left_out.weight
        # a quantile of a mixture lies between those of its parts
        own = [
            self.centre[k] + self.sigma[k] * z[min(int(np.searchsorted(w[1:], share * w[-1])), len(z) - 1)]
            for k, z, w in self.left_out.by_fold
        ]
        low, high = np.min(own, axis=0), np.max(own, axis=0)
        for _ in range(_HALVINGS if len(own) > 1 else 0):
            middle = 0.5 * (low + high)
            enough = self.mass(middle, "right") >= target
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.asarray(high)

    def _by_sorting(self, targets: Array) -> Array:
        """The same by sorting all values of each row, once for all targets: faster where rows are few."""
        left_out, n_rows = self.left_out, self.centre.shape[1]
        out = np.empty((len(targets), n_rows))
        for row in range(n_rows):
            c, s = self.centre[:, row], self.sigma[:, row]
            values = c.take(left_out.folds) + s.take(left_out.folds) * left_out.scores
            order = values.argsort(kind="stable")
            places = left_out.weights.take(order).cumsum().searchsorted(targets)
            out[:, row] = values.take(order.take(np.minimum(places, len(order) - 1)))
        return out
