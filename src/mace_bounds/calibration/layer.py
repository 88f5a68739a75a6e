"""The conformal layer of a head, the cells within which coverage is promised, and the intervals that come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.calibration.conformal import (
    Array,
    LeftOutScores,
    conformal_quantile,
    cv_plus_bounds_at,
    cv_plus_level,
)
from mace_bounds.calibration.novelty import NoveltyGrades
from mace_bounds.errors import HeadError
from mace_bounds.head import PopsPrediction
from mace_bounds.levels import LEVELS, Levels
from mace_bounds.metrics import Labels, Membership, fraction_membership, membership

MINIMUM_CELL = 200
"""Rows that a cell needs for quantiles of its own."""
MINIMUM_SOURCE = 100
"""Rows that a source of labels needs for that."""
SOURCE_CELL = "source "
"""Before the name of a source, the name of its cell."""

_ROUND_OFF = 1e-9  # shares of the scores are sums of many weights
_ARRAYS = ("scores", "folds", "weights", "members", "test_weights")


@dataclass(frozen=True, eq=False, repr=False)
class ConformalLayer:
    """Scores of rows that the head, or the fold's head, has not seen, and what turns them into intervals.

    Every cell that a row is in gives it an interval from the scores of that cell alone; the row gets the outermost of
    their bounds, so that what is promised of each cell holds. A row in no cell gets the interval of all scores. Cells
    may overlap (elements) or not (chemistry classes: Mondrian conformal prediction). For what is promised see
    :func:`cv_plus_bounds`: with one fold coverage of at least the level, overall and within every cell, for new rows
    that are exchangeable with the cell's (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World* (2005),
    section 4.5; the largest bound of overlapping groups: Foygel Barber et al., Inf. Inference 10, 455 (2021)); with
    K folds the 1 - 2α of CV+.

    The cells of ``sources`` make the promise for every source: a row of one of them gets the bounds of its own cell, a
    row from elsewhere the widest that any of them, or all scores together, would give. A source that has too few
    compositions for a level gets there at least its own highest bound and that of all scores.
    """

    levels: Levels  # nominal coverages that there are enough compositions for
    scores: Array  # shape (n,): (y - c) / σ of the left-out rows, or their sizes
    folds: NDArray[np.int64]  # shape (n,): fold of each; all 0 in split conformal
    weights: Array  # shape (n,): row weights
    # shape (n, 1 + n_cells): which scores count for everyone (first column) and for each cell
    members: NDArray[np.bool_]
    # shape (1 + n_cells,): room kept for what is new: the mean weight of a composition there
    test_weights: Array
    cells: tuple[str, ...] = ()  # names of the cells
    signed: bool = False  # whether lower and upper bounds have quantiles of their own
    sources: tuple[str, ...] = ()  # of the labels, whose cells are the first; none or several

    def __repr__(self) -> str:
        return f"ConformalLayer({len(self.scores)} scores, levels {self.levels}, {len(self.cells)} cells)"

    def check(self, level: float) -> float:
        """Return the level as it is calibrated; HeadError if it is not."""
        return self.levels[self.levels.index(level)]

    def bounds(self, centre: Array, sigma: Array, groups: Labels, level: float) -> tuple[Array, Array]:
        """Lower and upper bounds of m rows at one level, in the unit of ``centre`` (K, m) and ``sigma`` (K, m)."""
        lower, upper = self.bounds_at(centre, sigma, groups, [level])
        return lower[0], upper[0]

    def bounds_at(
        self, centre: Array, sigma: Array, groups: Labels, levels: Sequence[float]
    ) -> tuple[Array, Array]:
        """:meth:`bounds` at several levels, shape (n_levels, m) each."""
        wanted, shape = np.asarray(levels, dtype=np.float64), (len(levels), centre.shape[1])
        lower, upper = np.full(shape, np.inf), np.full(shape, -np.inf)
        for column, rows in self._rows_of_cells(groups):
            c, s, reach = centre[:, rows], sigma[:, rows], self._reach(column)
            found = cv_plus_bounds_at(c, s, self._column(column), np.minimum(wanted, reach).tolist())
            if (wanted > reach).any():
                everyone = cv_plus_bounds_at(c, s, self._column(0), levels)
                beyond = (wanted > reach)[:, None]
                found = _outermost(found, _where(beyond, everyone, found))
            lower[:, rows], upper[:, rows] = _outermost((lower[:, rows], upper[:, rows]), found)
        return lower, upper

    def min_covering_level(self, centre: Array, sigma: Array, groups: Labels, value: ArrayLike) -> Array:
        """Level above which :meth:`bounds` hold a value, shape (m,), in [0, 1]."""
        v, out = np.asarray(value, dtype=np.float64), np.ones(centre.shape[1])
        for column, rows in self._rows_of_cells(groups):
            c, s, reach = centre[:, rows], sigma[:, rows], self._reach(column)
            covering = cv_plus_level(c, s, self._column(column), v[rows])
            beyond = covering >= reach - _ROUND_OFF
            if reach < 1.0 and beyond.any():
                all_scores = cv_plus_level(c[:, beyond], s[:, beyond], self._column(0), v[rows][beyond])
                covering[beyond] = np.maximum(reach, all_scores)
            out[rows] = np.minimum(out[rows], covering)
        return out

    def _reach(self, column: int) -> float:
        """Highest level of the cell of a source; 1 for other cells, which have all levels."""
        if not 0 < column <= len(self.sources):
            return 1.0
        share = 1.0 - self.test_weights[column] / (
            self.weights[self.members[:, column]].sum() + self.test_weights[column]
        )
        return float(2.0 * share - 1.0 if self.signed else share)

    def half_width(self, level: float) -> float:
        """Half-width in units of σ from all scores together, as if the heads of all folds were one."""
        everyone = self._column(0)
        (scores, _, weights), new = everyone.arrays(), everyone.test_weight
        if self.signed:
            tail = 0.5 * (1.0 + level)
            upper = conformal_quantile(scores, tail, weights, new)
            return 0.5 * (upper + conformal_quantile(-scores, tail, weights, new))
        return conformal_quantile(np.abs(scores), level, weights, new)

    def _column(self, column: int) -> LeftOutScores:
        """Scores of everyone (0) or of a cell."""
        if column not in self._columns:
            self._columns[column] = self._picked(column)
        return self._columns[column]

    @cached_property
    def _columns(self) -> dict[int, LeftOutScores]:
        return {}  # what has been picked: sorting it again for every few rows takes longer than all else

    def _picked(self, column: int) -> LeftOutScores:
        rows, room = self.members[:, column], float(self.test_weights[column])
        return LeftOutScores(self.scores[rows], self.folds[rows], self.signed, self.weights[rows], room)

    def _rows_of_cells(self, groups: Labels) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Columns of scores, and the new rows that get their bounds from them."""
        new = membership(groups)
        place = {name: j for j, name in enumerate(new.names)}
        alone = np.ones(len(new.matrix), dtype=np.bool_)
        elsewhere = np.full(len(alone), bool(self.sources))
        for column, cell in enumerate(self.cells, 1):
            inside = new.matrix[:, place[cell]] if cell in place else np.zeros_like(alone)
            alone &= ~inside
            if column <= len(self.sources):
                elsewhere &= inside
            if inside.any():
                yield column, np.flatnonzero(inside)
        alone |= elsewhere
        if alone.any():
            yield 0, np.flatnonzero(alone)

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for safetensors; the names of the cells go to :meth:`to_config`."""
        return {"levels": np.array(self.levels.values), **{name: getattr(self, name) for name in _ARRAYS}}

    def to_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return {"cells": list(self.cells), "signed": self.signed, "sources": list(self.sources)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], config: Mapping[str, object]
    ) -> ConformalLayer:
        """Rebuild a layer from :meth:`to_tensors` and :meth:`to_config`; KeyError if a part is missing."""
        cells, members = config["cells"], np.asarray(tensors["members"], dtype=np.bool_)
        scores = np.asarray(tensors["scores"], dtype=np.float64)
        if not isinstance(cells, list) or members.shape != (len(scores), 1 + len(cells)):
            raise HeadError("the head's scores do not have one column per cell; fit or download it again.")
        return cls(
            levels=Levels.of(np.asarray(tensors["levels"], dtype=np.float64)),
            scores=scores,
            folds=np.asarray(tensors["folds"], dtype=np.int64),
            weights=np.asarray(tensors["weights"], dtype=np.float64),
            members=members,
            test_weights=np.asarray(tensors["test_weights"], dtype=np.float64),
            cells=tuple(str(cell) for cell in cells),
            signed=bool(config["signed"]),
            sources=tuple(config.get("sources", ())),  # type: ignore[arg-type]
        )


def _where(there: NDArray[np.bool_], a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.where(there, a[0], b[0]), np.where(there, a[1], b[1])


def _outermost(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])


def conformal_layer(
    left_out: LeftOutScores,
    groups: Labels | None = None,
    levels: Sequence[float] = LEVELS,
    *,
    clusters: Sequence[str] | NDArray[np.str_] | None = None,
    minimum: int = MINIMUM_CELL,
    minimum_source: int = MINIMUM_SOURCE,
) -> ConformalLayer:
    """Calibrate a head from left-out scores.

    Parameters
    ----------
    left_out : LeftOutScores
        Of n labelled rows; its ``test_weight`` is not used, since ``clusters`` say for what room is kept.
    groups : Labels, optional
        Cells of each row: a label, a set of labels, or a :class:`Membership`. None: no cells.
    levels : sequence of float
        Nominal coverages that are wanted.
    clusters : sequence of str, shape (n,), optional
        Composition of each row. What is new to the head is then a composition and not one more row: room is kept for
        one more cluster of mean weight. Without it every row is a cluster.
    minimum : int
        Cells with fewer rows, or too few clusters for the levels, get no quantiles of their own.
    minimum_source : int
        The same for cells of sources (:func:`source_groups`), which need one of the levels.

    Returns
    -------
    ConformalLayer
        With the wanted levels that there are enough clusters for, possibly none.

    References
    ----------
    Clusters: Lee, Barber, Willett, arXiv:2306.06342 (hierarchical conformal prediction), here with rows in place of
    groups as the unit whose coverage is promised.
    """
    (z, k, w), signed = left_out.arrays(), left_out.signed
    c = np.arange(z.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    given = (
        membership(groups) if groups is not None else Membership((), np.zeros((z.size, 0), dtype=np.bool_))
    )
    if not len(z) == len(c) == len(given.matrix):
        raise HeadError(
            f"there are {len(c)} clusters and {len(given.matrix)} sets of groups for {len(z)} scores; align them."
        )

    def room(rows: NDArray[np.bool_]) -> float:
        return float(w[rows].sum()) / max(np.unique(c[rows]).size, 1)

    def reaches(rows: NDArray[np.bool_], level: float) -> bool:
        tail = 0.5 * (1.0 + level) if signed else level
        return bool(np.isfinite(conformal_quantile(z[rows], tail, w[rows], room(rows))))

    everyone = np.ones(z.size, dtype=np.bool_)
    reached = [float(level) for level in levels if reaches(everyone, level)]
    sources, others = [], []
    for j, name in enumerate(given.names):
        rows = given.matrix[:, j]
        if name.startswith(SOURCE_CELL):
            if rows.sum() >= minimum_source and any(reaches(rows, x) for x in reached):
                sources.append(j)
        elif rows.sum() >= minimum and all(reaches(rows, x) for x in reached):
            others.append(j)
    sources = sources if len(sources) > 1 else []  # one alone promises nothing for others
    kept = sources + others
    members = np.column_stack([everyone, given.matrix[:, kept]])
    order = np.lexsort((*members.T, w, z, k))  # equal data, equal bytes
    return ConformalLayer(
        levels=Levels.of(reached),
        scores=z[order],
        folds=k[order],
        weights=w[order],
        members=members[order],
        test_weights=np.array([room(column) for column in members.T]),
        cells=tuple(given.names[j] for j in kept),
        signed=signed,
        sources=tuple(given.names[j].removeprefix(SOURCE_CELL) for j in sources),
    )


GROUP_KINDS = ("chemistry", "element")


@dataclass(frozen=True, eq=False, repr=False)
class Intervals:
    """What a calibrated head says about rows; energies in eV/atom, relative to the model's own energy."""

    # shape (n,): middle of the intervals: the expected residual, or 0 where the frozen mean is kept
    centre: NDArray[np.float64]
    refit: NDArray[np.float64]  # shape (n,): expected residual of the refit head, whether it is used or not
    sigma: NDArray[np.float64]  # shape (n,): the scale σ(x)
    levels: Levels  # nominal coverages
    # lower, upper, shape (n, n_levels): bounds of the residual. CV+ and signed intervals need not have
    # ``centre`` in their middle.
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    pops: PopsPrediction  # everything the POPS head says
    # shape (n,): leverage over the largest leverage among compositions left out in cross-fitting; > 1 is
    # outside
    extrapolation_grade: NDArray[np.float64]
    unseen: NDArray[np.bool_]  # shape (n,): whether a row holds an element that no row of the fit had
    cells: NDArray[np.str_]  # shape (n,): chemistry class
    groups: Membership  # every cell a row may have quantiles of: chemistry class, elements, size bin
    # fold_centre, fold_sigma, shape (K, n): what the heads of the folds say, from which the bounds are made;
    # one line where nothing was left out by folds
    fold_centre: NDArray[np.float64]
    fold_sigma: NDArray[np.float64]
    # shape (n,): with a head of one chemistry, rows that name none of its families with quantiles of their own
    unknown_family: NDArray[np.bool_]
    novelty: NoveltyGrades | None = None  # how new the rows are; None where the head was made without it

    def __repr__(self) -> str:
        return f"Intervals({len(self.sigma)} rows, levels {self.levels})"

    @property
    def half_widths(self) -> NDArray[np.float64]:
        """Half of upper less lower, shape (n, n_levels)."""
        return np.asarray(0.5 * (self.upper - self.lower))

    @property
    def extrapolates(self) -> NDArray[np.bool_]:
        """Whether rows are unlike those of the fit, by leverage or by D-optimality, shape (n,)."""
        by_leverage = self.extrapolation_grade > 1.0
        return by_leverage if self.novelty is None else by_leverage | (self.novelty.novelty > 1.0)

    def at(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of one level, two arrays of shape (n,); HeadError if it was not calibrated."""
        place = self.levels.index(level)
        return self.lower[:, place], self.upper[:, place]


def conformal_groups(
    chemistry: NDArray[np.str_],
    fractions: NDArray[np.float64],
    kinds: Sequence[str] = GROUP_KINDS,
    sources: Membership | None = None,
) -> Membership:
    """Cells of each row by source, and by chemistry class and element (``Z8``): what it tells of itself."""
    parts = {
        "chemistry": membership(chemistry),
        "element": fraction_membership(fractions, [f"Z{z}" for z in range(1, fractions.shape[1] + 1)]),
    }
    chosen = [*([] if sources is None else [sources]), *(parts[kind] for kind in kinds)]
    names = tuple(name for part in chosen for name in part.names)
    nothing = np.zeros((len(fractions), 0), dtype=np.bool_)
    return Membership(names, np.concatenate([nothing, *(part.matrix for part in chosen)], axis=1))


def source_groups(sources: Sequence[object], known: Sequence[str]) -> Membership:
    """Cells of each row by source: that of its own, or those of all where it is from none of the ``known``."""
    at = {name: j for j, name in enumerate(known)}
    matrix = np.ones((len(sources), len(known)), dtype=np.bool_)
    for i, source in enumerate(sources):
        if source in at:
            matrix[i] = False
            matrix[i, at[source]] = True
    return Membership(tuple(SOURCE_CELL + name for name in known), matrix)
