"""D-optimality: a maximum-volume set of training rows, and how far a new row lies outside it.

References: S. A. Goreinov, I. V. Oseledets, D. V. Savostyanov, E. E. Tyrtyshnikov, N. L. Zamarashkin, "How to
find a good submatrix", in Matrix Methods: Theory, Algorithms and Applications (World Scientific, 2010), p. 247
(algorithm and the dominance of the submatrix); E. V. Podryabinkin and A. V. Shapeev, Comput. Mater. Sci. 140,
171 (2017), section 2.3 (the grade γ).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array, QrAccumulator

RowBlocks: TypeAlias = Callable[[], Iterable[ArrayLike]]
"""Called once per pass; yields blocks (n, P) of the same rows in the same order every time."""

DOMINANT = 1.0 + 1e-9  # largest grade of a training row at which the search ends
_BLOCK_ROWS = 8192
_MAX_PASSES = 200  # each swap enlarges the volume, so the search ends by itself long before
_MAX_REFRESHES = 50
_VIRTUAL = 1e-3  # length of the rows the search starts from; real rows have a root mean square of 1
_TIE = 1e-10  # relative; above round-off


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """A maximum-volume set of rows: r of them span the numerical row space of P columns."""

    rows: NDArray[np.int64]  # shape (r,): their places among the rows it was made from
    # shape (P, P): to whitened coordinates of the row space (the first r), and to the directions that the
    # rows hardly have, in units of the rank tolerance (the rest)
    projection: Array
    inverse: Array  # shape (r, r): inverse of the set in whitened coordinates

    @property
    def rank(self) -> int:
        """Dimension r of the numerical row space."""
        return len(self.rows)

    @property
    def coefficients(self) -> Array:
        """Matrix (P, P) that takes rows to the coefficients whose largest size is their grade."""
        inner = self.projection[:, : self.rank] @ self.inverse
        return np.concatenate([inner, self.projection[:, self.rank :]], axis=1)

    def grade(self, b: ArrayLike) -> Array:
        """Extrapolation grade γ of rows: the largest coefficient that expresses each by the active set.

        γ ≤ 1: the row lies in the parallelepiped ±(active rows), as all rows do that the set was made from
        (to 1e-9). Along directions that those rows hardly have, γ is the length in units of the rank
        tolerance, so that a column never seen before gives a very large grade. Says what is new; it
        is no estimate of an error.

        Parameters
        ----------
        b : array, shape (n, P)
            Rows in the columns of the active set.

        Returns
        -------
        ndarray, shape (n,)
            γ = max |b A⁻¹| (Podryabinkin & Shapeev 2017, eq. 12).

        Raises
        ------
        HeadError
            If the columns are not P.
        """
        rows = np.asarray(b)
        if rows.ndim != 2 or rows.shape[1] != len(self.projection):
            raise HeadError(
                f"rows have the shape {rows.shape}, not (n, {len(self.projection)}); use the columns of the active set."
            )
        grade = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK_ROWS):
            part = rows[start : start + _BLOCK_ROWS] @ self.projection
            inner = np.abs(part[:, : self.rank] @ self.inverse).max(axis=1, initial=0.0)
            outer = np.abs(part[:, self.rank :]).max(axis=1, initial=0.0)
            grade[start : start + len(part)] = np.maximum(inner, outer)
        return grade

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that rebuild it."""
        return {"rows": self.rows, "projection": self.projection, "inverse": self.inverse}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> ActiveSet:
        """Rebuild it from :meth:`to_tensors`; missing names raise ``KeyError``."""
        return cls(tensors["rows"], tensors["projection"], tensors["inverse"])


def active_set(
    rows: ArrayLike | RowBlocks, *, rank_tolerance: float = 1e-6, tolerance: float = DOMINANT
) -> ActiveSet:
    """Find a maximum-volume set of rows, in memory for a few blocks however many rows there are.

    A first pass finds the numerical row space; every further pass collects, for each member of the set, the
    row that would enlarge the volume most in its place, and exchanges; the last one finds nothing to
    exchange. Neither the order of the rows nor their blocks matter, up to ties and round-off.

    Parameters
    ----------
    rows : array, shape (n, P), or callable
        The rows, or a function that yields blocks of them anew at each call.
    rank_tolerance : float
        Directions with a singular value below this part of the largest (columns scaled to root mean
        square 1) do not count as spanned. The default suits features computed in float32.
    tolerance : float
        Largest grade of a training row at which the search ends.

    Returns
    -------
    ActiveSet

    Raises
    ------
    HeadError
        If there are no rows, or rows that are not finite.
    """
    blocks = rows if callable(rows) else _blocks_of(np.asarray(rows))
    projection, rank = _row_space(blocks, rank_tolerance)
    if rank == 0:
        return ActiveSet(np.empty(0, dtype=np.int64), projection, np.empty((0, 0)))
    to_space = projection[:, :rank]
    # Tiny unit vectors to start from: exchanging them for real rows is Gaussian elimination with full pivoting.
    members, vectors = np.full(rank, -1, dtype=np.int64), _VIRTUAL * np.eye(rank)
    for _ in range(_MAX_PASSES):
        found, candidates, largest = _best_exchanges(blocks, to_space, linalg.inv(vectors))
        if largest <= tolerance:
            break
        pool = np.concatenate([vectors, candidates])
        chosen = _exchange(pool, np.arange(rank), tolerance)
        members, vectors = np.concatenate([members, found])[chosen], pool[chosen]
    return ActiveSet(members, projection, linalg.inv(vectors))


def _blocks_of(array: NDArray[Any]) -> RowBlocks:
    def blocks() -> Iterable[ArrayLike]:
        return (array[start : start + _BLOCK_ROWS] for start in range(0, len(array), _BLOCK_ROWS))

    return blocks


def _checked(blocks: RowBlocks) -> Iterable[Array]:
    start = 0
    for given in blocks():
        block = np.asarray(given, dtype=np.float64)
        if block.ndim != 2 or not np.isfinite(block).all():
            raise HeadError(
                f"from row {start} on, a block of shape {block.shape} holds NaN or infinity, or is no matrix; drop "
                "such rows."
            )
        start += len(block)
        yield block


def _row_space(blocks: RowBlocks, rank_tolerance: float) -> tuple[Array, int]:
    """Projection (P, P) to the row space and, in units of the tolerance, to what lies outside; and the rank."""
    accumulator: QrAccumulator | None = None
    n = 0
    for block in _checked(blocks):
        accumulator = QrAccumulator(block.shape[1]) if accumulator is None else accumulator
        accumulator.add(block)
        n += len(block)
    if accumulator is None or n == 0:
        raise HeadError("an active set needs rows, and there are none; add rows.")
    columns = accumulator.columns
    factor = np.zeros((columns, columns))
    factor[: len(accumulator.r)] = accumulator.r
    size = np.linalg.norm(factor, axis=0) / np.sqrt(n)
    scale = np.where(size > 0.0, size, 1.0)
    _, singular, vt = linalg.svd(factor / scale, check_finite=False)
    smallest = rank_tolerance * singular[0]
    rank = int(np.count_nonzero(singular > smallest)) if singular[0] > 0.0 else 0
    # A training row has at most the singular value along each direction: outside the space at most 1 unit.
    unit = np.where(np.arange(columns) < rank, singular / np.sqrt(n), smallest if rank else 1.0)
    return vt.T / scale[:, None] / unit, rank


def _best_exchanges(
    blocks: RowBlocks, to_space: Array, inverse: Array
) -> tuple[NDArray[np.int64], Array, float]:
    """For each member of the set the row of largest coefficient: places, whitened rows; and that coefficient."""
    rank = len(inverse)
    best: Array = np.zeros(rank)
    places, rows = np.zeros(rank, dtype=np.int64), np.zeros((rank, rank))
    start = 0
    for block in _checked(blocks):
        for first in range(0, len(block), _BLOCK_ROWS):
            whitened = block[first : first + _BLOCK_ROWS] @ to_space
            coefficients = np.abs(whitened @ inverse)
            leader, value = _leaders(coefficients, whitened)
            longer = _squared(whitened[leader]) > _squared(rows)
            better = (value > best * (1.0 + _TIE)) | ((value >= best * (1.0 - _TIE)) & longer)
            best[better], places[better] = value[better], start + leader[better]
            rows[better] = whitened[leader[better]]
            start += len(whitened)
    unique, first_of = np.unique(places, return_index=True)
    return unique, rows[first_of], float(best.max())


def _exchange(matrix: Array, members: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """Exchange rows, the largest gain of volume first, until every entry of ``matrix @ inverse`` is small."""
    members, rank = members.copy(), matrix.shape[1]
    enough = 0.5 * (1.0 + tolerance)  # below the tolerance of a pass, so that what ends one ends the other
    for _ in range(_MAX_REFRESHES):
        coefficients = linalg.solve(matrix[members].T, matrix.T, check_finite=False).T
        swaps = 0
        while swaps < 4 * rank:  # updates lose digits: start afresh from time to time
            leader, value = _leaders(np.abs(coefficients), matrix)
            j = int(np.argmax(value >= value.max() * (1.0 - _TIE)))
            if value[j] <= enough:
                break
            i = int(leader[j])
            row = coefficients[i].copy()
            row[j] -= 1.0
            coefficients -= np.outer(coefficients[:, j] / coefficients[i, j], row)
            members[j] = i
            swaps += 1
        if swaps == 0:
            break
    return members


def _leaders(coefficients: Array, vectors: Array) -> tuple[NDArray[np.intp], Array]:
    """Row of the largest entry in each column, and that entry; the longer row where entries are equal.

    Equal entries are common (rows of one composition), and must not be told apart by round-off or place.
    """
    largest = coefficients.max(axis=0)
    tied = coefficients >= largest * (1.0 - _TIE)
    leader = np.where(tied, _squared(vectors)[:, None], -1.0).argmax(axis=0)
    return leader, largest


def _squared(vectors: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
