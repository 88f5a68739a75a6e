"""Errors of many structures together: calibrated distributions of each, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

from mace_bounds.calibration import DesignRows
from mace_bounds.decisions.marginals import Marginals

if TYPE_CHECKING:
    from mace_bounds.decisions.likeness import Likeness

Array = NDArray[np.float64]

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
