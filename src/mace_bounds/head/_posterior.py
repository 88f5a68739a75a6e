"""The box around the pointwise corrections.

References: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), sections 3-4; the
authors' ``popsregression`` 0.4.0. Everything runs on whitened factors: the corrections are never formed from
α Σ twice, which loses the square of the condition number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ._chunks import Array
from ._tsqr import QrAccumulator

Corrections = Callable[[], Iterable[Array]]
"""Yields blocks (n, m) of whitened corrections (e/h) u of the selected rows, the same at each call."""


@dataclass(frozen=True, eq=False)
class Box:
    """Principal axes of the corrections and the range of the corrections along them.

    Attributes
    ----------
    axes : ndarray, shape (m, m)
        Orthonormal principal axes as columns, widest first; the largest component of each is positive.
    rms : ndarray, shape (m,)
        Root mean square of the corrections along each axis.
    retained : ndarray of bool, shape (m,)
        Axes above the mode threshold.
    lower, upper : ndarray, shape (m,)
        Clipped range along each axis, 0 where not retained.
    envelope_lower, envelope_upper : ndarray, shape (m,)
        Full range along every axis: the box that holds every selected correction.
    """

    axes: Array
    rms: Array
    retained: NDArray[np.bool_]
    lower: Array
    upper: Array
    envelope_lower: Array
    envelope_upper: Array


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
        self._low: Array = np.empty((0, columns))
        self._high: Array = np.empty((0, columns))

    def add(self, values: Array) -> None:
        """Add values, shape (n, columns)."""
        self._low = np.concatenate([self._low, values])
        self._high = np.concatenate([self._high, values])
        if len(self._low) > self._keep:
            self._low = np.partition(self._low, self._keep - 1, axis=0)[: self._keep]
            start = len(self._high) - self._keep
            self._high = np.partition(self._high, start, axis=0)[start:]

    def bounds(self) -> tuple[Array, Array]:
        """Return ``np.percentile`` (linear) at ``percent`` and ``100 - percent``, each shape (columns,)."""
        low, high = np.sort(self._low, axis=0), np.sort(self._high, axis=0)
        return (
            self._interpolate(low, self.percent / 100.0, 0),
            self._interpolate(high, (100.0 - self.percent) / 100.0, self.count - len(high)),
        )

    def extremes(self) -> tuple[Array, Array]:
        """Return the smallest and largest value of each column."""
        return self._low.min(axis=0), self._high.max(axis=0)

    def _interpolate(self, ordered: Array, quantile: float, first: int) -> Array:
        position = (self.count - 1) * quantile
        index = int(np.floor(position))
        t = position - index
        a = ordered[index - first]
        b = ordered[min(index + 1, self.count - 1) - first]
        # numpy's own order of operations, so that the last bit agrees with np.percentile
        return np.asarray(a + (b - a) * t if t < 0.5 else b - (b - a) * (1.0 - t))


def principal_axes(factor: Array, basis: Array, spread: Array) -> tuple[Array, Array]:
    """Principal axes of the corrections from the R factor of their whitened form.

    Parameters
    ----------
    factor : ndarray, shape (rows, m)
        R factor of the whitened corrections.
    basis : ndarray, shape (m, m)
        V.
    spread : ndarray, shape (m,)
        D; the corrections are (whitened) · (V D)ᵀ.

    Returns
    -------
    rotation : ndarray, shape (m, m)
        Axes in the eigenbasis: the axes themselves are V · rotation.
    singular : ndarray, shape (m,)
        Square roots of the eigenvalues of the second-moment sum.
    """
    padded = np.zeros((max(len(factor), len(spread)), len(spread)))
    padded[: len(factor)] = factor * spread
    _, singular, vt = linalg.svd(padded, full_matrices=False, check_finite=False)
    axes = basis @ vt.T
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=0)[None, :], axis=0)[0]
    return vt.T * np.where(largest < 0.0, -1.0, 1.0), singular


def fit_box(
    corrections: Corrections,
    count: int,
    basis: Array,
    spread: Array,
    mode_threshold: float,
    clip_percent: float,
) -> Box:
    """Fit the box in two passes over the whitened corrections of the ``count`` selected rows."""
    m = len(spread)
    accumulator = QrAccumulator(m)
    for block in corrections():
        accumulator.add(block)
    rotation, singular = principal_axes(accumulator.r, basis, spread)
    to_axes = spread[:, None] * rotation
    tails = Tails(count, clip_percent, m)
    for block in corrections():
        tails.add(block @ to_axes)
    lower, upper = tails.bounds()
    envelope_lower, envelope_upper = tails.extremes()
    squared = singular**2
    retained = squared > mode_threshold * squared.max()
    return Box(
        axes=basis @ rotation,
        rms=singular / np.sqrt(count),
        retained=retained,
        lower=np.where(retained, lower, 0.0),
        upper=np.where(retained, upper, 0.0),
        envelope_lower=envelope_lower,
        envelope_upper=envelope_upper,
    )
