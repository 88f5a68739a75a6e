"""Measured coverage with its confidence interval, overall and by group; and the rows it misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.columns import MEV_PER_EV
from mace_bounds.errors import HeadError
from mace_bounds.metrics.groups import Groups, Labels, codes_of, groups_of

if TYPE_CHECKING:
    import pandas as pd

FALSE_DISCOVERIES = 0.05
"""Expected share of chance among the groups that are called significant."""


def clopper_pearson(hits: ArrayLike, total: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact 95 % confidence interval of a binomial share.

    Parameters
    ----------
    hits, total : array_like, broadcastable
        Number of successes (may be fractional, for effective sample sizes) and of trials.

    Returns
    -------
    low, high : ndarray
        Bounds of the share; (0, 1) where ``total`` is zero.

    References
    ----------
    Clopper & Pearson, Biometrika 26, 404 (1934).
    """
    from scipy.stats import beta

    x, n = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(total, dtype=np.float64))
    if np.any(x < 0) or np.any(x > n):
        raise HeadError("hits are below zero or above the total; count again.")
    tail = 0.025  # on either side
    some, all_of_them = x > 0, x >= n
    low = np.where(some, beta.ppf(tail, np.where(some, x, 1.0), n - x + 1.0), 0.0)
    high = np.where(all_of_them, 1.0, beta.ppf(1.0 - tail, x + 1.0, np.where(all_of_them, 1.0, n - x)))
    return low, high


def clustered_interval(hit: ArrayLike, clusters: Sequence[str] | NDArray[np.generic]) -> tuple[float, float]:
    """95 % confidence interval of a coverage whose rows come in clusters (several crystals of one composition).

    The number of rows is replaced by the effective number n / deff, deff = Var_clustered / Var_binomial >=
    1, and Clopper–Pearson is taken there.

    Parameters
    ----------
    hit : array_like of bool, shape (n,)
        Whether the row lies in its interval.
    clusters : sequence, shape (n,)
        Cluster of each row.

    Returns
    -------
    low, high : float

    References
    ----------
    Korn & Graubard, Survey Methodology 24, 193 (1998).
    """
    inside = np.asarray(hit, dtype=np.float64)
    if inside.size == 0:
        return 0.0, 1.0
    effective = effective_number(inside, clusters)
    low, high = clopper_pearson(float(inside.mean()) * effective, effective)
    return float(low), float(high)


def effective_number(hit: ArrayLike, clusters: Sequence[str] | NDArray[np.generic]) -> float:
    """Number of independent rows that would know a share as well as rows that come in clusters do.

    Parameters
    ----------
    hit : array_like of bool, shape (n,)
        Whether the row lies in its interval; at least one row.
    clusters : sequence, shape (n,)
        Cluster of each row.

    Returns
    -------
    float
        At most n; the number of clusters where all rows agree.
    """
    inside = np.asarray(hit, dtype=np.float64)
    n, share = inside.size, float(inside.mean())
    variance, n_clusters = clustered_variance(inside, clusters)
    effective = float(n_clusters)
    if 0.0 < share < 1.0 and n_clusters > 1:
        effective = min(float(n), share * (1.0 - share) / variance) if variance > 0 else float(n)
    return effective


def clustered_variance(
    values: NDArray[np.float64], clusters: Sequence[str] | NDArray[np.generic]
) -> tuple[float, int]:
    """Variance of the mean of rows that come in clusters, by the jackknife over clusters; and their number.

    The usual sandwich is far too small where one cluster holds most rows: the mean is then that cluster's own.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    clusters : sequence, shape (n,)

    Returns
    -------
    (float, int)
        NaN for a single cluster.

    References
    ----------
    Cameron & Miller, J. Hum. Resour. 50, 317 (2015), CV3.
    """
    _, code, size = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    k = len(size)
    if k < 2:
        return np.nan, k
    moved = np.bincount(code, weights=values - values.mean()) / (len(values) - size)
    return (k - 1) / k * float(moved @ moved), k


def coverage_p_value(
    inside: NDArray[np.bool_], clusters: Sequence[str] | NDArray[np.generic] | None, level: float
) -> float:
    """Two-sided p-value of a measured coverage against the level.

    Clopper and Pearson's binomial test at the effective number of rows (:func:`effective_number`), or at that of rows
    without clusters.
    """
    from scipy.special import betainc

    n = float(len(inside)) if clusters is None else effective_number(inside, clusters)
    hits = float(inside.mean()) * n
    above = betainc(hits, n - hits + 1.0, level) if hits > 0 else 1.0
    below = betainc(n - hits, hits + 1.0, 1.0 - level) if hits < n else 1.0
    return float(min(1.0, 2.0 * min(above, below)))


def discoveries(p_values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which tests stand when at most 5 % of those that stand may be chance.

    References
    ----------
    Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995).
    """
    from scipy.stats import false_discovery_control

    if not len(p_values):
        return np.zeros(0, dtype=bool)
    return np.asarray(false_discovery_control(p_values) <= FALSE_DISCOVERIES)


def interval_score(
    residual: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float
) -> NDArray[np.float64]:
    """Interval score of each row, in the unit of the residual: width plus 2/(1 - level) times the excess.

    Parameters
    ----------
    residual, lower, upper : array_like, shape (n,)
        Residual and bounds of its interval.
    level : float
        Nominal coverage.

    Returns
    -------
    ndarray, shape (n,)
        Lower is better; ``inf`` for an interval without limits.

    References
    ----------
    Gneiting & Raftery, JASA 102, 359 (2007), equation 43.
    """
    r, low, high = (np.asarray(a, dtype=np.float64) for a in (residual, lower, upper))
    out = np.full(r.shape, np.inf)
    finite = np.isfinite(low) & np.isfinite(high)
    if finite.any():
        r, low, high = r[finite], low[finite], high[finite]
        excess = np.maximum(low - r, 0.0) + np.maximum(r - high, 0.0)
        out[finite] = high - low + 2.0 / (1.0 - level) * excess
    return out


def coverage_table(
    residual: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    nominal: float | Sequence[float],
    by: Mapping[str, Labels | Groups] | None = None,
    *,
    clusters: Sequence[str] | NDArray[np.generic] | None = None,
    minimum: int = 1,
) -> pd.DataFrame:
    """Measure coverage overall and by group.

    Parameters
    ----------
    residual : array_like, shape (n,)
        E_DFT - E_model per atom, eV/atom.
    lower, upper : array_like, shape (n,) or (n, n_levels)
        Bounds of the residual, eV/atom.
    nominal : float or sequence of float, n_levels
        Nominal coverage of each column of bounds.
    by : mapping of str to labels, optional
        Groupings: one label per row, a set of labels per row (elements), a :class:`Membership` or :class:`Groups`.
    clusters : sequence, shape (n,), optional
        Composition of each row: confidence intervals then allow for rows that share one
        (:func:`clustered_interval`). Without it rows count as independent.
    minimum : int
        Groups with fewer rows are left out.

    Returns
    -------
    DataFrame
        One row per grouping, group and level with the columns of :data:`COVERAGE_COLUMNS`; the first rows have
        ``by = "all"``. ``n_compositions`` counts the clusters; ``significant`` says whether the coverage differs from
        the level beyond chance: for groups by :func:`discoveries` over all groups of a level, overall by a p-value
        below 5 %.
    """
    import pandas as pd

    r = np.asarray(residual, dtype=np.float64)
    levels = np.atleast_1d(np.asarray(nominal, dtype=np.float64))
    low, high = (np.asarray(a, dtype=np.float64).reshape(len(r), -1) for a in (lower, upper))
    _check_bounds(r, low, high, levels)
    hit = (low <= r[:, None]) & (r[:, None] <= high)
    width = high - low
    score = np.column_stack([interval_score(r, low[:, j], high[:, j], x) for j, x in enumerate(levels)])
    cluster = None if clusters is None else codes_of(clusters)
    rows: list[dict[str, object]] = []
    for name, group, chosen in _groups(by or {}, len(r)):
        n = len(chosen)
        if n < minimum or n == 0:
            continue
        for j, level in enumerate(levels):
            inside, members = hit[chosen, j], None if cluster is None else cluster[chosen]
            if members is None:
                bounds = tuple(float(b) for b in clopper_pearson(inside.sum(), n))
            else:
                bounds = clustered_interval(inside, members)
            rows.append(
                {
                    "by": name,
                    "group": group,
                    "level": float(level),
                    "coverage": float(inside.mean()),
                    "coverage_low": bounds[0],
                    "coverage_high": bounds[1],
                    "n": n,
                    "n_compositions": n if members is None else len(np.unique(members)),
                    "mean_width_mev_per_atom": float(width[chosen, j].mean()) * MEV_PER_EV,
                    "median_width_mev_per_atom": float(np.median(width[chosen, j])) * MEV_PER_EV,
                    "interval_score_mev_per_atom": float(score[chosen, j].mean()) * MEV_PER_EV,
                    "p_value": coverage_p_value(inside, members, float(level)),
                }
            )
    table = pd.DataFrame(rows, columns=list(COVERAGE_COLUMNS))
    return table.assign(significant=beyond_chance(table, "p_value"))


def beyond_chance(table: pd.DataFrame, p_value: str) -> NDArray[np.bool_]:
    """Which rows of a table of groups and levels are beyond chance, by their column of p-values.

    Groups by :func:`discoveries` over all groups of a level; rows with ``by = "all"`` where the p-value is below 5 %.
    A row without a p-value is not.
    """
    p = table[p_value].to_numpy(dtype=np.float64)
    overall, levels = (table["by"] == "all").to_numpy(), table["level"].to_numpy(dtype=np.float64)
    found = overall & (p < FALSE_DISCOVERIES)
    for level in np.unique(levels):
        tested = ~overall & (levels == level) & np.isfinite(p)
        found[tested] = discoveries(p[tested])
    return found


COVERAGE_COLUMNS: tuple[str, ...] = (
    "by",
    "group",
    "level",
    "coverage",
    "coverage_low",
    "coverage_high",
    "n",
    "n_compositions",
    "mean_width_mev_per_atom",
    "median_width_mev_per_atom",
    "interval_score_mev_per_atom",
    "p_value",
    "significant",
)


def _check_bounds(
    r: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], levels: NDArray[np.float64]
) -> None:
    if low.shape != (len(r), levels.size) or high.shape != low.shape:
        raise HeadError(
            f"bounds have the shapes {low.shape} and {high.shape}, not {(len(r), levels.size)}; align them."
        )
    if not (np.all(np.isfinite(r)) and np.all(low <= high)):
        raise HeadError(
            "residuals must be finite and lower bounds below upper ones; drop unlabelled rows first."
        )


def _groups(by: Mapping[str, Labels | Groups], n: int) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    yield "all", "all", np.arange(n)
    for name, labels in by.items():
        groups = groups_of(labels)
        if groups.n_rows != n:
            raise HeadError(f"there are {groups.n_rows} labels of {name} for {n} rows; align them.")
        for group, rows in zip(groups.names, groups.rows, strict=True):
            yield name, group, rows


def violations(ids: Sequence[str], residual: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> pd.DataFrame:
    """List the rows outside their interval, worst first: the model fails there, or the label is suspect.

    Parameters
    ----------
    ids : sequence of str, shape (n,)
        Identifiers.
    residual, lower, upper : array_like, shape (n,)
        Residual and bounds, eV/atom.

    Returns
    -------
    DataFrame
        ``id, residual_mev_per_atom, lower_mev_per_atom, upper_mev_per_atom, excess_mev_per_atom,
        excess_half_widths``: distance to the nearer bound, also in half-widths of the interval. The index
        is the row's position in the input.
    """
    import pandas as pd

    r, low, high = (np.asarray(a, dtype=np.float64) for a in (residual, lower, upper))
    _check_bounds(r, low[:, None], high[:, None], np.ones(1))
    excess = np.maximum(low - r, r - high)
    outside = np.flatnonzero(excess > 0)
    half = np.maximum(0.5 * (high - low), np.finfo(np.float64).tiny)
    relative = excess[outside] / half[outside]
    order = np.argsort(-relative, kind="stable")
    outside, relative = outside[order], relative[order]
    return pd.DataFrame(
        {
            "id": [str(ids[int(i)]) for i in outside],
            "residual_mev_per_atom": r[outside] * MEV_PER_EV,
            "lower_mev_per_atom": low[outside] * MEV_PER_EV,
            "upper_mev_per_atom": high[outside] * MEV_PER_EV,
            "excess_mev_per_atom": excess[outside] * MEV_PER_EV,
            "excess_half_widths": relative,
        },
        index=pd.Index(outside),
    )
