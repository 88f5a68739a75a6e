"""Sequential, mergeable QR: the R factor of all rows without holding them.

Reference: J. Demmel, L. Grigori, M. Hoemmen, J. Langou, "Communication-optimal parallel and sequential QR and
LU factorizations", SIAM J. Sci. Comput. 34, A206 (2012), section 3 (TSQR). Unlike a Gram matrix it keeps
the full accuracy of float64 for ill-conditioned columns.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from mace_bounds.errors import HeadError

from ._chunks import Array

_BLOCK_ROWS = 4096


class QrAccumulator:
    """R factor of a tall matrix that arrives in pieces; its diagonal is non-negative.

    Parameters
    ----------
    columns : int
        Number of columns.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._r: Array = np.zeros((0, columns))
        self._pending: list[Array] = []
        self._pending_rows = 0

    def add(self, block: Array) -> None:
        """Append rows, shape (n, columns); they are factorised a few thousand at a time."""
        self._pending.append(block)
        self._pending_rows += len(block)
        if self._pending_rows >= max(_BLOCK_ROWS, 2 * self.columns):
            self._reduce()

    @property
    def r(self) -> Array:
        """The R factor so far, shape (min(n, columns), columns)."""
        if self._pending:
            self._reduce()
        return self._r

    def _reduce(self) -> None:
        stacked = np.empty((len(self._r) + self._pending_rows, self.columns), order="F")
        stacked[: len(self._r)] = self._r
        np.concatenate(self._pending, axis=0, out=stacked[len(self._r) :])
        (r,) = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
        r = np.triu(r[: self.columns])
        self._r = np.where(np.diagonal(r) < 0.0, -1.0, 1.0)[:, None] * r
        self._pending, self._pending_rows = [], 0


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
        """R factor of sqrt(w)·[1 X y], shape (min(n, P + 2), P + 2)."""
        return self._qr.r

    def update(self, x: Array, y: Array, weight: Array | None = None) -> TsqrFactor:
        """Add rows: x (n, P), y (n,), weight (n,) or None for ones; returns itself."""
        if x.ndim != 2 or x.shape[1] != self.columns or y.shape != (len(x),):
            raise HeadError(
                f"expected x (n, {self.columns}) and y (n,), got {x.shape} and {y.shape}; align rows and "
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
        block = np.empty((len(x), self.columns + 2), order="F")
        block[:, 0] = root
        np.multiply(x, root[:, None], out=block[:, 1:-1])
        np.multiply(y, root, out=block[:, -1])
        self._qr.add(block)
        return self

    def merge(self, other: TsqrFactor) -> TsqrFactor:
        """Add the rows of another factor; returns itself."""
        if other.columns != self.columns:
            raise HeadError(
                f"expected a factor of {self.columns} columns, got {other.columns}; use one feature "
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
