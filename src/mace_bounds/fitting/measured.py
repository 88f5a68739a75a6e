"""Labelled rows beside what a head said of them: the columns for it, and the coverage measured on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds import IN_TRAINING, SUSPECT
from mace_bounds.calibration import CalibratedHead
from mace_bounds.columns import MEV_PER_EV, bound_columns
from mace_bounds.fitting.exposure import (
    ALL,
    SEEN_IN_TEXT,
    SUBSET_TEXT,
    SUBSET_TITLE,
    SUBSETS,
    UNKNOWN,
    TrainingExposure,
)
from mace_bounds.levels import LEVELS, Levels
from mace_bounds.metrics import (
    CalibrationCurve,
    Labels,
    clustered_interval,
    codes_of,
    coverage_table,
    element_membership,
    size_bins,
    violations,
    width_metrics,
)

if TYPE_CHECKING:
    import pandas as pd

MIN_ROWS_MEASURED = 30
"""Fewer new structures than this measure nothing: then all labelled ones are counted, and it is said."""
MIN_ROWS_PER_GROUP = 10
_ROUND_OFF = 1e-9  # shares of the scores are sums of many weights
CURVE_LEVELS = tuple(sorted({*(round(0.02 * k, 2) for k in range(1, 50)), *LEVELS}))
GROUPINGS = {
    "source": "Source",
    "chemistry": "Chemistry",
    "element": "Element",
    "chemical_system": "Chemical system",
    "size": "Size of the cell",
    "run_type": "Run type",
    "seen_in": "Seen before",
    "space_group": "Space group (spglib, 0.01 Å)",
    "crystal_system": "Crystal system",
    "density": "Density",
    "volume_per_atom": "Volume per atom",
    "hull_distance": "Distance from the hull",
}
"""Titles of everything that coverage is grouped by."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Labelled rows with their bounds; energies in eV/atom.

    Attributes
    ----------
    table : DataFrame
        Rows of :func:`mace_bounds.bounds.detailed_table` that have a label, a fresh index.
    levels : Levels
        Nominal coverages.
    name : str
        What the rows are: ``"unseen"``, ``"new_to_head"`` or ``"all"``.
    """

    table: pd.DataFrame
    levels: Levels
    name: str = ALL

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column ``NAME_mev_per_atom`` in eV/atom."""
        values = self.table[f"{name}_mev_per_atom"].to_numpy(dtype=np.float64)
        return np.asarray(values / MEV_PER_EV)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bounds, each of shape (n, n_levels), eV/atom."""
        pairs = [bound_columns(level) for level in self.levels]
        low = self.table[[a for a, _ in pairs]].to_numpy(dtype=np.float64) / MEV_PER_EV
        high = self.table[[b for _, b in pairs]].to_numpy(dtype=np.float64) / MEV_PER_EV
        return low, high

    def bounds_at(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bounds at one level, each of shape (n,), eV/atom; HeadError if it is not among them."""
        place = self.levels.index(level)
        low, high = self.bounds()
        return low[:, place], high[:, place]

    @cached_property
    def error(self) -> NDArray[np.float64]:
        """E_DFT - E_model, shape (n,), eV/atom."""
        return self.column("error")

    @cached_property
    def deviation(self) -> NDArray[np.float64]:
        """Error less the expected error, which is the centre of the interval, shape (n,), eV/atom."""
        return self.error - self.column("expected_error")

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """A number for the composition of each row, shape (n,)."""
        return codes_of(self.table["formula"].tolist())

    @cached_property
    def largest_composition(self) -> tuple[str, int]:
        """The composition with the most rows, and their number."""
        counts = self.table["formula"].value_counts()
        return str(counts.index[0]), int(counts.iloc[0])

    @cached_property
    def n_in_training(self) -> int:
        """How many rows have a composition that the model's own training has seen."""
        return int(self.table["flags"].str.contains(IN_TRAINING, regex=False, na=False).sum())

    @property
    def title(self) -> str:
        """What the rows are, for the title of a plot."""
        known = f"\n({self.n_in_training:,} known to the model)" if self.n_in_training else ""
        return SUBSET_TITLE[self.name] + known

    def only(self, name: str) -> Measured:
        """The rows of a subset of :data:`mace_bounds.fitting.exposure.SUBSETS`; every row for any other name."""
        if name not in SUBSETS:
            return self
        mask = self.table["seen_in"].isin(SUBSETS[name]).to_numpy(dtype=bool)
        return Measured(_chosen(self.table, mask), self.levels, name)


def labelled(table: pd.DataFrame, levels: Levels, *, suspect: bool = False) -> Measured:
    """Rows with a label; those whose label is suspect only on request."""
    doubtful = table["flags"].str.contains(SUSPECT, regex=False, na=False)
    keep = (table["error_mev_per_atom"].notna() & (suspect | ~doubtful)).to_numpy(dtype=bool)
    return Measured(_chosen(table, keep), levels)


def _chosen(table: pd.DataFrame, keep: NDArray[np.bool_]) -> pd.DataFrame:
    """Some rows with a fresh index; the table itself where these are all."""
    return table if keep.all() else table[keep].reset_index(drop=True)


def evaluation_subset(rows: Measured, head: CalibratedHead) -> Measured:
    """The rows that measure a head on new compositions, where there are enough of them; else all rows."""
    chosen = rows.only(exposure_of(rows, head).evaluation_subset)
    return chosen if len(chosen) >= MIN_ROWS_MEASURED else rows


def exposure_of(rows: Measured, head: CalibratedHead) -> TrainingExposure:
    """What rows have to do with the training of the model."""
    exposure = TrainingExposure.of_head(head.provenance).of_rows(len(rows), rows.n_in_training)
    roles = set(rows.table["seen_in"])
    if UNKNOWN in roles:
        return replace(exposure, known=False)
    # what a head was made without knowing can have been said since
    return replace(exposure, known=exposure.known or bool(roles & {"unseen", "model_training"}))


def sentence(chosen: Measured, seen_in: dict[str, int], head: CalibratedHead) -> str:
    """Say what the rows of :func:`evaluation_subset` are, and what the other labelled rows were used for.

    Parameters
    ----------
    chosen : Measured
    seen_in : dict of str to int
        Labelled rows by what their composition was used for (:meth:`CalibratedHead.roles`), chosen or not.
    head : CalibratedHead
    """
    exposure = exposure_of(chosen, head)
    wanted = exposure.evaluation_subset
    inside = SUBSETS.get(chosen.name, ("unseen", UNKNOWN))
    others = "; ".join(
        f"{seen_in[k]:,} {text}" for k, text in SEEN_IN_TEXT.items() if seen_in.get(k) and k not in inside
    )
    if chosen.name != ALL:
        tail = f" ({others}: reported separately)" if others else ""
        return f"{len(chosen):,} labelled structures {SUBSET_TEXT[wanted]}{exposure.clause()}{tail}"
    free = sum(seen_in.get(role, 0) for role in SUBSETS[wanted])
    tail = f" ({others}): this does not measure coverage on new crystals" if others else ""
    if not free:
        return (
            f"all {len(chosen):,} labelled structures, every one of a composition that was used before{tail}"
        )
    return f"all {len(chosen):,} labelled structures, of which only {free:,} are {SUBSET_TEXT[wanted]}{tail}"


def groupings(table: pd.DataFrame, names: Iterable[str]) -> dict[str, Labels]:
    """Label rows by columns that every bounds table has; a column that is empty makes no groups.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`mace_bounds.bounds.detailed_table`.
    names : iterable of str
        ``element``, ``size``, or a column of text.
    """
    by: dict[str, Labels] = {}
    for name in names:
        if name == "element":
            by[name] = element_membership(table["chemical_system"].tolist())
        elif name == "size":
            by[name] = size_bins(table["n_atoms"].to_numpy(dtype=int))
        elif name in table and table[name].notna().any():
            by[name] = [value if isinstance(value, str) else None for value in table[name]]
    return by


def coverage(rows: Measured) -> pd.DataFrame:
    """Coverage at every level, overall and by group, with confidence intervals clustered by composition.

    Parameters
    ----------
    rows : Measured
        Groups of fewer than :data:`MIN_ROWS_PER_GROUP` are left out; the overall lines never are.

    Returns
    -------
    DataFrame
        :func:`mace_bounds.metrics.coverage_table` with the column ``rows`` in front.
    """
    import pandas as pd

    by = groupings(rows.table, ("source", "chemistry", "element", "size", "run_type", "seen_in"))
    low, high = rows.bounds()
    clusters, levels = rows.clusters, rows.levels.values
    everything = coverage_table(rows.error, low, high, levels, clusters=clusters)
    least = MIN_ROWS_PER_GROUP
    groups = coverage_table(rows.error, low, high, levels, by=by, clusters=clusters, minimum=least)
    out = pd.concat([everything, groups[groups["by"] != "all"]], ignore_index=True)
    out.insert(0, "rows", rows.name)
    return out


def overall(table: pd.DataFrame, rows: str) -> list[dict[str, float]]:
    """Plain values of the overall coverage at each level, for JSON."""
    picked = table[(table["by"] == "all") & (table["rows"] == rows)]
    names = ["level", "coverage", "coverage_low", "coverage_high", "n"]
    names += ["mean_width_mev_per_atom", "median_width_mev_per_atom", "interval_score_mev_per_atom"]
    return [{name: _plain(row[name]) for name in names} for row in picked.to_dict("records")]


def _plain(value: Any) -> float:
    return int(value) if isinstance(value, (int, np.integer)) else round(float(value), 6)


def curve(rows: Measured, head: CalibratedHead) -> CalibrationCurve:
    """Measured coverage over a fine grid of levels; the band is clustered by composition.

    Levels that the head has too few scores for are left out.
    """
    least = rows.table["covered_above_level"].to_numpy(dtype=np.float64)
    clusters = rows.clusters
    points = []
    for level in (x for x in CURVE_LEVELS if np.isfinite(head.conformal.half_width(x))):
        inside = least < level - _ROUND_OFF
        points.append((level, float(inside.mean()), *clustered_interval(inside, clusters)))
    nominal, observed, low, high = np.array(points).reshape(-1, 4).T
    return CalibrationCurve(nominal, observed, low, high, len(rows))


def metrics(rows: Measured) -> dict[str, float]:
    """Quality of the widths (:class:`mace_bounds.metrics.WidthMetrics`) as plain values."""
    values = width_metrics(rows.deviation, rows.column("sigma")).as_dict()
    error = np.abs(rows.error) * MEV_PER_EV
    values |= {
        "model_mae_mev_per_atom": float(error.mean()),
        "model_median_mev_per_atom": float(np.median(error)),
    }
    return {name: _plain(value) for name, value in values.items()}


def violation_table(rows: Measured, level: float) -> pd.DataFrame:
    """Rows outside their interval at one level, worst first, with what a reader needs to look them up."""
    low, high = rows.bounds_at(level)
    out = violations(rows.table["id"].tolist(), rows.error, low, high)
    for place, name in enumerate(("formula", "n_atoms", "source", "run_type", "seen_in", "flags"), 1):
        out.insert(place, name, rows.table[name].to_numpy()[out.index])
    return out.reset_index(drop=True)
