"""Calibrated errors as distributions: of one structure a quantile function, of many which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.special import ndtr

from mace_bounds.calibration import CalibratedHead, DesignRows

if TYPE_CHECKING:
    from mace_bounds.decisions.likeness import Likeness

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


_COLUMNS = 512  # structures whose draws are made at a time
_CELLS = 1 << 23  # numbers of sums in hand at a time


@dataclass(frozen=True, eq=False, repr=False)
class JointErrors:
    """Errors E_DFT - E_model of m structures as one distribution, a Gaussian copula of calibrated marginals.

    Notes
    -----
    z ~ N(0, ΨΨᵀ + D) with unit diagonal, error_i = Q_i(Φ(z_i)), Q_i the quantile function that the calibrated intervals
    of structure i say. Memory: 8 (rank + n) bytes for each structure, with n draws: 10,000 structures and 1,000 draws
    take 0.1 GB for the draws and up to 0.25 GB for the factors (the rank is some hundreds to 2,800).

    References
    ----------
    Sklar's theorem; Nelsen, *An Introduction to Copulas* (2006), section 2.3.
    """

    marginals: Marginals  # of the m structures
    factors: Array  # shape (m, rank): ψ, whose products are correlations

    @classmethod
    def of(cls, marginals: Marginals, likeness: Likeness, rows: DesignRows) -> JointErrors:
        """Join the marginals of rows by how alike they are."""
        return cls(marginals, likeness.factors(rows))

    def __len__(self) -> int:
        return len(self.marginals)

    def __repr__(self) -> str:
        return f"JointErrors({len(self)} structures, rank {self.factors.shape[1]})"

    def correlation(self, i: int, j: int) -> float:
        """Correlation of the Gaussianised errors of two structures."""
        return 1.0 if i == j else float(self.factors[i] @ self.factors[j])

    def draws(self, n: int, seed: int = 0) -> Array:
        """Draw errors of all structures together.

        Parameters
        ----------
        n : int
            How many draws.
        seed : int
            Equal seeds give equal draws.

        Returns
        -------
        ndarray, shape (n, m)
            E_DFT - E_model, eV/atom. Each column is distributed as the calibrated intervals of its structure say.
        """
        random = np.random.default_rng(seed)
        common = random.standard_normal((n, self.factors.shape[1]))
        own = np.sqrt(np.maximum(1.0 - np.square(self.factors).sum(axis=1), 0.0))
        out = np.empty((n, len(self)))
        for start in range(0, len(self), _COLUMNS):
            part = np.arange(start, min(start + _COLUMNS, len(self)))
            z = common @ self.factors[part].T
            z += own[part] * random.standard_normal(z.shape)
            out[:, part] = self.marginals.take(part).quantile(z)
        return out

    def std(self, coefficients: csr_matrix) -> Array:
        """Standard deviation of sums of errors, shape (k,), eV/atom; ``coefficients`` (k, m) are per atom."""
        return difference_std(coefficients, self.marginals.std, self.factors)

    def independent_std(self, coefficients: csr_matrix) -> Array:
        """The same if no two errors had anything in common: the root of the sum of squares, shape (k,), eV/atom."""
        return difference_std(coefficients, self.marginals.std, self.factors[:, :0])


def difference_std(coefficients: csr_matrix, std: Array, factors: Array) -> Array:
    """Standard deviation of sums Σ c_i e_i of correlated errors.

    Parameters
    ----------
    coefficients : sparse, shape (k, m)
        c of each sum.
    std : ndarray, shape (m,)
        Of each error.
    factors : ndarray, shape (m, rank)
        ψ, whose products are correlations.

    Returns
    -------
    ndarray, shape (k,)
        In the unit of ``std``.
    """
    scaled = csr_matrix(coefficients @ diags_array(std))
    variance = scaled.power(2) @ np.maximum(1.0 - np.square(factors).sum(axis=1), 0.0)
    step = max(1, _CELLS // max(factors.shape[1], 1))
    for start in range(0, scaled.shape[0], step):
        variance[start : start + step] += np.square(scaled[start : start + step] @ factors).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


STRAIN_FLOOR = 0.05
"""Change of ln V below which errors of a crystal at two volumes are not taken to shrink any further."""


def strained_std(pairs: csr_matrix, std: Array, strain: Array) -> Array:
    """Width of the error of a crystal's energy at one volume less that at another, up to a factor; shape (k,).

    The error of a pressure times the change of volume: in proportion to the strain, and to the smaller of the two
    standard deviations, which is that nearer to equilibrium.

    Parameters
    ----------
    pairs : sparse, shape (k, m)
        1 and -1 in each row.
    std : ndarray, shape (m,)
        Of each error.
    strain : ndarray, shape (k,)
        Change of ln V.

    Returns
    -------
    ndarray, shape (k,)
        min(σ_a, σ_b)·√(Δln V² + 0.05²), in the unit of ``std``.
    """
    ends = std[pairs.indices].reshape(-1, 2)
    return np.asarray(ends.min(axis=1, initial=np.inf) * np.hypot(strain, STRAIN_FLOOR))
