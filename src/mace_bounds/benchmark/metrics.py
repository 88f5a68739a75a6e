"""What is measured of a method on one split, and tables of it over splits: mean, spread and pooled groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.config import REFERENCE
from mace_bounds.calibration import conformal_quantile, conformal_scores
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.metrics import Membership, crps_from_quantiles, interval_score, width_metrics

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.benchmark.baselines import Widths
    from mace_bounds.benchmark.methods import Bounds, Outcome, SplitData

ONE_SIGMA = 0.6826894921370859
"""Share of a normal distribution within one standard deviation: the half-width at this level is taken for one."""
SCORE_LEVEL = 0.95
FROM_WIDTHS = ("nll", "miscalibration_area", "ence", "ause", "spearman")
_QUANTILES = (np.arange(100) + 0.5) / 100  # of the forecast whose CRPS is taken
_SPREADS = np.round(np.abs(2.0 * _QUANTILES - 1.0), 2)

MIN_STRUCTURES_OF_WORST = 100
"""Distinct test structures that a group needs before it may be called the worst."""
SCORE, RATIO = "interval_score_95_mev_per_atom", "interval_score_ratio"
WORST = ("element", "size", "source")
_SAME_EVERYWHERE = ("split", "kind", "method", "n_fit", "n_calibration", "n_test")


def calibrated(outcome: Outcome, data: SplitData) -> Callable[[float], Bounds]:
    """Bounds of the test rows at any level.

    Where the method has no conformal layer of its own: split conformal, symmetric and weighted. What is new to a head
    is a composition and not one more row, so the finite-sample correction keeps room for one more group of mean weight.
    """
    if outcome.bounds is not None:
        return outcome.bounds
    rows, widths = data.calibration.plain, outcome.calibration
    scores = conformal_scores(rows.y - widths.centre, widths.sigma)
    new_weight = float(rows.weights.sum()) / max(np.unique(rows.groups).size, 1)
    centre, sigma = outcome.test.centre, outcome.test.sigma

    def bounds(level: float) -> Bounds:
        half = conformal_quantile(scores, level, rows.weights, new_weight) * sigma
        return centre - half, centre + half

    return bounds


def measure(
    y: NDArray[np.float64], widths: Widths, bounds: Callable[[float], Bounds], levels: Sequence[float]
) -> tuple[dict[str, float | None], NDArray[np.float64]]:
    """Measure one method on the test rows.

    ``y`` (n,): E_DFT - E_MACE, eV/atom; ``widths``: centres and σ of the rows, eV/atom; ``bounds``: from
    :func:`calibrated`; ``levels``: nominal coverages.
    Returns ``metrics``: one number each; None where a level asks for more calibration groups than there are.
    NLL, miscalibration area and ENCE take the half-width of the 68.3 % interval for a standard deviation;
    CRPS is that of the conformal quantiles; ``per_row`` (n, n_levels + 2): whether each level's interval
    holds y, then width and interval score at 95 %, meV/atom; NaN where there is no interval.
    """
    deviation = y - widths.centre
    inside = [_inside(y, *bounds(level)) for level in levels]
    lower, upper = bounds(SCORE_LEVEL)
    finite = _finite(lower, upper)
    nothing = np.full(len(y), np.nan)
    width = (upper - lower) * MEV_PER_EV if finite else nothing
    score = interval_score(y, lower, upper, SCORE_LEVEL) * MEV_PER_EV if finite else nothing
    metrics = {f"coverage_{100 * x:g}": _mean(hit) for x, hit in zip(levels, inside, strict=True)}
    metrics |= {
        "mean_width_95_mev_per_atom": _mean(width),
        "median_width_95_mev_per_atom": float(np.median(width)) if finite else None,
        "interval_score_95_mev_per_atom": _mean(score),
        "crps_mev_per_atom": _crps(y, bounds) * MEV_PER_EV,
        "centre_mae_mev_per_atom": float(np.mean(np.abs(deviation))) * MEV_PER_EV,
    }
    lower, upper = bounds(ONE_SIGMA)
    of_widths = width_metrics(deviation, 0.5 * (upper - lower)).as_dict() if _finite(lower, upper) else {}
    metrics |= {name: of_widths.get(name) for name in FROM_WIDTHS}
    return metrics, np.column_stack([*inside, width, score])


def tally(per_row: NDArray[np.float64], groups: Mapping[str, Membership]) -> dict[str, dict[str, list[Any]]]:
    """Sums over the rows of each group: ``{by: {group: [n, *sums of the columns]}}``; None for NaN."""
    columns = np.column_stack([np.ones(len(per_row)), per_row])
    out: dict[str, dict[str, list[Any]]] = {}
    for by, members in groups.items():
        sums = [columns[members.matrix[:, j]].sum(axis=0) for j in range(len(members.names))]
        out[by] = {
            name: [int(row[0]), *(_plain(value) for value in row[1:])]
            for name, row in zip(members.names, sums, strict=True)
            if row[0] > 0
        }
    return out


def _inside(
    y: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not _finite(lower, upper):
        return np.full(len(y), np.nan)
    return ((lower <= y) & (y <= upper)).astype(np.float64)


def _finite(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(lower).all() and np.isfinite(upper).all())


def _crps(y: NDArray[np.float64], bounds: Callable[[float], Bounds]) -> float:
    """CRPS of the ends of central intervals; where a level has none, the widest there is."""
    ends = {level: bounds(float(level)) for level in np.unique(_SPREADS)}
    known = [level for level, pair in ends.items() if _finite(*pair)]
    quantiles = [
        ends[min(level, known[-1])][int(p > 0.5)] for p, level in zip(_QUANTILES, _SPREADS, strict=True)
    ]
    return crps_from_quantiles(y, np.column_stack(quantiles), _QUANTILES)


def _mean(values: NDArray[np.float64]) -> float | None:
    return _plain(float(np.mean(values)))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def split_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per split and method: sizes, every metric, and the interval score relative to the constant's."""
    import pandas as pd

    rows = []
    for record in records:
        constant = record["methods"][REFERENCE]["metrics"][SCORE]
        for method, measured in record["methods"].items():
            metrics = dict(measured["metrics"])
            score = metrics.get(SCORE)
            metrics[RATIO] = score / constant if score is not None and constant else None
            sizes = {name: record[name] for name in ("split", "kind", "n_fit", "n_calibration", "n_test")}
            rows.append(
                {
                    **sizes,
                    "method": method,
                    "n_bytes": measured["n_bytes"],
                    "reason": measured["reason"],
                    **metrics,
                }
            )
    return pd.DataFrame(rows)


def group_table(
    records: Sequence[Mapping[str, Any]],
    distinct: Mapping[tuple[str, str, str], int],
    levels: Sequence[float],
) -> pd.DataFrame:
    """Coverage, width and interval score of every group, pooled over the splits of one kind.

    ``records``: of finished splits; ``distinct``: different structures among the test rows of all splits; a
    structure that was tested in three splits counts three times in the pooled numbers, and once here. Flags
    depend on the split and have none; ``levels``: nominal coverages.
    Returns ``kind, by, group, method, n_tested, n_structures, coverage_…, mean_width_95_mev_per_atom,
    interval_score_95_mev_per_atom, interval_score_ratio``; sums over splits divided by sums.
    """
    import pandas as pd

    sums: dict[tuple[str, str, str, str], np.ndarray] = {}
    for record in records:
        for method, measured in record["methods"].items():
            for by, groups in measured["groups"].items():
                for group, added in groups.items():
                    key = (record["kind"], by, group, method)
                    sums[key] = sums.get(key, 0.0) + np.array(added, dtype=np.float64)
    rows: list[dict[str, Any]] = []
    for (kind, by, group, method), total in sorted(sums.items()):
        n = total[0]
        reference = sums.get((kind, by, group, REFERENCE))
        row: dict[str, Any] = {"kind": kind, "by": by, "group": group, "method": method, "n_tested": int(n)}
        row["n_structures"] = distinct.get((kind, by, group))
        row |= {f"coverage_{100 * x:g}": total[1 + j] / n for j, x in enumerate(levels)}
        row["mean_width_95_mev_per_atom"] = total[-2] / n
        row[SCORE] = total[-1] / n
        row[RATIO] = np.nan if reference is None else (total[-1] / n) / (reference[-1] / reference[0])
        rows.append(row)
    return pd.DataFrame(rows).astype({"n_structures": "Int64"})


def method_table(splits: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of split and method: mean and standard deviation over splits, and the worst groups.

    Methods are ordered by their mean interval score relative to the constant's, which is taken split by
    split on the same rows. The worst element, size bin and source are those of lowest pooled coverage at
    95 % among groups with at least :data:`MIN_STRUCTURES_OF_WORST` different test structures.
    """
    import pandas as pd

    metrics = [name for name in splits.columns if name not in (*_SAME_EVERYWHERE, "n_bytes", "reason")]
    rows = []
    for (kind, method), picked in splits.groupby(["kind", "method"], sort=True):
        done = picked[picked["reason"].isna()]
        row: dict[str, Any] = {"kind": kind, "method": method, "n_splits": len(done)}
        row["n_test_mean"] = float(picked["n_test"].mean())
        for name in metrics:
            values = done[name].to_numpy(dtype=np.float64)
            values = values[np.isfinite(values)]
            row[f"{name}_mean"] = float(values.mean()) if len(values) else np.nan
            row[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        row["n_bytes"] = float(done["n_bytes"].mean()) if len(done) else np.nan
        row |= _worst(groups[(groups["kind"] == kind) & (groups["method"] == method)])
        row["reason"] = next(iter(picked["reason"].dropna()), None)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["kind", f"{RATIO}_mean", "method"], kind="stable", ignore_index=True)


def flag_table(groups: pd.DataFrame) -> pd.DataFrame:
    """What the product's flags catch: coverage at 95 % with and without them, share of rows and of misses.

    Returns ``kind, method, flag, share_flagged, share_of_misses_flagged, coverage_95, coverage_95_unflagged,
    coverage_95_flagged``: a useful flag holds a larger share of the misses than of the rows.
    """
    import pandas as pd

    columns = (
        "share_flagged",
        "share_of_misses_flagged",
        "coverage_95",
        "coverage_95_unflagged",
        "coverage_95_flagged",
    )
    rows = []
    everything = groups[groups["by"] == "all"].set_index(["kind", "method"])
    for row in groups[groups["by"] == "flag"].to_dict("records"):
        whole = everything.loc[(row["kind"], row["method"])]
        n, hits = whole["n_tested"], whole["n_tested"] * whole["coverage_95"]
        n_flagged, hits_flagged = row["n_tested"], row["n_tested"] * row["coverage_95"]
        rest, misses = n - n_flagged, n - hits
        shares = (
            n_flagged / n,
            (n_flagged - hits_flagged) / misses if misses > 0 else np.nan,
            whole["coverage_95"],
            (hits - hits_flagged) / rest if rest > 0 else np.nan,
            row["coverage_95"],
        )
        rows.append((row["kind"], row["method"], row["group"], *shares))
    return pd.DataFrame(rows, columns=["kind", "method", "flag", *columns])


def _worst(groups: pd.DataFrame) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for by in WORST:
        rows = groups[(groups["by"] == by) & (groups["n_structures"] >= MIN_STRUCTURES_OF_WORST)]
        rows = rows.dropna(subset="coverage_95").sort_values(["coverage_95", "group"], kind="stable")
        worst = rows.iloc[0] if len(rows) else None
        out[f"worst_{by}"] = None if worst is None else worst["group"]
        out[f"worst_{by}_coverage_95"] = np.nan if worst is None else float(worst["coverage_95"])
        out[f"worst_{by}_structures"] = 0 if worst is None else int(worst["n_structures"])
    return out
