"""The weights of a linear energy with their misspecification: draws, and closed forms for whatever is linear in them.

Reference: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), section 4; I. Maliyov,
P. Grigorev and T. D. Swinburne, npj Comput. Mater. 11, 22 (2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds.head.chunks import Array
from mace_bounds.head.posteriors import Posterior


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients:
    """θ = mean + stretch · axes b, with b from a posterior; an energy is a row a · θ.

    Attributes
    ----------
    mean : ndarray, shape (C,)
        Mean of θ, eV.
    axes : ndarray, shape (C, m)
        From deviations b in the principal coordinates of a POPS fit to those of θ.
    posterior : Posterior
        What draws and standard deviations are of.
    box : Posterior
        Box of all corrections, unclipped: what the envelope is of.
    stretch : float
        By which deviations of ``posterior`` are multiplied, so that their spread is that of errors on left-out data.
    """

    mean: Array
    axes: Array
    posterior: Posterior
    box: Posterior
    stretch: float = 1.0

    def __repr__(self) -> str:
        return (
            f"Coefficients({len(self.mean)} columns, {type(self.posterior).__name__}, × {self.stretch:.2f})"
        )

    def draws(self, n: int, seed: int = 0) -> Array:
        """Draw θ, shape (n, C), eV; the same for the same seed.

        Least and largest of a property over draws depend on their number, and are no bounds; see :meth:`envelope`.
        """
        deviations = self.posterior.sample(n, np.random.default_rng(seed))
        return np.asarray(self.mean + self.stretch * (deviations @ self.axes.T))

    def std(self, rows: ArrayLike) -> Array:
        """Standard deviation of a · θ about its mean for rows a (n, C), shape (n,)."""
        return self.stretch * self.posterior.std(np.asarray(rows, dtype=np.float64) @ self.axes)

    def envelope(self, rows: ArrayLike) -> tuple[Array, Array]:
        """Least and largest a · θ over the box of all POPS corrections for rows a (n, C), each shape (n,)."""
        a = np.asarray(rows, dtype=np.float64)
        lower, upper = self.box.support(a @ self.axes)
        mean = a @ self.mean
        return mean + lower, mean + upper
