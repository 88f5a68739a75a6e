"""The coverage atlas: coverage, width and bias by everything that is known of a structure, and what of it is chance.

Groups of structures, and the error that each element brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds import SPACE_GROUP
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.fitting import MIN_ROWS_PER_GROUP, Measured
from mace_bounds.fitting import groupings as plain_groupings
from mace_bounds.metrics import (
    Groups,
    beyond_chance,
    clustered_variance,
    coverage_table,
    discoveries,
    element_membership,
    groups_of,
    worst_slab_coverage,
)
from mace_bounds.structures import crystal_system

if TYPE_CHECKING:
    import pandas as pd

    Array = NDArray[np.float64]

_BINNED = {
    "density_g_per_cm3": ("density", "g/cm³"),
    "volume_per_atom_a3": ("volume_per_atom", "Å³"),
    "hull_distance_ev_per_atom": ("hull_distance", "eV/atom"),
}
_N_BINS = 4
_MIN_ROWS_SLAB = 100
N_BOOTSTRAP = 300
_PENALTIES = np.logspace(-3, 3, 25)


def groupings(table: pd.DataFrame) -> dict[str, Groups]:
    """Every grouping that the columns allow: element, chemistry, system, symmetry, size, run type, bins."""
    by: dict[str, Any] = dict(
        plain_groupings(table, ("element", "chemistry", "chemical_system", "size", "run_type", SPACE_GROUP))
    )
    if SPACE_GROUP in by:
        by["crystal_system"] = [group and crystal_system(group) for group in by[SPACE_GROUP]]
    for column, (name, unit) in _BINNED.items():
        if column in table and table[column].notna().any():
            by[name] = range_bins(table[column].to_numpy(dtype=np.float64), unit)
    return {name: groups_of(labels) for name, labels in by.items()}


def range_bins(values: Array, unit: str) -> list[str | None]:
    """Bins of about equal counts, named by their place and range: ``"1/4: 0.5 to 2.3 g/cm³"``; None without a value.

    Equal values share a bin, so that there are fewer bins where one value is frequent: of distances from the hull, half
    of them zero, ``"1/3: 0 eV/atom"``, ``"2/3: 0.002 to 0.05 eV/atom"`` and ``"3/3: 0.051 to 0.8 eV/atom"``.
    """
    finite = np.isfinite(values)
    known = values[finite]
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, _N_BINS + 1)[1:-1]))
    filled, place = np.unique(np.searchsorted(cuts, known, side="left"), return_inverse=True)
    names = []
    for i in range(len(filled)):
        low, high = known[place == i].min(), known[place == i].max()
        names.append(f"{i + 1}/{len(filled)}: {low:.3g}{f' to {high:.3g}' if high > low else ''} {unit}")
    bins: list[str | None] = [None] * len(values)
    for row, i in zip(np.flatnonzero(finite), place, strict=True):
        bins[row] = names[i]
    return bins


def atlas_table(rows: Measured) -> pd.DataFrame:
    """Coverage, width and bias by group at every level.

    ``rows``: labelled rows; columns of :data:`mace_bounds.columns.GEOMETRY` that are not empty join the
    groupings. Groups of fewer than :data:`~mace_bounds.fitting.MIN_ROWS_PER_GROUP` rows are left out.
    Returns :func:`mace_bounds.metrics.coverage_table` with ``bias_mev_per_atom``, the mean signed error
    E_DFT - E_model, its standard error by the jackknife over compositions, and ``bias_significant``.

    References: Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995); under positive dependence Benjamini &
    Yekutieli, Ann. Stat. 29, 1165 (2001).
    """
    by = groupings(rows.table)
    low, high = rows.bounds()
    error, clusters = rows.error, rows.clusters
    least = MIN_ROWS_PER_GROUP
    out = coverage_table(error, low, high, rows.levels.values, by=by, clusters=clusters, minimum=least)
    chosen = {("all", "all"): np.arange(len(rows))}
    chosen |= {
        (name, g): members
        for name, groups in by.items()
        for g, members in zip(groups.names, groups.rows, strict=True)
        if len(members) >= least
    }
    facts = {key: _bias(error[members], clusters[members]) for key, members in chosen.items()}
    keys = list(zip(out["by"], out["group"], strict=True))
    for name in ("bias_mev_per_atom", "bias_standard_error_mev_per_atom", "bias_p_value"):
        out[name] = [facts[key][name] for key in keys]
    out["bias_significant"] = beyond_chance(out, "bias_p_value")
    return out


def _bias(error: Array, clusters: NDArray[np.int64]) -> dict[str, float]:
    """Mean signed error, with its standard error by the jackknife over clusters."""
    from scipy.stats import t

    variance, k = clustered_variance(error, clusters)
    spread = float(np.sqrt(variance))
    p = float(2 * t.sf(abs(error.mean()) / spread, k - 1)) if spread > 0 else np.nan
    return {
        "bias_mev_per_atom": float(error.mean()) * MEV_PER_EV,
        "bias_standard_error_mev_per_atom": spread * MEV_PER_EV,
        "bias_p_value": p,
    }


def worst_slab(rows: Measured, level: float) -> float | None:
    """Coverage on the worst tenth that a cut through size, novelty, width and composition finds; None for few rows."""
    if len(rows) < _MIN_ROWS_SLAB:
        return None
    low, high = rows.bounds_at(level)
    inside = (low <= rows.error) & (rows.error <= high)
    table = rows.table
    elements = element_membership(table["chemical_system"].tolist()).matrix
    columns = np.empty((len(table), 3 + elements.shape[1]), dtype=np.float32)  # the largest array of an audit
    columns[:, 0] = np.log(table["n_atoms"].to_numpy(dtype=np.float64))
    columns[:, 1] = np.log(rows.column("sigma"))
    columns[:, 2] = np.log1p(table["extrapolation_grade"].to_numpy(dtype=np.float64))
    columns[:, 3:] = elements
    return worst_slab_coverage(inside, columns)


def element_bias(formulas: Sequence[str], error: Array) -> pd.DataFrame:
    """Expected error of each element, so that a structure's is the mean over its atoms.

    ``formulas`` (n,): formulas of the labelled rows; ``error`` (n,): E_DFT - E_model per atom, eV/atom.
    Returns ``element, n, n_compositions, bias_mev_per_atom, standard_error_mev_per_atom, p_value,
    significant``; elements with little data are shrunk to zero by the penalty, which generalised
    cross-validation chooses; ``significant`` after Benjamini and Hochberg over the elements.

    References: Golub, Heath, Wahba, Technometrics 21, 215 (1979).
    """
    import pandas as pd
    from pymatgen.core import Composition
    from scipy.stats import norm

    names = sorted(set(formulas))
    place = {name: k for k, name in enumerate(names)}
    code = np.fromiter((place[name] for name in formulas), np.int64, len(formulas))
    known = [Composition(name).fractional_composition.get_el_amt_dict() for name in names]
    elements = sorted(set().union(*known)) if known else []
    total = np.bincount(code, weights=error).astype(np.float64)
    rows = _Compositions(known, elements, np.bincount(code).astype(np.float64), total)
    penalty = rows.penalty(error)
    ones = np.ones(len(names))
    bias = rows.ridge(ones, penalty)
    rng = np.random.default_rng(0)  # of the bootstrap over compositions
    draws = np.array(
        [rows.ridge(rng.multinomial(len(names), ones / len(names)), penalty) for _ in range(N_BOOTSTRAP)]
    )
    spread = draws.std(axis=0, ddof=1)
    p = 2 * norm.sf(np.abs(bias) / np.maximum(spread, np.finfo(float).tiny))
    return pd.DataFrame(
        {
            "element": elements,
            "n": rows.n,
            "n_compositions": rows.n_compositions,
            "bias_mev_per_atom": bias * MEV_PER_EV,
            "standard_error_mev_per_atom": spread * MEV_PER_EV,
            "p_value": p,
            "significant": discoveries(p),
        }
    )


class _Compositions:
    """Atomic fractions of the compositions, most of them zero, with the count and the summed error of their rows.

    Rows of one composition are equal but for their error, and a composition holds few of the elements: all sums of the
    regression take a few numbers for each composition.
    """

    def __init__(
        self, known: Sequence[Mapping[str, float]], elements: Sequence[str], count: Array, total: Array
    ) -> None:
        from scipy.sparse import csr_array

        column = {symbol: j for j, symbol in enumerate(elements)}
        ends = np.cumsum([0, *(len(fractions) for fractions in known)])
        columns = np.fromiter(
            (column[symbol] for fractions in known for symbol in fractions), np.int64, ends[-1]
        )
        values = np.fromiter(
            (share for fractions in known for share in fractions.values()), np.float64, ends[-1]
        )
        self._x = csr_array((values, columns, ends), shape=(len(known), len(elements)))
        self._count, self._total = count, total

    @property
    def n(self) -> NDArray[np.int64]:
        """Rows that hold each element."""
        return np.asarray((self._x > 0).T @ self._count).astype(np.int64)

    @property
    def n_compositions(self) -> NDArray[np.int64]:
        """Compositions that hold each element."""
        return np.asarray((self._x > 0).sum(axis=0)).astype(np.int64)

    def _sums(self, weights: NDArray[np.number[Any]]) -> tuple[Array, Array]:
        """``XᵀWX`` and ``XᵀWy`` over all rows, weighted by composition."""
        scaled = self._x.copy()
        scaled.data *= np.repeat(weights * self._count, np.diff(self._x.indptr))
        return (scaled.T @ self._x).toarray(), np.asarray(self._x.T @ (weights * self._total))

    def ridge(self, weights: NDArray[np.number[Any]], penalty: float) -> Array:
        """Coefficients of the elements."""
        gram, projected = self._sums(weights)
        return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), projected))

    def penalty(self, error: Array) -> float:
        """Penalty of least generalised cross-validation score."""
        gram, projected = self._sums(np.ones(len(self._count)))
        squares, vectors = np.linalg.eigh(gram)
        squares = np.maximum(squares, len(squares) * np.finfo(float).eps * squares.max())
        along = (vectors.T @ projected) ** 2 / squares  # of the error, along the left singular vectors
        rest = max(float(error @ error - along.sum()), 0.0)
        scores = []
        for penalty in _PENALTIES:
            kept = squares / (squares + penalty)
            scores.append((rest + np.sum((1 - kept) ** 2 * along)) / (len(error) - kept.sum()) ** 2)
        return float(_PENALTIES[int(np.argmin(scores))])
