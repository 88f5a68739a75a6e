"""The corrections themselves as posterior.

Reference: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), section 3: the ensemble
of pointwise optimal parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.folder import read_tensor
from mace_bounds.head.posteriors.interface import PosteriorRows, stratified_rows

if TYPE_CHECKING:
    from mace_bounds.head.config import PopsConfig

_MAX_MEMBERS = 1000
_BLOCK_MEMBERS = 128


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Uniform on the kept corrections; its second moment is that of all corrections."""

    # shape (m,): root mean square of all corrections along each principal axis, along which they are
    # uncorrelated, eV/atom
    rms: Array
    # shape (k, m): the kept corrections in principal coordinates, eV/atom: all of them, or 1000 that are
    # stratified by leverage
    members: Array

    @classmethod
    def fit(cls, rows: PosteriorRows, config: PopsConfig) -> Self:  # noqa: ARG003
        """Keep corrections of the selected rows."""
        kept = np.zeros(len(rows.selected), dtype=np.bool_)
        kept[stratified_rows(rows.leverage, rows.selected, _MAX_MEMBERS)[0]] = True
        members = np.concatenate(list(rows.corrections(kept)))
        return cls(rows.rms * rows.y_scale, members * rows.y_scale)

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
        """Kept corrections, any of them as often as another."""
        return np.asarray(self.members[rng.integers(len(self.members), size=n)])

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Second moments and members."""
        return {"rms": self.rms, "members": self.members}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], size: int) -> Self:
        """Rebuild it from :meth:`to_tensors`."""
        members = read_tensor(tensors, "members", (None, size))
        if len(members) == 0:
            raise HeadError("the head's ensemble has no members; fit or download it again.")
        return cls(read_tensor(tensors, "rms", (size,)), members)
