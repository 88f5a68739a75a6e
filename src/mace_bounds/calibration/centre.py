"""The middle of the intervals: the model's own energy, unless a correction earns its place on left-out compositions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.calibration.scale import N_FOLDS, group_standard_error, interval_loss
from mace_bounds.calibration.splits import group_folds
from mace_bounds.errors import HeadError
from mace_bounds.head import MAD_TO_STD

SHARES: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
"""Shares of a correction that are compared; 0 is the model's own energy."""
STANDARD_ERRORS = 3.0
"""A correction must improve the left-out mean absolute error by this many standard errors; the best of eight does so
by two through luck often enough to make the mean over splits worse."""

_SHIFT_ROWS = 10.0  # ridge of the element shifts: rows of the pure element that halve its shift
_HUBER = 1.345  # robust standard deviations: 95 % efficient for Gaussian noise (Huber 1964)
_STEPS = 10

_FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Centre:
    """Where intervals are centred, as a correction to the model's own energy."""

    share: float  # share of the refit mean that is added, 0 to 1
    # shape (n_elements,): shift per atom of each element, eV; zeros where shifts did not earn their place
    shifts: _FloatArray

    @classmethod
    def own(cls, n_elements: int) -> Centre:
        """Return the model's own energy."""
        return cls(0.0, np.zeros(n_elements))

    @property
    def moves(self) -> bool:
        """Whether it differs from the model's own energy."""
        return bool(self.share > 0 or self.shifts.any())

    def residual(self, mean: _FloatArray, fractions: _FloatArray) -> _FloatArray:
        """Return the expected residual, shape (n,), eV/atom, from the refit mean (n,) and atomic fractions."""
        return np.asarray(self.share * mean + fractions @ self.shifts)

    def describe(self) -> str:
        """Say in words what it is."""
        if self.shifts.any() and np.ptp(self.shifts) == 0:
            before = replace(self, shifts=np.zeros_like(self.shifts)).describe()
            return f"{before}, shifted by {1e3 * self.shifts[0]:+.3g} meV/atom"
        if self.shifts.any():
            return "the model's own energy with a shift per element"
        if self.share > 0:
            return "the refit mean" if self.share == 1 else f"{100 * self.share:g} % of the refit correction"
        return "the model's own energy (no refit beat it)"

    def to_config(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return {"share": self.share, "shifts_ev_per_atom": [float(shift) for shift in self.shifts]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], n_elements: int) -> Centre:
        """Rebuild from :meth:`to_config`."""
        shifts = np.asarray(config["shifts_ev_per_atom"], dtype=np.float64)
        share = float(config["share"])
        if shifts.shape != (n_elements,) or not np.all(np.isfinite(shifts)) or not 0.0 <= share <= 1.0:
            raise HeadError(
                f"the head's centre has the share {share} and {shifts.size} shifts, not 0 to 1 and {n_elements} finite "
                "ones; fit the head again."
            )
        return cls(share, shifts)


def select_centre(
    y: ArrayLike,
    mean: ArrayLike,
    fractions: _FloatArray,
    groups: Sequence[str] | NDArray[np.str_],
    seed: int,
    weights: ArrayLike | None = None,
) -> tuple[Centre, _FloatArray]:
    """Choose the middle of the intervals by left-out predictions; the model's own energy wins ties.

    Parameters
    ----------
    y : array_like, shape (n,)
        Residuals of the model, eV/atom.
    mean : array_like, shape (n,)
        What refits that have not seen the row's group expect of them, eV/atom.
    fractions : ndarray, shape (n, n_elements)
        Atomic fractions.
    groups : sequence of str, shape (n,)
        Composition of each row.
    seed : int
        Of the folds.
    weights : array_like, shape (n,), optional
        Row weights.

    Returns
    -------
    centre : Centre
        Shares of the refit mean and of robust element shifts compete. A winner has a left-out mean absolute error
        below that of the model's own energy by three standard errors (groups counting as one draw), and a better
        interval score under a constant width.
    left_out : ndarray, shape (n,)
        The centre of every row from fits without its group, eV/atom: what a scale must be fitted about.
    """
    r, m = np.asarray(y, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    w = np.ones(len(r)) if weights is None else np.asarray(weights, dtype=np.float64)
    labels = np.array([str(group) for group in groups], dtype=np.str_)
    folds = group_folds(labels, N_FOLDS, seed)
    own = Centre.own(fractions.shape[1])
    best: _FloatArray = np.zeros(len(r))
    if np.unique(labels).size < 2 * N_FOLDS:
        return own, best
    shifted = np.zeros(len(r))
    for fold in np.unique(folds):
        held = folds == fold
        shifted[held] = fractions[held] @ element_shifts(r[~held], fractions[~held], w[~held])
    candidates = [(share, 0.0) for share in SHARES] + [(0.0, share) for share in SHARES]
    ones = np.ones(len(r))
    own_loss = float(w @ interval_loss(r, ones, w, folds))
    chosen, least = (0.0, 0.0), 0.0
    for candidate in candidates:
        expected = np.asarray(candidate[0] * m + candidate[1] * shifted, dtype=np.float64)
        gain = w * (np.abs(r) - np.abs(r - expected))
        enough = gain.sum() > STANDARD_ERRORS * group_standard_error(gain, labels)
        sharper = float(w @ interval_loss(r - expected, ones, w, folds)) < own_loss
        if enough and sharper and gain.sum() > least:
            chosen, least, best = candidate, float(gain.sum()), expected
    shifts = chosen[1] * element_shifts(r, fractions, w) if chosen[1] > 0 else own.shifts
    return Centre(chosen[0], shifts), best


def element_shifts(y: _FloatArray, fractions: _FloatArray, w: _FloatArray) -> _FloatArray:
    """Fit a shift per element, eV, robustly and shrunk toward the shift that is common to all.

    ``y``, ``w`` (n,): residuals, eV/atom, and row weights; ``fractions`` (n, n_elements): atomic fractions.
    Returns (n_elements,): common shift plus that of the element. Huber regression by iteratively re-weighted
    ridge regression (P. J. Huber, Ann. Math. Stat. 35, 73 (1964)).
    """
    weights = w
    shift: _FloatArray = np.zeros(fractions.shape[1])
    for _ in range(_STEPS):
        centre, level = np.average(fractions, axis=0, weights=weights), float(np.average(y, weights=weights))
        x = fractions - centre
        gram = (x * weights[:, None]).T @ x + _SHIFT_ROWS * np.eye(x.shape[1])
        slopes = np.linalg.solve(gram, x.T @ (weights * (y - level)))
        shift = np.asarray(slopes + level - float(centre @ slopes), dtype=np.float64)
        error = np.abs(y - fractions @ shift)
        limit = _HUBER * MAD_TO_STD * float(np.median(error))
        if limit == 0:  # most rows are fitted exactly: there is no deviation to weigh by
            break
        weights = w * np.minimum(1.0, limit / np.maximum(error, max(limit, 1e-300)))
    return shift
