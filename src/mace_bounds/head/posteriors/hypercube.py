"""The box around the pointwise corrections.

References: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), sections 3-4; the
authors' ``popsregression`` 0.4.0. Everything runs on whitened factors: the corrections are never formed from
α Σ twice, which loses the square of the condition number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from mace_bounds.head.chunks import Array
from mace_bounds.head.posteriors.tails import Tails
from mace_bounds.head.tsqr import QrAccumulator

Corrections = Callable[[Array], Iterable[Array]]
"""Yields blocks (n, k) of (e/h) u · T, the whitened corrections of the selected rows times the T (m, k) it is given."""


@dataclass(frozen=True, eq=False)
class Box:
    """Uniform on a box in principal coordinates.

    Attributes
    ----------
    lower, upper : ndarray, shape (m,)
        Its sides.
    """

    lower: Array
    upper: Array

    @property
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
        """Draw uniformly from the box, shape (n, m)."""
        return np.asarray(self.lower + (self.upper - self.lower) * rng.random((n, len(self.lower))))


@dataclass(frozen=True, eq=False)
class CorrectionAxes:
    """Principal axes of the corrections and the range of the corrections along them.

    Attributes
    ----------
    axes : ndarray, shape (m, m)
        W, as columns, widest first; the largest component of each is positive. Orthonormal for the ``raw``
        basis, F times an orthonormal matrix for ``whitened``.
    to_axes : ndarray, shape (m, m)
        Turns whitened corrections (as rows) into principal coordinates.
    rms : ndarray, shape (m,)
        Root mean square of the corrections along each axis.
    clipped : Box
        Clipped range along each axis, 0 for axes below the mode threshold.
    envelope : Box
        Full range along every axis: the box that holds every selected correction.
    """

    axes: Array
    to_axes: Array
    rms: Array
    clipped: Box
    envelope: Box


def principal_axes(factor: Array, basis: Array, spread: Array) -> tuple[Array, Array]:
    """Principal axes of the corrections from the R factor of their whitened form.

    Parameters
    ----------
    factor : ndarray, shape (rows, m)
        R factor of the whitened corrections.
    basis : ndarray, shape (m, m)
        V, orthonormal.
    spread : ndarray, shape (m,)
        D; the corrections are (whitened) · (V D)ᵀ. Ones keep them whitened.

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


def fit_axes(
    corrections: Corrections,
    count: int,
    basis: Array,
    spread: Array,
    mode_threshold: float,
    clip_percent: float,
    *,
    whitened: bool = False,
) -> CorrectionAxes:
    """Fit axes and box in two passes over the whitened corrections of the ``count`` selected rows.

    The box in the ``raw`` basis has the principal axes of the corrections themselves, as the reference has.
    ``whitened`` takes those of the whitened corrections, which do not depend on the units of the columns.
    """
    m = len(spread)
    accumulator = QrAccumulator(m)
    for block in corrections(np.eye(m)):
        accumulator.add(block)
    if whitened:
        rotation, singular = principal_axes(accumulator.r, basis, np.ones(m))
        to_axes, axes = rotation, (basis * spread) @ rotation
    else:
        rotation, singular = principal_axes(accumulator.r, basis, spread)
        to_axes, axes = spread[:, None] * rotation, basis @ rotation
    tails = Tails(count, clip_percent, m)
    for block in corrections(to_axes):
        tails.add(block)
    lower, upper = tails.bounds()
    squared = singular**2
    retained = squared > mode_threshold * squared.max()
    return CorrectionAxes(
        axes=axes,
        to_axes=to_axes,
        rms=singular / np.sqrt(count),
        clipped=Box(np.where(retained, lower, 0.0), np.where(retained, upper, 0.0)),
        envelope=Box(*tails.extremes()),
    )
