"""The corrections themselves as posterior.

Reference: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), section 3: the ensemble
of pointwise optimal parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mace_bounds.head.chunks import Array

_BLOCK_MEMBERS = 128


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Uniform on the kept corrections; its second moment is that of all corrections.

    Attributes
    ----------
    rms : ndarray, shape (m,)
        Root mean square of all corrections along each principal axis, along which they are uncorrelated.
    members : ndarray, shape (k, m)
        The kept corrections in principal coordinates: all of them, or a stratified sample.
    """

    rms: Array
    members: Array

    def std(self, along: Array) -> Array:
        """Root mean square over all corrections."""
        return np.asarray(np.sqrt((along * along) @ (self.rms**2)))

    def support(self, along: Array) -> tuple[Array, Array]:
        """Range over the kept corrections."""
        lower, upper = np.full(len(along), np.inf), np.full(len(along), -np.inf)
        for start in range(0, len(self.members), _BLOCK_MEMBERS):
            values = along @ self.members[start : start + _BLOCK_MEMBERS].T
            np.minimum(lower, values.min(axis=1), out=lower)
            np.maximum(upper, values.max(axis=1), out=upper)
        return lower, upper

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw kept corrections with replacement, shape (n, m)."""
        return np.asarray(self.members[rng.integers(len(self.members), size=n)])
