"""The report of an audit: one self-contained HTML page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.links import entry_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
MOST_VIOLATIONS, MOST_GROUPS, LARGEST_SVG = 30, 40, 400_000
GROUPINGS = {
    "chemistry": "Chemistry",
    "element": "Element",
    "source": "Source",
    "size": "Size of the cell",
    "run_type": "Run type",
}
ROLES = {
    "unseen": "compositions that nothing was trained on",
    "model_training": "compositions only in the model's own training",
    "fit": "compositions in the fit of the head",
    "calibration": "compositions in its calibration",
}
METRICS = {
    "model_mae_mev_per_atom": ("Mean error of the model", "meV/atom", "mean |E_DFT − E_MACE|"),
    "model_median_mev_per_atom": ("Median error of the model", "meV/atom", "median |E_DFT − E_MACE|"),
    "sharpness_mev_per_atom": ("Sharpness", "meV/atom", "root mean square of σ; narrower is sharper"),
    "crps_mev_per_atom": ("CRPS", "meV/atom", "accuracy and width in one score; lower is better"),
    "nll": ("NLL", "", "Gaussian negative log-likelihood, eV/atom; punishes outliers hard"),
    "miscalibration_area": ("Miscalibration area", "", "of σ as a Gaussian; 0 is best, 0.5 worst"),
    "ence": ("ENCE", "", "mean relative gap of σ and error over bins; 0 is best"),
    "ause": ("AUSE", "", "how far σ is from ranking errors perfectly; 0 is best"),
    "spearman": ("Spearman ρ", "", "rank correlation of σ and |error|; 1 is best"),
}


def template(name: str) -> Template:
    """One of the package's page templates, with the filters for numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "thousands": thousands, "number": number}
    environment.filters["entry_url"] = entry_url
    return environment.get_template(name)


def write_report(out: Path, summary: dict[str, Any], plots: Sequence[Path] = ()) -> Path:
    """Write ``report.html`` from a summary and the files beside it.

    Parameters
    ----------
    out : Path
        Folder of the audit.
    summary : dict
        What ``summary.json`` will hold.
    plots : sequence of Path
        PNG and SVG files to show, named after what they are.

    Returns
    -------
    Path
        The page; it needs no other file.
    """
    page = template("report.html.j2").render(
        s=summary,
        level=summary["settings"]["level"],
        plots=_data_uris(plots),
        groups=_groups(out / _folder.COVERAGE, summary),
        by_role=_by_role(out / _folder.COVERAGE, summary),
        violations=_violations(out / _folder.VIOLATIONS),
        suspects=_violations(out / _folder.SUSPECTS),
        atlas_by=_atlas_by(out / _folder.ATLAS),
        notable=_notable(out / _folder.ATLAS, summary),
        elements=_elements(out / _folder.ELEMENT_BIAS),
        metrics=[(METRICS[k], v) for k in METRICS if (v := summary.get("metrics", {}).get(k)) is not None],
        version=summary["versions"]["mace-bounds"],
    )
    path = out / _folder.REPORT
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def percent(value: float, digits: int = 1) -> str:
    """Write a share as per cent."""
    return f"{100 * value:.{digits}f} %"


def thousands(value: float) -> str:
    """Write a count with separators."""
    return f"{value:,.0f}"


def number(value: Any) -> str:
    """Write a quantity with three significant digits, without powers of ten."""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _data_uris(plots: Sequence[Path]) -> dict[str, str]:
    """Every plot as a data URI: the SVG, or the PNG where the SVG is large."""
    uris = {}
    for png in (path for path in plots if path.suffix == ".png"):
        svg = png.with_suffix(".svg")
        vector = svg in plots and svg.stat().st_size <= LARGEST_SVG
        kind, path = ("svg+xml", svg) if vector else ("png", png)
        uris[png.stem] = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return uris


def _read(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False) if path.is_file() else None


def _at_level(path: Path, summary: dict[str, Any]) -> pd.DataFrame | None:
    table = _read(path)
    if table is None:
        return None
    chosen: pd.DataFrame = table.loc[(table["level"] - summary["settings"]["level"]).abs() < 1e-9]
    return chosen


def _groups(path: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Coverage by group on the headline's rows, lowest first; groupings with one group are left out."""
    table = _at_level(path, summary)
    if table is None:
        return []
    table = table[table["rows"] == summary["measured_on"]["rows"]]
    found = []
    for by, title in GROUPINGS.items():
        rows = table[table["by"] == by]
        if by != "size":
            rows = rows.sort_values(["coverage", "n"], kind="stable")
        if len(rows) > 1 or (by == "chemistry" and len(rows)):
            found.append(
                {
                    "by": by,
                    "title": title,
                    "rows": _folder.records(rows.head(MOST_GROUPS)),
                    "hidden": max(0, len(rows) - MOST_GROUPS),
                }
            )
    return found


def _by_role(path: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Coverage by what compositions were used for before."""
    table = _at_level(path, summary)
    if table is None:
        return []
    picked = table[(table["by"] == "seen_in") & (table["rows"] == "all")]
    order = {role: place for place, role in enumerate(ROLES)}
    rows = [{**row, "what": ROLES.get(row["group"], row["group"])} for row in _folder.records(picked)]
    return sorted(rows, key=lambda row: order.get(row["group"], len(order)))


def _violations(path: Path) -> list[dict[str, Any]]:
    table = _read(path)
    return [] if table is None else _folder.records(table.head(MOST_VIOLATIONS))


def _atlas_by(path: Path) -> str:
    """What the atlas is grouped by, in words."""
    table = _read(path)
    if table is None:
        return ""
    *most, last = (by.replace("_", " ") for by in table["by"].unique() if by != "all")
    text = f"{', '.join(most)} and {last}" if most else last
    return text.replace("space group", "space group (spglib, tolerance 0.01 Å)")


def _notable(path: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups of the atlas whose coverage or bias is more than chance, lowest coverage first."""
    table = _at_level(path, summary)
    if table is None:
        return []
    picked = table[(table["by"] != "all") & (table["significant"] | table["bias_significant"])]
    rows = _folder.records(picked.sort_values(["coverage", "n"], kind="stable").head(MOST_VIOLATIONS))
    return [{**row, "by": str(row["by"]).replace("_", " ")} for row in rows]


def _elements(path: Path) -> list[dict[str, Any]]:
    """Elements whose bias is more than chance, largest first."""
    table = _read(path)
    if table is None:
        return []
    picked = table[table["significant"]]
    order = picked["bias_mev_per_atom"].abs().sort_values(ascending=False, kind="stable").index
    return _folder.records(picked.loc[order].head(MOST_VIOLATIONS))
