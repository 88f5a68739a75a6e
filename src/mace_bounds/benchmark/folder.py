"""What a comparison found, and its folder: settings, a file per finished split, tables and the page made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import visible, write_csv, write_json, write_text
from mace_bounds.auditing import number, percent, template
from mace_bounds.benchmark.config import PRODUCT, PRODUCT_SPLIT, SCALE_PREFIX
from mace_bounds.benchmark.drawing import method_styles
from mace_bounds.benchmark.metrics import MIN_STRUCTURES_OF_WORST, RATIO
from mace_bounds.benchmark.splits import COMPOSITION, SYSTEM
from mace_bounds.errors import StoreError
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd

SETTINGS, SPLITS, PLOTS = "settings.json", "splits", "plots"
FULL, PAGE = "compare.json", "index.html"
_SECONDS_SUFFIX = ".seconds.json"


KINDS = {
    COMPOSITION: ("New compositions", "Each split keeps whole compositions out of fit and calibration."),
    SYSTEM: ("New chemical systems", "Each fold keeps whole chemical systems out of fit and calibration."),
}
COLUMNS = {
    RATIO: ("score / constant", number),
    "coverage_90": ("90 %", percent),
    "coverage_95": ("95 %", percent),
    "median_width_95_mev_per_atom": ("median width", number),
    "interval_score_95_mev_per_atom": ("interval score", number),
}
"""Columns of the page's tables: name of the metric, its title and how its numbers are written."""
MORE_COLUMNS = {
    "coverage_68": ("68 %", percent),
    "coverage_99": ("99 %", percent),
    "mean_width_95_mev_per_atom": ("mean width", number),
    "crps_mev_per_atom": ("CRPS", number),
    "nll": ("NLL", number),
    "miscalibration_area": ("miscal. area", number),
    "ence": ("ENCE", number),
    "ause": ("AUSE", number),
    "spearman": ("ρ", number),
    "centre_mae_mev_per_atom": ("MAE of centre", number),
}
"""Those that a switch shows."""
VARIANTS = (SCALE_PREFIX, "pops_")
"""Names of this package's own alternatives, which have a table of their own, begin so."""
READING = {
    "interval_score": "Left is better. The interval score is the width plus a fine for every miss; it is relative to "
    "the constant width, split by split on the same structures. Strokes are single splits, the mark is their mean, the "
    "line one standard deviation.",
    "sharpness": "Upper left is better: narrow intervals that still cover. The band is ±1.5 points about 95 %.",
    "coverage": "Marks should lie on the dashed line; the band is ±1.5 points. All methods have the same conformal "
    "layer, so large gaps mean that the split is not exchangeable, not that a method is bad.",
    "groups": "Interval score relative to the constant width, pooled over splits: blue is better, bold is the "
    "best of the column. In brackets: different structures.",
    "flags": "Filled: structures without a flag; open: flagged as extrapolating, or with an element or a pair of "
    "elements that the fit has not seen. A useful flag keeps the filled marks on the dashed line.",
}


@dataclass(frozen=True, eq=False)
class CompareReport:
    """What a comparison has found; every table is also a CSV file in ``folder``.

    Attributes
    ----------
    table : DataFrame
        One row per kind of split and method (``compare.csv``).
    groups : DataFrame
        Coverage and interval score by source, size, chemistry, element and flag (``groups.csv``).
    flags : DataFrame
        What the product's flags catch (``flags.csv``).
    splits : DataFrame
        One row per split and method (``splits.csv``).
    seconds : DataFrame
        Processor time of fits and predictions (``seconds.csv``): the only numbers that differ between two runs.
    left_out : dict of str to int
        Rows of the store that took no part, by reason.
    labels : dict
        Labels taken and refused (:func:`mace_bounds.features.label_summary`).
    folder : Path
    """

    table: pd.DataFrame
    groups: pd.DataFrame
    flags: pd.DataFrame
    splits: pd.DataFrame
    seconds: pd.DataFrame
    left_out: dict[str, int]
    labels: dict[str, Any]
    folder: Path


def check_folder(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that is not new and was not begun by the same comparison."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file, and a comparison needs a folder; choose another place.")
    if not (out / SETTINGS).is_file():
        if names := visible(out):
            raise StoreError(
                f"{out} is not the folder of a comparison, as it holds {min(names)}; choose a new folder."
            )
        return
    before = _read(out / SETTINGS)
    differing = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
    if differing:
        raise StoreError(
            f"the comparison in {out} was begun with other {', '.join(differing)}; use the same options or a new "
            "folder."
        )


def open_comparison(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into the folder, which :func:`check_folder` has accepted."""
    check_folder(out, settings)
    write_json(out / SETTINGS, settings)  # before anything else, so that the folder is known again
    (out / SPLITS).mkdir(exist_ok=True)


def read_split(out: Path, name: str) -> dict[str, Any] | None:
    """Record of a finished split; None if it is not finished."""
    path = out / SPLITS / f"{name}.json"
    return _read(path) if path.is_file() else None


def write_split(out: Path, name: str, record: dict[str, Any], seconds: dict[str, Any]) -> None:
    """Keep a finished split: what it took goes to a file of its own, and first, so that neither is ever missing."""
    write_json(out / SPLITS / f"{name}{_SECONDS_SUFFIX}", seconds)
    write_json(out / SPLITS / f"{name}.json", record)


def read_seconds(out: Path, name: str) -> dict[str, Any]:
    """What the methods of a finished split took."""
    return _read(out / SPLITS / f"{name}{_SECONDS_SUFFIX}")


def write_tables(report: CompareReport, full: dict[str, Any]) -> None:
    """Write each table as a CSV file, and ``compare.json``, which holds all but the seconds."""
    tables = {
        "compare": report.table,
        "splits": report.splits,
        "groups": report.groups,
        "flags": report.flags,
        "seconds": report.seconds,
    }
    for name, table in tables.items():
        write_csv(report.folder / f"{name}.csv", table)
    kept = {name: records(table) for name, table in tables.items() if name != "seconds"}
    write_json(report.folder / FULL, {**full, **kept})


def write_page(report: CompareReport, full: dict[str, Any], plots: Sequence[Path]) -> None:
    """Write ``index.html``, which shows the plots beside it."""
    page = template("compare.html.j2").render(
        c=full,
        columns=COLUMNS,
        more=MORE_COLUMNS,
        kinds=[_section(kind, report, plots) for kind in report.table["kind"].unique()],
        minimum=MIN_STRUCTURES_OF_WORST,
    )
    write_text(report.folder / PAGE, page)


def against_product(splits: pd.DataFrame) -> dict[str, str]:
    """Whether each method is distinguishable from the product, in words.

    Splits share structures, so that their spread is less than that of independent ones: the corrected resampled t-test
    of the differences, split by split on the same structures, allows for that (two-sided, 5 %).

    Parameters
    ----------
    splits : DataFrame
        Rows of one kind of split with ``split``, ``method``, ``n_fit``, ``n_calibration``, ``n_test`` and the interval
        score relative to the constant width.

    Returns
    -------
    dict of str to str
        "better", "worse" or "not distinguishable" by method; empty for fewer than two splits.

    References
    ----------
    Nadeau & Bengio, Machine Learning 52, 239 (2003).
    """
    from scipy.stats import t

    scores = splits.pivot_table(index="split", columns="method", values=RATIO)
    if PRODUCT not in scores or len(scores) < 2:
        return {}
    overlap = float((splits["n_test"] / (splits["n_fit"] + splits["n_calibration"])).mean())
    found = {}
    for method in scores.columns.drop(PRODUCT):
        difference = (scores[method] - scores[PRODUCT]).dropna()
        if (n := len(difference)) < 2:
            continue
        mean = float(difference.mean())
        limit = t.ppf(0.975, n - 1) * float(difference.std(ddof=1)) * (1 / n + overlap) ** 0.5
        found[str(method)] = (
            "not distinguishable" if abs(mean) <= limit else "better" if mean < 0 else "worse"
        )
    return found


def _section(kind: str, report: CompareReport, plots: Sequence[Path]) -> dict[str, Any]:
    standing = against_product(report.splits[report.splits["kind"] == kind])
    rows = records(report.table[report.table["kind"] == kind])
    styles = method_styles([row["method"] for row in rows])
    for row in rows:
        style = styles[row["method"]]
        row |= {"label": style.label, "colour": style.colour, "about": style.about}
        row |= {"own": row["method"] in (PRODUCT, PRODUCT_SPLIT), "standing": standing.get(row["method"], "")}
    title, text = KINDS[kind]
    shown = [path.stem.removeprefix(f"{kind}_") for path in plots if path.stem.startswith(f"{kind}_")]
    flags = report.flags
    return {
        "title": title,
        "text": text,
        "n_splits": max(row["n_splits"] for row in rows),
        "tables": [
            ("Methods", [row for row in rows if not row["method"].startswith(VARIANTS)]),
            ("Variants of mace-bounds", [row for row in rows if row["method"].startswith(VARIANTS)]),
        ],
        "rows": rows,
        "compared": bool(standing),
        "plots": [
            {"file": f"{PLOTS}/{kind}_{name}.svg", "name": name, "text": READING[name]}
            for name in sorted(shown, key=tuple(READING).index)
        ],
        "flags": records(flags[(flags["kind"] == kind) & (flags["method"] == PRODUCT)]) if len(flags) else [],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON; delete it and run again.") from error
    return values
