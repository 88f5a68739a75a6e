"""The box around the pointwise corrections: the posterior of POPS.

Reference: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), sections 3-4; the authors'
``popsregression`` 0.4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head.chunks import Array
from mace_bounds.head.folder import read_tensor

if TYPE_CHECKING:
    from mace_bounds.head.config import PopsConfig
    from mace_bounds.head.posteriors.interface import PosteriorRows

_MIN_WAITING_ROWS = 2048  # waiting rows are worth a partition from here on


@dataclass(frozen=True, eq=False)
class Hypercube:
    """Uniform on a box in principal coordinates: the clipped range of the corrections along each axis."""

    # lower, upper, shape (m,): its sides, eV/atom; 0 along axes below the mode threshold
    lower: Array
    upper: Array

    @classmethod
    def fit(cls, rows: PosteriorRows, config: PopsConfig) -> Self:
        """Take percentiles of the corrections of the selected rows."""
        percentiles = StreamingPercentiles(
            int(np.count_nonzero(rows.selected)), config.clip_percent, len(rows.rms)
        )
        for block in rows.corrections(rows.selected):
            percentiles.add(block)
        squared = rows.rms**2
        retained = squared > config.mode_threshold * squared.max()
        lower, upper = percentiles.bounds()
        return cls(
            np.where(retained, lower, 0.0) * rows.y_scale, np.where(retained, upper, 0.0) * rows.y_scale
        )

    @cached_property
    def _middle_and_half(self) -> tuple[Array, Array]:
        return 0.5 * (self.lower + self.upper), 0.5 * (self.upper - self.lower)

    def std(self, along: Array) -> Array:
        """Root mean square about the mean: a uniform variable of half-width w has variance w²/3."""
        middle, half = self._middle_and_half
        return np.asarray(np.sqrt((along * along) @ (half**2 / 3.0) + (along @ middle) ** 2))

    def support(self, along: Array) -> tuple[Array, Array]:
        """Range: the extremum of a linear function over a box is at a corner."""
        middle, half = self._middle_and_half
        shift, reach = along @ middle, np.abs(along) @ half
        return shift - reach, shift + reach

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Uniform between the sides."""
        return np.asarray(rng.uniform(self.lower, self.upper, (n, len(self.lower))))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Both sides."""
        return {"lower": self.lower, "upper": self.upper}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], size: int) -> Self:
        """Rebuild it from :meth:`to_tensors`."""
        return cls(*(read_tensor(tensors, side, (size,)) for side in ("lower", "upper")))


class StreamingPercentiles:
    """Exact percentiles of columns that arrive in pieces, holding only their tails.

    ``count``: number of values per column in all; ``percent``: the percentiles wanted are ``percent`` and
    ``100 - percent``, in [0, 50]; ``columns``: number of columns.
    """

    def __init__(self, count: int, percent: float, columns: int) -> None:
        self.count = count
        self.percent = percent
        self._keep = min(count, int(np.floor((count - 1) * (percent / 100.0))) + 3)
        self._held: Array = np.empty((columns, 0))  # transposed: numpy partitions the last axis faster
        self._waiting: list[Array] = []
        self._rows_waiting = 0

    def add(self, values: Array) -> None:
        """Add values, shape (n, columns); faster where each column lies in one piece."""
        self._waiting.append(values.T)
        self._rows_waiting += len(values)
        if self._rows_waiting >= max(2 * self._keep, _MIN_WAITING_ROWS):
            self._drop_middle()

    def bounds(self) -> tuple[Array, Array]:
        """Return ``np.percentile`` (linear) at ``percent`` and ``100 - percent``, each shape (columns,)."""
        self._drop_middle()
        ordered = np.sort(self._held, axis=1)
        dropped = self.count - ordered.shape[1]
        return (
            self._interpolate(ordered, self.percent / 100.0, 0),
            self._interpolate(ordered, (100.0 - self.percent) / 100.0, dropped),
        )

    def _drop_middle(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate([self._held, *self._waiting], axis=1)
        self._waiting, self._rows_waiting = [], 0
        last = values.shape[1] - self._keep
        if last > self._keep:
            values.partition(self._keep - 1, axis=1)  # one after the other: numpy is slow with two at once
            values[:, self._keep :].partition(last - self._keep, axis=1)
            values = np.concatenate([values[:, : self._keep], values[:, last:]], axis=1)
        self._held = values

    def _interpolate(self, ordered: Array, quantile: float, dropped: int) -> Array:
        position = (self.count - 1) * quantile
        index = int(np.floor(position))
        t = position - index
        a = ordered[:, index - dropped]
        b = ordered[:, min(index + 1, self.count - 1) - dropped]
        # numpy's own order of operations, so that the last bit agrees with np.percentile
        return np.asarray(a + (b - a) * t if t < 0.5 else b - (b - a) * (1.0 - t))
