"""Rows as re-iterable chunks, and the R factor of all rows without holding them.

Reference: J. Demmel, L. Grigori, M. Hoemmen, J. Langou, "Communication-optimal parallel and sequential QR and
LU factorizations", SIAM J. Sci. Comput. 34, A206 (2012), section 3 (TSQR). Unlike a Gram matrix it keeps
the full accuracy of float64 for ill-conditioned columns. LAPACK's ``tpqrt`` knows that the factor so far is
triangular and takes 0.7 of the time of a QR of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

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


_BLOCK_ROWS = 1024  # a block stays in the cache of a core
_PANEL = 24  # columns that tpqrt eliminates at a time; 16 to 32 are equally fast


class QrAccumulator:
    """R factor of a tall matrix that arrives in pieces; its diagonal is non-negative.

    ``columns``: number of columns.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._r: Array = np.zeros((columns, columns), order="F")

    def add(self, block: Array) -> None:
        """Add rows, shape (n, columns): eliminate them against the factor so far."""
        for start in range(0, len(block), _BLOCK_ROWS):
            rows = block[start : start + _BLOCK_ROWS]
            self._r, *_ = lapack.dtpqrt(0, min(_PANEL, self.columns), self._r, rows, overwrite_a=1)

    @property
    def r(self) -> Array:
        """The R factor so far, shape (columns, columns)."""
        signs = np.where(np.diagonal(self._r) < 0.0, -1.0, 1.0)
        return np.asarray(signs[:, None] * self._r)


class TsqrFactor:
    """Everything the linear fit needs to know of the rows: R of sqrt(w)·[1 X y], counts and column ranges.

    The constant comes first, so that the rest of the factor is that of the *centred* columns, without
    cancellation. Workers fill one factor each; merged in a fixed order the result does not depend
    on who computed what.

    Parameters
    ----------
    columns : int
        Number of columns of x, P.

    Attributes
    ----------
    n_total : int
        Rows seen.
    n_rows : int
        Rows with positive weight.
    weight_sum : float
        Σw.
    minimum, maximum : ndarray, shape (P,)
        Range of each column over rows with positive weight.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.n_total = 0
        self.n_rows = 0
        self.weight_sum = 0.0
        self.minimum: Array = np.full(columns, np.inf)
        self.maximum: Array = np.full(columns, -np.inf)
        self._qr = QrAccumulator(columns + 2)

    @property
    def r(self) -> Array:
        """R factor of sqrt(w)·[1 X y], shape (P + 2, P + 2)."""
        return self._qr.r

    def update(self, x: Array, y: Array, weight: Array | None = None) -> TsqrFactor:
        """Add rows: x (n, P), y (n,), weight (n,) or None for ones; returns itself."""
        if x.ndim != 2 or x.shape[1] != self.columns or y.shape != (len(x),):
            raise HeadError(
                f"x has the shape {x.shape} and y {y.shape}, not (n, {self.columns}) and (n,); align rows and "
                "columns."
            )
        self.n_total += len(x)
        root = np.ones(len(x))
        if weight is not None:
            kept = weight > 0.0
            x, y, weight = x[kept], y[kept], weight[kept]
            root = np.sqrt(weight)
        if len(x) == 0:
            return self
        self.n_rows += len(x)
        self.weight_sum += float(len(x) if weight is None else np.sum(weight))
        self.minimum = np.minimum(self.minimum, x.min(axis=0))
        self.maximum = np.maximum(self.maximum, x.max(axis=0))
        block = np.empty((len(x), self.columns + 2))
        block[:, 0] = root
        np.multiply(x, root[:, None], out=block[:, 1:-1])
        np.multiply(y, root, out=block[:, -1])
        self._qr.add(block)
        return self

    def merge(self, other: TsqrFactor) -> TsqrFactor:
        """Add the rows of another factor; returns itself."""
        if other.columns != self.columns:
            raise HeadError(
                f"factors of {self.columns} and {other.columns} columns cannot be merged; use one feature "
                "specification."
            )
        self.n_total += other.n_total
        self.n_rows += other.n_rows
        self.weight_sum += other.weight_sum
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        if other.n_rows:
            self._qr.add(other.r)
        return self
