"""The page of a comparison: the table, the plots, and how to read each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import number, percent, template
from mace_bounds.benchmark.folder import PLOTS, rows_of
from mace_bounds.benchmark.style import PRODUCT, method_styles
from mace_bounds.benchmark.summary import MINIMUM_WORST, RATIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mace_bounds.benchmark.run import CompareReport

KINDS = {
    "composition": ("New compositions", "Each split keeps whole compositions out of fit and calibration."),
    "loco": ("New chemical systems", "Each fold keeps whole chemical systems out of fit and calibration."),
}
COLUMNS = {
    RATIO: ("score / constant", number),
    "interval_score_95_mev_per_atom": ("interval score", number),
    "coverage_68": ("68 %", percent),
    "coverage_90": ("90 %", percent),
    "coverage_95": ("95 %", percent),
    "coverage_99": ("99 %", percent),
    "mean_width_95_mev_per_atom": ("mean width", number),
    "median_width_95_mev_per_atom": ("median width", number),
    "crps_mev_per_atom": ("CRPS", number),
    "nll": ("NLL", number),
    "miscalibration_area": ("miscal. area", number),
    "ence": ("ENCE", number),
    "ause": ("AUSE", number),
    "spearman": ("ρ", number),
    "centre_mae_mev_per_atom": ("MAE of centre", number),
}
READING = {
    "interval_score": "Left is better. The interval score is the width plus a fine for every miss; it is relative to "
    "the constant width, split by split on the same structures. Strokes are single splits, the mark is their mean, the "
    "line one standard deviation.",
    "coverage": "Marks should lie on the dashed line; the band is ±1.5 points. All methods have the same conformal "
    "layer, so large gaps mean that the split is not exchangeable, not that a method is bad.",
    "groups": "Interval score relative to the constant width, pooled over splits: blue is better, bold is the "
    "best of the column. In brackets: different structures.",
    "sharpness": "Upper left is better: narrow intervals that still cover. The band is ±1.5 points about 95 %.",
    "flags": "Filled: structures without a flag; open: flagged as extrapolating, or with an element or a pair of "
    "elements that the fit has not seen. A useful flag keeps the filled marks on the dashed line.",
}


def write_page(path: Path, full: dict[str, Any], report: CompareReport, plots: Sequence[Path]) -> None:
    """Write ``index.html``, which shows the plots beside it."""
    page = template("compare.html.j2").render(
        c=full,
        columns=COLUMNS,
        kinds=[_section(kind, report, plots) for kind in report.table["kind"].unique()],
        minimum=MINIMUM_WORST,
    )
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def _section(kind: str, report: CompareReport, plots: Sequence[Path]) -> dict[str, Any]:
    rows = rows_of(report.table[report.table["kind"] == kind])
    styles = method_styles([row["method"] for row in rows])
    title, text = KINDS[kind]
    shown = [path.stem.removeprefix(f"{kind}_") for path in plots if path.stem.startswith(f"{kind}_")]
    flags = report.flags
    return {
        "title": title,
        "text": text,
        "n_splits": max(row["n_splits"] for row in rows),
        "rows": [
            {**row, "label": styles[row["method"]].label, "colour": styles[row["method"]].colour}
            for row in rows
        ],
        "plots": [
            {"file": f"{PLOTS}/{kind}_{name}.svg", "name": name, "text": READING[name]} for name in shown
        ],
        "flags": rows_of(flags[(flags["kind"] == kind) & (flags["method"] == PRODUCT)]) if len(flags) else [],
    }
