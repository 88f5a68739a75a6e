"""What every posterior can tell, in closed form."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mace_bounds.head.chunks import Array


class Posterior(Protocol):
    """A distribution of coefficient deviations b in principal coordinates.

    Mean and epistemic standard deviation are the head's and the same for all; a posterior adds what no
    amount of data removes.
    """

    def std(self, along: Array) -> Array:
        """Root mean square of ``along · b``, the misspecification std, shape (n,), for rows (n, m)."""
        ...

    def support(self, along: Array) -> tuple[Array, Array]:
        """Least and largest value of ``along · b``, each shape (n,), for rows (n, m)."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw deviations b, shape (n, m)."""
        ...
