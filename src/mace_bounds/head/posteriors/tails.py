"""Percentiles of columns that arrive in pieces."""

from __future__ import annotations

import numpy as np

from mace_bounds.head.chunks import Array

_ROWS_AT_LEAST = 2048  # waiting rows are worth a partition from here on


class Tails:
    """Exact percentiles of columns that arrive in pieces, holding only their tails.

    Parameters
    ----------
    count : int
        Number of values per column in all.
    percent : float
        The percentiles asked for are ``percent`` and ``100 - percent``, in [0, 50].
    columns : int
        Number of columns.
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
        if self._rows_waiting >= max(2 * self._keep, _ROWS_AT_LEAST):
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

    def extremes(self) -> tuple[Array, Array]:
        """Return the smallest and largest value of each column."""
        self._drop_middle()
        return self._held.min(axis=1), self._held.max(axis=1)

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
