"""Which rows belong to which group: labels, bins, elements, chemistry classes, and the slab nobody named in advance."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError

SIZE_EDGES = (5, 11, 21, 51, 101)  # first size of every bin but the lowest
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Membership:
    """Overlapping groups as a boolean matrix."""

    names: tuple[str, ...]  # one per column
    matrix: NDArray[np.bool_]  # shape (n, n_groups): true where the row belongs to the group

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[1] != len(self.names):
            raise HeadError(
                f"a matrix of shape {self.matrix.shape} does not fit {len(self.names)} groups; align them."
            )


Labels = Membership | Sequence[object] | NDArray[np.generic]
"""One label per row (None becomes "unknown"), a set or tuple of labels per row, or a :class:`Membership`."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Overlapping groups as lists of rows: thousands of small groups take no more than their members."""

    names: tuple[str, ...]  # one per group
    rows: tuple[NDArray[np.int64], ...]  # rows of each group, in increasing order
    n_rows: int  # how many rows there are in all


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
    groups = groups_of(labels)
    matrix = np.zeros((groups.n_rows, len(groups.names)), dtype=np.bool_)
    for j, rows in enumerate(groups.rows):
        matrix[rows, j] = True
    return Membership(groups.names, matrix)


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


def size_bins(n_atoms: ArrayLike) -> NDArray[np.str_]:
    """Label cells of some atoms (n,) by size, ``"001-004 atoms"`` and so on: sorting by name sorts by size."""
    starts = [1, *SIZE_EDGES]
    names = [f"{a:03d}-{b - 1:03d} atoms" for a, b in pairwise(starts)]
    names.append(f"{starts[-1]:03d}+ atoms")
    index = np.searchsorted(np.asarray(SIZE_EDGES), np.asarray(n_atoms), side="right")
    labelled: NDArray[np.str_] = np.array(names, dtype=np.str_)[index]
    return labelled


_OXYGEN, _HYDROGEN = 8, 1
_HALOGENS = frozenset((9, 17, 35, 53))
_CHALCOGENS = frozenset((16, 34, 52))
_PNICTOGENS = frozenset((7, 15, 33))
_METALLOIDS = frozenset((5, 6, 14, 32, 51, 84, 85))
_NOBLE = frozenset((2, 10, 18, 36, 54, 86))
_NONMETALS = frozenset((_OXYGEN, _HYDROGEN)) | _HALOGENS | _CHALCOGENS | _PNICTOGENS | _METALLOIDS | _NOBLE


def chemistry_class(elements: Sequence[int]) -> str:
    """Class of a set of atomic numbers by its most electronegative anion.

    ``oxide`` (any O), else ``halide`` (F, Cl, Br, I), else ``chalcogenide`` (S, Se, Te), else ``pnictide``
    (N, P, As), else ``intermetallic`` (metals alone), else ``other`` (H, B, C, Si, Ge, Sb, noble gases).
    """
    present = {int(z) for z in elements}
    if _OXYGEN in present:
        return "oxide"
    for name, anions in (("halide", _HALOGENS), ("chalcogenide", _CHALCOGENS), ("pnictide", _PNICTOGENS)):
        if present & anions:
            return name
    return "other" if present & _NONMETALS else "intermetallic"


def chemistry_classes(elements: Sequence[Sequence[int]]) -> NDArray[np.str_]:
    """Class of each row, shape (n,); see :func:`chemistry_class`."""
    return np.array([chemistry_class(row) for row in elements], dtype="<U13")


def lowest_window(values: NDArray[np.float64], shortest: int) -> tuple[int, int]:
    """Return the window [start, stop) of at least ``shortest`` entries with the lowest mean, exactly.

    Dinkelbach's iteration: for a guess t of the mean, prefix sums of ``values - t`` show in O(n) whether a
    window below t exists; its mean is the next guess.
    """
    n = values.size
    start, stop = 0, n
    guess = float(values.mean())
    while True:
        prefix = np.concatenate([[0.0], np.cumsum(values - guess)])
        highest = np.maximum.accumulate(prefix[: n - shortest + 1])
        gap = prefix[shortest:] - highest
        end = int(np.argmin(gap))
        if gap[end] >= -1e-9 * n:
            return start, stop
        start, stop = int(np.argmax(prefix[: end + 1])), end + shortest
        guess = float(values[start:stop].mean())


def worst_slab_coverage(
    hit: ArrayLike,
    features: ArrayLike,
    *,
    share: float = 0.1,
    n_directions: int = 200,
    seed: int = 0,
) -> float:
    """Measure coverage on the worst slab ``a <= v·x <= b`` that holds at least ``share`` of the rows.

    The slab is found on one random half of the rows and measured on the other, so that the minimum over
    many slabs is not mistaken for bad coverage.

    Parameters
    ----------
    hit : array_like of bool, shape (n,)
        Whether the row lies in its interval.
    features : array_like, shape (n, p)
        Floating-point numbers, standardised inside; for example leverage, log size, composition.
    share : float
        Least share of the rows in the slab.
    n_directions : int
        Random directions searched; the p axes are searched too.
    seed : int
        Of the halves and the directions.

    Returns
    -------
    float
        Coverage on the held-out rows in the slab.

    References
    ----------
    Cauchois, Gupta, Duchi, JMLR 22 (2021), section 4; Romano, Sesia, Candès, NeurIPS 2020, appendix S1.2.
    """
    inside, x = np.asarray(hit, dtype=np.float64), np.asarray(features)
    if x.ndim != 2 or len(x) != inside.size or inside.size < 20 or not 0 < share <= 1:
        raise HeadError(
            f"features of shape {x.shape}, {inside.size} rows and the share {share} make no slab: it takes 20 rows "
            "with features and a share in (0, 1]; label more rows."
        )
    spread = x.std(axis=0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(inside.size)
    search, measure = order[: inside.size // 2], order[inside.size // 2 :]
    directions = np.vstack([np.eye(x.shape[1]), rng.standard_normal((n_directions, x.shape[1]))])
    directions = (directions / np.where(spread > 0, spread, 1.0)).astype(
        x.dtype
    )  # standardises without a copy
    searched = x[search]
    shortest = max(1, int(np.ceil(share * search.size)))
    worst, chosen = np.inf, (directions[0], -np.inf, np.inf)
    for direction in directions:
        projected = searched @ direction
        ranking = np.argsort(projected, kind="stable")
        start, stop = lowest_window(inside[search][ranking], shortest)
        mean = float(inside[search][ranking[start:stop]].mean())
        if mean < worst:
            worst = mean
            chosen = (direction, projected[ranking[start]], projected[ranking[stop - 1]])
    direction, low, high = chosen
    projected = (x @ direction)[measure]
    in_slab = (projected >= low) & (projected <= high)
    return float(inside[measure][in_slab].mean()) if in_slab.any() else float(inside[measure].mean())
