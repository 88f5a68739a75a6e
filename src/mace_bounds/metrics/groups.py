"""Which rows belong to which group: labels, bins, and elements (where a row is in several groups)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError

SIZE_EDGES: tuple[int, ...] = (5, 11, 21, 51, 101)
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Membership:
    """Overlapping groups as a boolean matrix.

    Attributes
    ----------
    names : tuple of str
        One per column.
    matrix : ndarray of bool, shape (n, n_groups)
        True where the row belongs to the group.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[1] != len(self.names):
            raise HeadError(
                f"a matrix of shape {self.matrix.shape} does not fit {len(self.names)} groups; align them."
            )


Labels = Membership | Sequence[object] | NDArray[np.generic]
"""One label per row (None becomes "unknown"), a set or tuple of labels per row, or a :class:`Membership`."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Overlapping groups as lists of rows: thousands of small groups take no more than their members.

    Attributes
    ----------
    names : tuple of str
        One per group.
    rows : tuple of ndarray of int64
        Rows of each group, in increasing order.
    n_rows : int
        How many rows there are in all.
    """

    names: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    n_rows: int


def groups_of(labels: Labels | Groups) -> Groups:
    """Turn labels or sets of labels into lists of rows, sorted by name; a matrix into those of its columns."""
    if isinstance(labels, Groups):
        return labels
    if isinstance(labels, Membership):
        found = tuple(np.flatnonzero(column) for column in labels.matrix.T)
        return Groups(labels.names, found, len(labels.matrix))
    code: dict[str, int] = {}
    row, group = array("q"), array("q")
    for i, label in enumerate(labels):
        for name in _label_set(label):
            row.append(i)
            group.append(code.setdefault(name, len(code)))
    rows, groups = np.array(row, dtype=np.int64), np.array(group, dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    parts = np.split(rows[order], np.cumsum(np.bincount(groups, minlength=len(code)))[:-1])
    names = sorted(code)
    return Groups(tuple(names), tuple(parts[code[name]] for name in names), len(labels))


def codes_of(labels: Sequence[object] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Number equal labels alike, in the order in which they come: what is compared often is compared as numbers."""
    code: dict[object, int] = {}
    return np.fromiter((code.setdefault(label, len(code)) for label in labels), np.int64, len(labels))


def membership(labels: Labels) -> Membership:
    """Turn labels, or sets of labels, into a membership matrix with sorted columns."""
    if isinstance(labels, Membership):
        return labels
    sets = [_label_set(label) for label in labels]
    names = sorted(set().union(*sets)) if sets else []
    column = {name: j for j, name in enumerate(names)}
    matrix = np.zeros((len(sets), len(names)), dtype=np.bool_)
    for i, row in enumerate(sets):
        matrix[i, [column[name] for name in row]] = True
    return Membership(tuple(names), matrix)


def _label_set(label: object) -> frozenset[str]:
    if isinstance(label, (set, frozenset, tuple, list)):
        return frozenset(str(item) for item in label)
    missing = label is None or (isinstance(label, float) and np.isnan(label))
    return frozenset((UNKNOWN,)) if missing else frozenset((str(label),))


def element_membership(chemical_systems: Iterable[str]) -> Membership:
    """Group rows by element: ``"Fe-Li-O"`` belongs to Fe, Li and O."""
    systems = list(chemical_systems)
    code = codes_of(systems)
    known = membership([tuple(system.split("-")) for system in dict.fromkeys(systems)])
    return Membership(known.names, known.matrix[code])


def fraction_membership(fractions: ArrayLike, symbols: Sequence[str]) -> Membership:
    """Group rows by element from atomic fractions, shape (n, n_elements); absent elements are left out."""
    present = np.asarray(np.asarray(fractions) > 0, dtype=np.bool_)
    used = np.asarray(present.any(axis=0))
    return Membership(tuple(s for s, keep in zip(symbols, used, strict=True) if keep), present[:, used])


def size_bins(n_atoms: ArrayLike, edges: Sequence[int] = SIZE_EDGES) -> NDArray[np.str_]:
    """Label cells by size, ``"001-004 atoms"`` and so on: zero-padded, so that sorting by name sorts by size.

    Parameters
    ----------
    n_atoms : array_like of int, shape (n,)
        Atoms per cell.
    edges : sequence of int
        First size of every bin but the lowest, increasing.

    Returns
    -------
    ndarray of str, shape (n,)
    """
    starts = [1, *edges]
    names = [f"{a:03d}-{b - 1:03d} atoms" for a, b in pairwise(starts)]
    names.append(f"{starts[-1]:03d}+ atoms")
    index = np.searchsorted(np.asarray(edges), np.asarray(n_atoms), side="right")
    labelled: NDArray[np.str_] = np.array(names, dtype=np.str_)[index]
    return labelled
