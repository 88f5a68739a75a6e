"""Rows as re-iterable chunks, so that nothing has to fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError

Array: TypeAlias = NDArray[np.float64]
Chunk: TypeAlias = tuple[Any, Any, Any]
Chunks: TypeAlias = Callable[[], Iterable[Chunk]]
"""Called once per pass; yields ``(x (n, P), y (n,), weight (n,) or None)`` in the same order every time."""


def array_chunks(
    x: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None, chunk_rows: int = 2048
) -> Chunks:
    """Offer arrays in memory as chunks.

    Parameters
    ----------
    x : array, shape (n, P)
        Features of each row (for MACE heads: φ per atom).
    y : array, shape (n,)
        Residuals, eV/atom.
    weight : array, shape (n,), optional
        Non-negative weights.
    chunk_rows : int
        Rows per chunk; results do not depend on it beyond round-off.

    Returns
    -------
    Chunks
        A function that yields the chunks anew at each call.

    Raises
    ------
    HeadError
        If the shapes disagree or ``chunk_rows`` is not positive.
    """
    a, b = np.asarray(x), np.asarray(y)
    w = None if weight is None else np.asarray(weight, dtype=np.float64)
    if a.ndim != 2 or b.shape != (len(a),) or (w is not None and w.shape != (len(a),)):
        shapes = f"x {a.shape}, y {b.shape}" + ("" if w is None else f", weight {w.shape}")
        raise HeadError(
            f"x, y and weight have the shapes {shapes}, not (n, P), (n,) and (n,); align the rows."
        )
    if chunk_rows < 1:
        raise HeadError(f"chunk_rows must be at least 1, got {chunk_rows}; use the default.")

    def iterate() -> Iterator[Chunk]:
        for start in range(0, len(a), chunk_rows):
            rows = slice(start, start + chunk_rows)
            yield a[rows], b[rows], None if w is None else w[rows]

    return iterate


def checked_rows(chunks: Chunks) -> Iterator[tuple[Array, Array, Array]]:
    """Yield every chunk as float64 ``(x, y, weight)`` after checking shapes and values."""
    columns: int | None = None
    start = 0
    for x_raw, y_raw, w_raw in chunks():
        x, y = np.asarray(x_raw, dtype=np.float64), np.asarray(y_raw, dtype=np.float64)
        w = np.ones(len(y)) if w_raw is None else np.asarray(w_raw, dtype=np.float64)
        if x.ndim != 2 or y.shape != (len(x),) or w.shape != (len(x),):
            raise HeadError(
                f"a chunk has x, y and weight of shapes {x.shape}, {y.shape}, {w.shape}, not (n, P), (n,), (n,); align "
                "the rows."
            )
        columns = x.shape[1] if columns is None else columns
        if x.shape[1] != columns:
            raise HeadError(
                f"the first chunk has {columns} columns, and that from row {start} on {x.shape[1]}; "
                "use one feature specification."
            )
        if len(x) == 0:
            continue
        good = np.isfinite(x).all(axis=1) & np.isfinite(y) & np.isfinite(w) & (w >= 0.0)
        if not good.all():
            row = start + int(np.argmin(good))
            raise HeadError(
                f"row {row} holds NaN, infinity or a negative weight; drop such rows before the fit."
            )
        yield x, y, w
        start += len(x)
