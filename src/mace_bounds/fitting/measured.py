"""Labelled rows beside what a head said of them: the columns for it, and the coverage measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.bounds import IN_TRAINING
from mace_bounds.columns import MEV_PER_EV, bound_columns
from mace_bounds.metrics import (
    CalibrationCurve,
    clustered_interval,
    codes_of,
    coverage_table,
    element_membership,
    size_bins,
    violations,
    width_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import CalibratedHead

MINIMUM_HEADLINE = 30  # fewer rows than this cannot carry the headline
MINIMUM_GROUP = 10
SUSPECT = "suspect_label"
_ROUND_OFF = 1e-9  # shares of the scores are sums of many weights
CURVE_LEVELS = tuple(round(0.02 * k, 2) for k in range(1, 50))
UNSEEN, NEW_TO_HEAD, ALL = "unseen", "new_to_head", "all"
ROLES_OF = {UNSEEN: ("unseen",), NEW_TO_HEAD: ("unseen", "model_training")}
WHAT = {
    UNSEEN: "of compositions that nothing was trained on",
    NEW_TO_HEAD: "of compositions that the head has not used",
}
USED = {
    "model_training": "only in the model's own training",
    "fit": "in the fit of the head",
    "calibration": "in its calibration",
}


@dataclass(frozen=True, eq=False)
class Measured:
    """Labelled rows with their bounds; energies in eV/atom.

    Attributes
    ----------
    table : DataFrame
        Rows of :func:`detailed_table` that have a label, a fresh index.
    levels : tuple of float
        Nominal coverages.
    name : str
        What the rows are: ``"unseen"``, ``"new_to_head"`` or ``"all"``.
    """

    table: pd.DataFrame
    levels: tuple[float, ...]
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

    @property
    def error(self) -> NDArray[np.float64]:
        """E_DFT - E_MACE, shape (n,), eV/atom."""
        return self.column("error")

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Error less the centre of the interval, shape (n,), eV/atom."""
        return self.error - self.column("expected_error")

    @property
    def clusters(self) -> NDArray[np.int64]:
        """A number for the composition of each row, shape (n,)."""
        return codes_of(self.table["formula"].tolist())

    @property
    def n_in_training(self) -> int:
        """How many rows have a composition that the model's own training has seen."""
        return int(self.table["flags"].str.contains(IN_TRAINING, regex=False, na=False).sum())

    def only(self, name: str) -> Measured:
        """The rows that go by a name of ``ROLES_OF``; every row for any other name."""
        if name not in ROLES_OF:
            return self
        mask = self.table["seen_in"].isin(ROLES_OF[name]).to_numpy()
        return Measured(_chosen(self.table, mask), self.levels, name)


def labelled(table: pd.DataFrame, levels: Sequence[float], *, suspect: bool = False) -> Measured:
    """Rows with a label; those whose label is suspect only on request."""
    doubtful = table["flags"].str.contains(SUSPECT, regex=False, na=False)
    keep = (table["error_mev_per_atom"].notna() & (suspect | ~doubtful)).to_numpy()
    return Measured(_chosen(table, keep), tuple(levels))


def _chosen(table: pd.DataFrame, keep: NDArray[np.bool_]) -> pd.DataFrame:
    """Some rows with a fresh index; the table itself where these are all."""
    return table if keep.all() else table[keep].reset_index(drop=True)


def headline_rows(head: CalibratedHead) -> str:
    """Name of the rows that measure a head.

    Those of compositions that nothing was trained on; where the head's own data may have been in the model's
    training, those of every composition that the head has not used.
    """
    return NEW_TO_HEAD if head.provenance.get("includes_training") else UNSEEN


def headline(rows: Measured, head: CalibratedHead) -> Measured:
    """The rows that measure a head, where there are enough of them; else all rows."""
    chosen = rows.only(headline_rows(head))
    return chosen if len(chosen) >= MINIMUM_HEADLINE else rows


def sentence(chosen: Measured, roles: dict[str, int], head: CalibratedHead) -> str:
    """Say what the rows of :func:`headline` are, and what the other labelled rows were used for.

    Parameters
    ----------
    chosen : Measured
    roles : dict of str to int
        Labelled rows by role (:meth:`CalibratedHead.roles`), chosen or not.
    head : CalibratedHead
    """
    wanted = headline_rows(head)
    inside = ROLES_OF.get(chosen.name, ())
    others = "; ".join(f"{roles[k]:,} {text}" for k, text in USED.items() if roles.get(k) and k not in inside)
    if chosen.name != ALL:
        tail = f" ({others}: reported apart)" if others else ""
        what = WHAT[wanted if training_known(head) else NEW_TO_HEAD]
        return f"{len(chosen):,} labelled structures {what}{_known_to_model(chosen, head)}{tail}"
    free = sum(roles.get(role, 0) for role in ROLES_OF[wanted])
    wanted = wanted if training_known(head) else NEW_TO_HEAD
    tail = f" ({others}): this does not measure coverage on new crystals" if others else ""
    if not free:
        return (
            f"all {len(chosen):,} labelled structures, every one of a composition that was used before{tail}"
        )
    return f"all {len(chosen):,} labelled structures, of which only {free:,} are {WHAT[wanted]}{tail}"


def training_known(head: CalibratedHead) -> bool:
    """Whether it was known, when a head was made, which compositions its model was trained on."""
    return bool(head.provenance.get("training_compositions_known", True))


def _known_to_model(chosen: Measured, head: CalibratedHead) -> str:
    if not training_known(head) and not head.provenance.get("published"):
        return "; which of them the model's own training has seen is not known here"
    if chosen.name != NEW_TO_HEAD:
        return ""
    if head.provenance.get("published"):
        return "; which of them the model that published the energies was trained on is not known here"
    seen = chosen.n_in_training
    share = {0: "none", len(chosen): "all"}.get(seen, f"{seen:,}")
    return f"; {share} of them have compositions that the model's own training has seen"


def coverage(rows: Measured, *, minimum: int = MINIMUM_GROUP) -> pd.DataFrame:
    """Coverage at every level, overall and by group, with confidence intervals clustered by composition.

    Parameters
    ----------
    rows : Measured
    minimum : int
        Groups with fewer rows are left out; the overall lines never are.

    Returns
    -------
    DataFrame
        :func:`mace_bounds.metrics.coverage_table` with the column ``rows`` in front.
    """
    import pandas as pd

    table = rows.table
    by: dict[str, Any] = {
        "source": table["source"].to_numpy(dtype=object),
        "chemistry": table["chemistry"].to_numpy(dtype=object),
        "element": element_membership(table["chemical_system"].tolist()),
        "size": size_bins(table["n_atoms"].to_numpy(dtype=int)),
        "run_type": [value if isinstance(value, str) else None for value in table["run_type"]],
        "seen_in": table["seen_in"].to_numpy(dtype=object),
    }
    low, high = rows.bounds()
    clusters = rows.clusters
    everything = coverage_table(rows.error, low, high, rows.levels, clusters=clusters)
    groups = coverage_table(rows.error, low, high, rows.levels, by=by, clusters=clusters, minimum=minimum)
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
    low, high = rows.bounds()
    at = int(np.argmin(np.abs(np.array(rows.levels) - level)))
    out = violations(rows.table["id"].tolist(), rows.error, low[:, at], high[:, at])
    for place, name in enumerate(("formula", "n_atoms", "source", "run_type", "seen_in", "flags"), 1):
        out.insert(place, name, rows.table[name].to_numpy()[out.index])
    return out.reset_index(drop=True)
