"""Errors of the nearest labelled crystals of other compositions: where the model errs there, it errs in a row too.

Kernels around 128 rows see the features coarsely. With thousands of labelled rows there is more to see: how large
errors are right there (nearest-neighbour regression; T. Hastie, R. Tibshirani and J. Friedman, *The Elements of
Statistical Learning*, 2009, sections 2.3 and 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.inputs import square_distances

if TYPE_CHECKING:
    from mace_bounds.calibration.inputs import Arrays

N_NEIGHBOURS = 32
"""Nearest rows whose errors count; the weight of the last is zero, so that σ has no jumps."""
N_AXES = 12
"""Principal axes of the standardised features in which distances are measured."""
MOST_NEIGHBOURS = 12_000
"""Rows that are kept, of compositions drawn by their hash."""

_FLOOR = 0.02  # of the mean error: smaller ones are not told apart
_TINY = 1e-12
_SAME = 1e-9  # codes of compositions that differ by less are one
_CHUNK = 256  # rows whose distances to all are held at once
_CODES = np.random.default_rng(118).random(
    118
)  # of elements; sums weighted by fractions tell compositions apart


def place(
    points: NDArray[np.float64],
    fractions: NDArray[np.float64],
    size: NDArray[np.float64],
    order: NDArray[np.int64],
) -> Arrays:
    """Keep rows as neighbours.

    ``points`` (n, p): standardised features; ``fractions`` (n, n_elements); ``size`` (n,): errors, eV/atom, comparable
    ones; ``order`` (n,): rows in the order in which they are kept.
    Returns what :func:`errors_nearby` needs; points and sizes are those of float32, in which a head keeps them.
    """
    kept = order[:MOST_NEIGHBOURS]
    axes = np.linalg.eigh(points.T @ points)[1][:, ::-1][:, :N_AXES]
    floor = max(_FLOOR * float(size.mean()), _TINY)
    return {
        "neighbour_axes": axes,
        "neighbour_points": _single(points[kept] @ axes),
        "neighbour_sizes": _single(size[kept] + floor),
        "neighbour_compositions": _codes(fractions[kept]),
    }


def errors_nearby(
    arrays: Mapping[str, NDArray[np.float64]], points: NDArray[np.float64], fractions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logarithms of the mean error of the nearest kept rows and of the distance to the last of them, shape (n, 2).

    Rows of a row's own composition do not count, neither where a scale is fitted nor for new rows.
    """
    own = points @ arrays["neighbour_axes"]
    kept, sizes, known = (arrays[f"neighbour_{name}"] for name in ("points", "sizes", "compositions"))
    same = _of_one_composition(_codes(fractions), known)
    n_nearest = min(N_NEIGHBOURS, len(kept))
    rough, rough_kept = own.astype(np.float32), kept.astype(np.float32)
    out = np.empty((len(own), 2))
    for start in range(0, len(own), _CHUNK):
        rows = slice(start, start + _CHUNK)
        rough_square = square_distances(rough[rows], rough_kept)
        for square, left_out in zip(rough_square, same[rows], strict=True):
            square[left_out] = np.inf
        nearest = np.argpartition(rough_square, n_nearest - 1, axis=1)[:, :n_nearest]
        counts = np.isfinite(np.take_along_axis(rough_square, nearest, axis=1))
        near = ((own[rows, None] - kept[nearest]) ** 2).sum(axis=2)  # without the round-off of float32
        reach = np.maximum(np.where(counts, near, 0.0).max(axis=1, keepdims=True), _TINY)
        weight = counts * (np.maximum(1.0 - near / reach, 0.0) ** 2 + _TINY)
        total = weight.sum(axis=1)
        mean = np.where(
            total > 0, (weight * sizes[nearest]).sum(axis=1) / np.maximum(total, _TINY), sizes.mean()
        )
        out[rows] = np.log(np.column_stack([mean, np.sqrt(reach[:, 0])]))
    return out


def _of_one_composition(codes: NDArray[np.float64], known: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """For each code the places of those that are the same."""
    order = np.argsort(known)
    ends = [np.searchsorted(known[order], codes + shift) for shift in (-_SAME, _SAME)]
    return [order[first:last] for first, last in zip(*ends, strict=True)]


def _codes(fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(fractions @ _CODES[: fractions.shape[1]])


def _single(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)
