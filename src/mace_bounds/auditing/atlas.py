"""The coverage atlas: coverage, width and bias by everything that is known of a structure, and what of it is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.bounds import DENSITY, HULL, SPACE_GROUP, VOLUME
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.metrics import (
    Groups,
    clustered_variance,
    coverage_table,
    effective_number,
    element_membership,
    groups_of,
    size_bins,
    worst_slab_coverage,
)
from mace_bounds.structures import crystal_system

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.fitting import Measured

    Array = NDArray[np.float64]

MINIMUM = 10
FALSE_DISCOVERIES = 0.05
_BINNED = {
    DENSITY: ("density", "g/cm³"),
    VOLUME: ("volume_per_atom", "Å³"),
    HULL: ("hull_distance", "eV/atom"),
}
_LEAST_SLAB = 100


def groupings(table: pd.DataFrame) -> dict[str, Groups]:
    """Every grouping that the columns allow: element, chemistry, system, symmetry, size, run type, bins."""
    by: dict[str, Any] = {
        "element": element_membership(table["chemical_system"].tolist()),
        "chemistry": table["chemistry"].to_numpy(dtype=object),
        "chemical_system": table["chemical_system"].to_numpy(dtype=object),
        "size": size_bins(table["n_atoms"].to_numpy(dtype=int)),
    }
    if table["run_type"].notna().any():
        by["run_type"] = _texts(table["run_type"])
    if SPACE_GROUP in table and table[SPACE_GROUP].notna().any():
        by[SPACE_GROUP] = _texts(table[SPACE_GROUP])
        by["crystal_system"] = [group and crystal_system(group) for group in by[SPACE_GROUP]]
    for column, (name, unit) in _BINNED.items():
        if column in table and table[column].notna().any():
            by[name] = range_bins(table[column].to_numpy(dtype=np.float64), unit)
    return {name: groups_of(labels) for name, labels in by.items()}


def _texts(column: pd.Series[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def range_bins(values: Array, unit: str, n_bins: int = 4) -> list[str | None]:
    """Bins of about equal counts, named by their place and range: ``"1/4: 0.5 to 2.3 g/cm³"``; None without a value.

    Equal values share a bin, so that there are fewer bins where one value is frequent: of distances from the hull, half
    of them zero, ``"1/3: 0 eV/atom"``, ``"2/3: 0.002 to 0.05 eV/atom"`` and ``"3/3: 0.051 to 0.8 eV/atom"``.
    """
    finite = np.isfinite(values)
    known = values[finite]
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1)[1:-1]))
    filled, place = np.unique(np.searchsorted(cuts, known, side="left"), return_inverse=True)
    names = []
    for i in range(len(filled)):
        low, high = known[place == i].min(), known[place == i].max()
        names.append(f"{i + 1}/{len(filled)}: {low:.3g}{f' to {high:.3g}' if high > low else ''} {unit}")
    told: list[str | None] = [None] * len(values)
    for row, i in zip(np.flatnonzero(finite), place, strict=True):
        told[row] = names[i]
    return told


def atlas_table(rows: Measured, *, minimum: int = MINIMUM) -> pd.DataFrame:
    """Coverage, width and bias by group at every level.

    Parameters
    ----------
    rows : Measured
        Labelled rows; columns of :data:`mace_bounds.bounds.geometry.GEOMETRY` that are not empty join the groupings.
    minimum : int
        Groups with fewer rows are left out.

    Returns
    -------
    DataFrame
        :func:`mace_bounds.metrics.coverage_table` with ``n_compositions``; ``p_value``, two-sided, of the
        coverage against the nominal one (Clopper–Pearson at the effective number of rows); ``significant`` after
        Benjamini and Hochberg over all groups of a level, of which at most 5 % are then expected to be chance;
        ``bias_mev_per_atom``, the mean signed error E_DFT - E_model, its standard error by the jackknife
        over compositions, and ``bias_significant`` in the same sense.

    References
    ----------
    Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995); under positive dependence Benjamini & Yekutieli, Ann.
    Stat. 29, 1165 (2001).
    """
    by = groupings(rows.table)
    low, high = rows.bounds()
    error, clusters = rows.error, rows.clusters
    out = coverage_table(error, low, high, rows.levels, by=by, clusters=clusters, minimum=minimum)
    inside = (low <= error[:, None]) & (error[:, None] <= high)
    level = {x: j for j, x in enumerate(rows.levels)}
    chosen = {("all", "all"): np.arange(len(rows))}
    chosen |= {
        (name, g): members
        for name, groups in by.items()
        for g, members in zip(groups.names, groups.rows, strict=True)
        if len(members) >= minimum
    }
    facts = {key: _bias(error[members], clusters[members]) for key, members in chosen.items()}
    keys = list(zip(out["by"], out["group"], strict=True))
    out["n_compositions"] = [facts[key]["n_compositions"] for key in keys]
    out["p_value"] = [
        coverage_p_value(inside[chosen[key], level[x]], clusters[chosen[key]], x)
        for key, x in zip(keys, out["level"], strict=True)
    ]
    for name in ("bias_mev_per_atom", "bias_standard_error_mev_per_atom", "bias_p_value"):
        out[name] = [facts[key][name] for key in keys]
    for p, name in (("p_value", "significant"), ("bias_p_value", "bias_significant")):
        out[name] = False
        for x in rows.levels:
            tested = ((out["level"] == x) & (out["by"] != "all") & out[p].notna()).to_numpy()
            out.loc[tested, name] = discoveries(out.loc[tested, p].to_numpy(dtype=np.float64))
    return out


def coverage_p_value(inside: NDArray[np.bool_], clusters: NDArray[np.generic], nominal: float) -> float:
    """Two-sided p-value of a measured coverage against the nominal one, rows clustered."""
    from scipy.special import betainc

    n = effective_number(inside, clusters)
    hits = float(inside.mean()) * n
    above = betainc(hits, n - hits + 1.0, nominal) if hits > 0 else 1.0
    below = betainc(n - hits, hits + 1.0, 1.0 - nominal) if hits < n else 1.0
    return float(min(1.0, 2.0 * min(above, below)))


def discoveries(p_values: Array) -> NDArray[np.bool_]:
    """Which tests stand when at most 5 % of those that stand may be chance (Benjamini and Hochberg)."""
    from scipy.stats import false_discovery_control

    if not len(p_values):
        return np.zeros(0, dtype=bool)
    return np.asarray(false_discovery_control(p_values) <= FALSE_DISCOVERIES)


def _bias(error: Array, clusters: NDArray[np.int64]) -> dict[str, float]:
    """Mean signed error, with its standard error by the jackknife over clusters."""
    from scipy.stats import t

    variance, k = clustered_variance(error, clusters)
    spread = float(np.sqrt(variance))
    p = float(2 * t.sf(abs(error.mean()) / spread, k - 1)) if spread > 0 else np.nan
    return {
        "n_compositions": k,
        "bias_mev_per_atom": float(error.mean()) * MEV_PER_EV,
        "bias_standard_error_mev_per_atom": spread * MEV_PER_EV,
        "bias_p_value": p,
    }


def worst_slab(rows: Measured, level: float) -> float | None:
    """Coverage on the worst tenth that a cut through size, novelty, width and composition finds; None for few rows."""
    if len(rows) < _LEAST_SLAB:
        return None
    low, high = rows.bounds()
    at = int(np.argmin(np.abs(np.array(rows.levels) - level)))
    inside = (low[:, at] <= rows.error) & (rows.error <= high[:, at])
    table = rows.table
    elements = element_membership(table["chemical_system"].tolist()).matrix
    columns = np.empty((len(table), 3 + elements.shape[1]), dtype=np.float32)  # the largest array of an audit
    columns[:, 0] = np.log(table["n_atoms"].to_numpy(dtype=np.float64))
    columns[:, 1] = np.log(rows.column("sigma"))
    columns[:, 2] = np.log1p(table["extrapolation_grade"].to_numpy(dtype=np.float64))
    columns[:, 3:] = elements
    return worst_slab_coverage(inside, columns)
