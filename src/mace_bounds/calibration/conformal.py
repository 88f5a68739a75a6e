"""Split-conformal quantiles: from scores |r|/σ on calibration rows to intervals with a coverage guarantee.

If calibration rows and new rows are exchangeable, the interval ``centre ± q σ(x)`` with q the
⌈(n+1)·level⌉-th smallest score covers with probability at least ``level`` (Vovk et al., *Algorithmic
Learning in a Random World*, 2005; Lei et al., JASA 113, 1094 (2018), theorem 2.2). Too few rows for a level
give q = inf: an honest "cannot say".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError
from mace_bounds.levels import LEVELS

_ROUND_OFF = 1e-9  # (n + 1) * level must not step up because 0.95 is not a binary number


def conformal_scores(residual: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Return |residual| / sigma, shape (n,); both in the same unit."""
    r, s = np.asarray(residual, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if r.shape != s.shape or r.ndim != 1:
        raise HeadError(
            f"Expected residuals and widths of one length, got shapes {r.shape} and {s.shape}; align them."
        )
    if not np.all(s > 0):
        raise HeadError("Expected positive widths, got zero, negative or NaN; floor sigma first.")
    return np.abs(r) / s


def _checked(scores: ArrayLike, level: float) -> NDArray[np.float64]:
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or np.any(np.isnan(s)):
        raise HeadError("Expected a 1-D array of scores without NaN; drop rows without a label first.")
    if not 0.0 < level < 1.0:
        raise HeadError(f"Expected a coverage level between 0 and 1, got {level}; write 95 per cent as 0.95.")
    return s


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """Return the ⌈(n+1)·level⌉-th smallest score, or ``inf`` if there are too few.

    Parameters
    ----------
    scores : array_like, shape (n,)
        Scores |r|/σ of the calibration rows, any order.
    level : float
        Nominal coverage, between 0 and 1.

    Returns
    -------
    float
        The conformal quantile; ``inf`` if n < level / (1 - level) (n < 19 at 95 %, n < 99 at 99 %).

    Raises
    ------
    HeadError
        If a score is NaN or the level is outside (0, 1).
    """
    s = _checked(scores, level)
    rank = math.ceil((s.size + 1) * level - _ROUND_OFF)
    if rank > s.size:
        return math.inf
    return float(np.partition(s, rank - 1)[rank - 1])


def conformal_quantiles(scores: ArrayLike, levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """Return :func:`conformal_quantile` at each level, ``{level: quantile}``; not decreasing in the level."""
    return {float(level): conformal_quantile(scores, level) for level in levels}


def weighted_conformal_quantile(
    scores: ArrayLike, weights: ArrayLike, level: float, test_weight: float | None = None
) -> float:
    """Return the conformal quantile of weighted calibration rows.

    Parameters
    ----------
    scores, weights : array_like, shape (n,)
        Scores, and weights not negative: a likelihood ratio under covariate shift, or 1 / (rows of the
        composition) where every composition shall count once.
    level : float
        Nominal coverage, between 0 and 1.
    test_weight : float, optional
        Weight of the new row; the mean of ``weights`` by default. Equal weights give
        :func:`conformal_quantile`.

    Returns
    -------
    float
        Smallest score whose cumulated weight reaches ``level`` of the total (new row included), or ``inf``.

    References
    ----------
    Tibshirani, Barber, Candès, Ramdas, NeurIPS 2019, equation 7.
    """
    s = _checked(scores, level)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != s.shape or not np.all(w >= 0) or not w.sum() > 0:
        raise HeadError("Expected one non-negative weight per score and a positive sum; correct the weights.")
    extra = float(w.mean()) if test_weight is None else test_weight
    order = np.argsort(s, kind="stable")
    cumulated = np.cumsum(w[order]) / (w.sum() + extra)
    position = int(np.searchsorted(cumulated, level - _ROUND_OFF / (s.size + 1)))
    return float(s[order[position]]) if position < s.size else math.inf


@dataclass(frozen=True, eq=False)
class ConformalTable:
    """Conformal quantiles per level, overall and per cell: what a head ships.

    Attributes
    ----------
    levels, quantiles : ndarray, shape (n_levels,)
        Nominal coverages and the overall ("parent") quantiles; dimensionless.
    n_scores : int
        Number of calibration rows behind ``quantiles``.
    cells : tuple of str
        Cells with a quantile of their own; every other label gets the parent's.
    cell_quantiles : ndarray, shape (n_cells, n_levels)
        Their quantiles.
    cell_counts : ndarray of int64, shape (n_cells,)
        Calibration rows per cell.
    """

    levels: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    n_scores: int
    cells: tuple[str, ...]
    cell_quantiles: NDArray[np.float64]
    cell_counts: NDArray[np.int64]

    def quantile(self, level: float) -> float:
        """Overall quantile of one level; HeadError if it was not calibrated."""
        return float(self.quantiles[self._position(level)])

    def lookup(self, labels: Sequence[str] | NDArray[np.str_], level: float) -> NDArray[np.float64]:
        """Quantile of each row, shape (n,): its cell's, or the parent's for a cell without one."""
        position = self._position(level)
        row = {cell: i for i, cell in enumerate(self.cells)}
        table = np.append(self.cell_quantiles[:, position], self.quantiles[position])
        return table[np.array([row.get(str(label), -1) for label in labels], dtype=np.int64)]

    def _position(self, level: float) -> int:
        found = np.flatnonzero(np.isclose(self.levels, level, rtol=0, atol=1e-12))
        if found.size == 0:
            known = ", ".join(f"{x:g}" for x in self.levels)
            raise HeadError(
                f"Expected one of the calibrated levels {known}, got {level:g}; fit a head with this level."
            )
        return int(found[0])

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for safetensors; the cells' names go to :meth:`to_config`."""
        return {
            "levels": self.levels,
            "quantiles": self.quantiles,
            "cell_quantiles": self.cell_quantiles,
            "cell_counts": self.cell_counts,
        }

    def to_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return {"n_scores": self.n_scores, "cells": list(self.cells)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], config: Mapping[str, object]
    ) -> ConformalTable:
        """Rebuild a table from :meth:`to_tensors` and :meth:`to_config`."""
        cells = config["cells"]
        if not isinstance(cells, list):
            raise HeadError(
                "Expected a list of cell names in the head's config; the head is damaged, fit anew."
            )
        return cls(
            levels=np.asarray(tensors["levels"], dtype=np.float64),
            quantiles=np.asarray(tensors["quantiles"], dtype=np.float64),
            n_scores=int(str(config["n_scores"])),
            cells=tuple(str(cell) for cell in cells),
            cell_quantiles=np.asarray(tensors["cell_quantiles"], dtype=np.float64),
            cell_counts=np.asarray(tensors["cell_counts"], dtype=np.int64),
        )


def mondrian_quantiles(
    scores: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_] | None,
    levels: Sequence[float] | float = LEVELS,
    minimum: int = 200,
    weights: ArrayLike | None = None,
    clusters: Sequence[str] | NDArray[np.str_] | None = None,
) -> ConformalTable:
    """Calibrate every cell of a partition by itself, so that coverage holds within each.

    Parameters
    ----------
    scores : array_like, shape (n,)
        Scores |r|/σ of the calibration rows.
    groups : sequence of str, shape (n,), or None
        Cell of each row (Mondrian taxonomy: each row in one cell). None: overall quantiles only.
    levels : float or sequence of float
        Nominal coverages.
    minimum : int
        Cells with fewer rows fall back to the parent: all rows together.
    weights : array_like, shape (n,), optional
        Row weights (:func:`weighted_conformal_quantile`); equal by default.
    clusters : sequence of str, shape (n,), optional
        Composition of each row. What is new to the head is then a composition and not one more row, so the
        finite-sample correction counts compositions: room is kept for one more cluster of mean weight. Without
        it every row is a cluster.

    Returns
    -------
    ConformalTable
        Overall quantiles and those of the cells with at least ``minimum`` rows; ``inf`` where a level asks for
        more clusters than there are.

    References
    ----------
    Lee, Barber, Willett, arXiv:2306.06342 (hierarchical conformal prediction), here with rows in place of groups as
    the unit whose coverage is promised.
    """
    wanted = (float(levels),) if isinstance(levels, (int, float)) else tuple(float(x) for x in levels)
    s = _checked(scores, wanted[0])
    w = np.ones(s.size) if weights is None else np.asarray(weights, dtype=np.float64)
    c = np.arange(s.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]

    def quantiles(rows: NDArray[np.bool_]) -> list[float]:
        new = float(w[rows].sum()) / max(np.unique(c[rows]).size, 1)
        return [weighted_conformal_quantile(s[rows], w[rows], level, new) for level in wanted]

    cells: list[str] = []
    rows: list[list[float]] = []
    counts: list[int] = []
    if groups is not None:
        labels = np.array([str(group) for group in groups], dtype=np.str_)
        if labels.shape != s.shape:
            raise HeadError(
                f"Expected one group per score, got {labels.size} groups for {s.size} scores; align them."
            )
        for cell in np.unique(labels):
            inside = labels == cell
            if inside.sum() >= minimum:
                cells.append(str(cell))
                rows.append(quantiles(inside))
                counts.append(int(inside.sum()))
    return ConformalTable(
        levels=np.array(wanted, dtype=np.float64),
        quantiles=np.array(quantiles(np.ones(s.size, dtype=np.bool_))),
        n_scores=int(s.size),
        cells=tuple(cells),
        cell_quantiles=np.array(rows, dtype=np.float64).reshape(len(cells), len(wanted)),
        cell_counts=np.array(counts, dtype=np.int64),
    )
