"""The error of one structure as a distribution: its calibrated intervals of all levels as one quantile function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mace_bounds.calibration import CalibratedHead

Array = NDArray[np.float64]

_STEPS = 2048
_LARGEST_Z = 6.0  # standard deviations; beyond them the table goes on in proportion


@dataclass(frozen=True, eq=False, repr=False)
class Marginals:
    """Distribution of E_DFT - E_model of each of m structures, eV/atom.

    At every level of the head the two quantiles are the ends of the calibrated interval. Between levels, and beyond the
    last, they go as the quantiles of the head's left-out scores do.
    """

    middle: Array  # shape (m,): median
    # below, above, shape (K, m): distance of the calibrated bounds of K levels from the median, growing
    below: Array
    above: Array
    knots: Array  # shape (K,): quantile of the sizes of the left-out scores at each level, growing
    table: Array  # shape (_STEPS + 1,): the same quantile at level 2 Φ(z) - 1 for z from 0 to _LARGEST_Z

    def __len__(self) -> int:
        return len(self.middle)

    def __repr__(self) -> str:
        return f"Marginals({len(self)} structures, {len(self.knots)} levels)"

    @classmethod
    def of(cls, head: CalibratedHead, centre: Array, lower: Array, upper: Array) -> Marginals:
        """Join the intervals that a head gives rows.

        Parameters
        ----------
        head : CalibratedHead
        centre : ndarray, shape (m,)
            Expected errors, eV/atom.
        lower, upper : ndarray, shape (K, m)
            Calibrated bounds at the K levels of the head, eV/atom.
        """
        levels = np.asarray(head.levels.values)
        sizes = np.abs(head.conformal.scores)
        order = np.argsort(sizes, kind="stable")
        weights = head.conformal.weights[order]
        share = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
        known = np.concatenate([[0.0], sizes[order]])
        knots = np.interp(levels, np.concatenate([[0.0], share]), known)
        knots = np.maximum.accumulate(np.maximum(knots, 1e-9 * (1.0 + np.arange(len(knots)))))
        z = np.linspace(0.0, _LARGEST_Z, _STEPS + 1)
        table = np.interp(2.0 * ndtr(z) - 1.0, np.concatenate([[0.0], share]), known)
        # the largest score ends the table: beyond it scores grow with z as those of a normal distribution
        last = int(np.searchsorted(2.0 * ndtr(z) - 1.0, share[-1]))
        if 0 < last < len(z):
            table[last:] = table[last - 1] * z[last:] / z[last - 1]
        middle = np.clip(centre, lower[0], upper[0])
        return cls(
            middle=middle,
            below=np.maximum.accumulate(np.maximum(middle - lower, 0.0)),
            above=np.maximum.accumulate(np.maximum(upper - middle, 0.0)),
            knots=knots,
            table=table,
        )

    @property
    def std(self) -> Array:
        """Half the width of the 68 % interval, shape (m,), eV/atom; of the first level where that one is missing."""
        return np.asarray(0.5 * (self.below[0] + self.above[0]))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Marginals:
        """Those of some structures."""
        return Marginals(self.middle[rows], self.below[:, rows], self.above[:, rows], self.knots, self.table)

    def cdf(self, structure: int, value_ev_per_atom: float) -> float:
        """Probability that the error of one structure is below a value; inverts :meth:`quantile`."""
        z = np.linspace(-_LARGEST_Z, _LARGEST_Z, 2401)
        errors = self.take(np.array([structure])).quantile(z[:, None])[:, 0]
        return float(ndtr(np.interp(value_ev_per_atom, errors, z)))

    def quantile(self, z: Array) -> Array:
        """Errors whose probability is Φ(z), shape (n, m) as z, eV/atom."""
        position = np.abs(z) * (_STEPS / _LARGEST_Z)
        low = np.minimum(position.astype(np.int64), _STEPS - 1)
        size = self.table[low] + (position - low) * (self.table[low + 1] - self.table[low])
        out = np.where(z < 0, -self._distance(size, self.below), self._distance(size, self.above))
        return np.asarray(out + self.middle)

    def _distance(self, size: Array, at_knots: Array) -> Array:
        """Piecewise linear from 0 through the knots, beyond the last in proportion; shape (n, m)."""
        last = len(self.knots) - 1
        out = size * (at_knots[last] / self.knots[last])
        for k in range(last, -1, -1):
            start = self.knots[k - 1] if k else 0.0
            base = at_knots[k - 1] if k else np.zeros_like(self.middle)
            inside = size <= self.knots[k]
            slope = (at_knots[k] - base) / max(self.knots[k] - start, 1e-300)
            out = np.where(inside, base + (size - start) * slope, out)
        return np.asarray(out)
