"""The report of an audit: one self-contained HTML page."""

from __future__ import annotations

import base64
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds._io import write_text
from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.folder import FILES, FOLDERS, AuditFolder, energies_name
from mace_bounds.auditing.suspects import ENTRY, PAGE, entry_url
from mace_bounds.fitting import ALL, GROUPINGS, SEEN_IN_TEXT
from mace_bounds.flags import FLAGS, flag_names
from mace_bounds.levels import TOLERANCE
from mace_bounds.screen import visible
from mace_bounds.tables import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS_SHOWN, MAX_GROUPS_SHOWN, MAX_IDS_SHOWN = 30, 40, 8
"""Rows of a list, groups of a grouping and ids of a reason that the page shows; the tables beside it have all."""
MAX_ROWS_LISTED, N_STATIC = 20_000, 50
"""Structures that the searchable table holds, and those that are shown without a script (and on one of its pages)."""
MAX_SVG_BYTES = 400_000
"""Larger drawings go into the page as PNG."""
_TABLES = (
    _folder.COVERAGE,
    _folder.VIOLATIONS,
    _folder.SUSPECTS,
    _folder.ATLAS,
    _folder.ELEMENT_BIAS,
    _folder.HULL,
)
_SHOWN = ("chemistry", "element", "source", "size", "run_type")
_MEV_DIGITS, _EV_DIGITS = 2, 5  # decimals that the table of structures keeps
_DIGITS_SHOWN = {"energy": 3, "novelty": 2}  # of the others one below 100, none above
LISTED = {
    "id": "id",
    "formula": "formula",
    "chemistry": "chemistry",
    "energy": "E_model, eV/atom",
    "expected": "expected error",
    "lower": "lower",
    "upper": "upper",
    "width": "width",
    "novelty": "novelty",
    "error": "label error",
    "inside": "label",
    "flags": "flags",
}
"""Columns of the table of structures, and their titles; energies in meV/atom where nothing else is said."""
_NUMERIC = ("energy", "expected", "lower", "upper", "width", "novelty", "error")
_OF_LABELS = ("error", "inside")  # left out where nothing is labelled
METRICS = {
    "model_mae_mev_per_atom": ("Mean error of the model", "meV/atom", "mean |E_DFT − E_model|"),
    "model_median_mev_per_atom": ("Median error of the model", "meV/atom", "median |E_DFT − E_model|"),
    "sharpness_mev_per_atom": ("Sharpness", "meV/atom", "root mean square of σ; lower is sharper"),
    "crps_mev_per_atom": ("CRPS", "meV/atom", "accuracy and width in one score; lower is better"),
    "nll": ("NLL", "", "Gaussian negative log-likelihood, eV/atom; outliers weigh heavily"),
    "miscalibration_area": (
        "Miscalibration area",
        "",
        "mean gap of the curve if σ were that of a Gaussian, before calibration; 0 is best, 0.5 worst",
    ),
    "ence": ("ENCE", "", "mean relative gap between σ and the error, over bins; 0 is best"),
    "ause": ("AUSE", "", "how far σ is from ranking the errors perfectly; 0 is best"),
    "spearman": ("Spearman ρ", "", "rank correlation of σ and |error|; 1 is best"),
}


@cache
def template(name: str) -> Template:
    """One of the package's page templates, with the filters for numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "thousands": thousands, "number": number}
    environment.filters |= {
        "entry_url": entry_url,
        "level": level_text,
        "flags": flag_names,
        "listed": listed_number,
    }
    environment.tests["is_level"] = lambda value, level: abs(value - level) < TOLERANCE
    return environment.get_template(name)


def _visible(value: Any) -> Any:
    """Make control characters and marks of writing direction in names visible; markup of the templates stays."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def write_report(out: Path, summary: dict[str, Any], plots: Sequence[Path] = ()) -> Path:
    """Write ``report.html`` from a summary and the files beside it.

    ``out``: folder of the audit; ``summary``: what ``summary.json`` will hold; ``plots``: PNG and SVG files
    to show, named after what they are.
    Returns the page; it needs no other file.
    """
    tables = {name: AuditFolder(out).read(name) if (out / name).is_file() else None for name in _TABLES}
    coverage, atlas = (
        _at_level(tables[name], summary["settings"]["level"]) for name in (_folder.COVERAGE, _folder.ATLAS)
    )
    page = template("report.html.j2").render(
        s=summary,
        title=summary.get("title") or summary["source"],
        energies=energies_name(summary),
        listing=_listing(out),
        files=_files(out),
        failed=_failed(out),
        level=summary["settings"]["level"],
        plots=_data_uris(plots),
        groups=_groups(coverage, summary["measured_on"]["rows"]),
        by_role=_by_role(coverage),
        violations=_first(tables[_folder.VIOLATIONS]),
        suspects=_first(tables[_folder.SUSPECTS]),
        hull=_nearest_to_hull(tables[_folder.HULL]),
        atlas_by=_atlas_by(atlas),
        notable=_notable(atlas),
        elements=_elements(tables[_folder.ELEMENT_BIAS]),
        metrics=[(METRICS[k], v) for k in METRICS if (v := summary.get("metrics", {}).get(k)) is not None],
        flags=[(name, n, FLAGS[name].meaning) for name, n in summary["flags"].items() if name in FLAGS],
        version=summary["versions"]["mace-bounds"],
    )
    write_text(out / _folder.REPORT, page)
    return out / _folder.REPORT


def _listing(out: Path) -> dict[str, Any] | None:
    """Return what the searchable table of structures holds; None where the folder has no bounds yet."""
    folder = AuditFolder(out)
    if not folder.has(_folder.BOUNDS):
        return None
    table = _listed_rows(folder.read(_folder.BOUNDS, list(_folder.FOR_REPORT)))
    n = len(table)
    if n > MAX_ROWS_LISTED:
        table = table.loc[_remarkable(table)]
    columns = [*LISTED, "source", "reason"]
    rows = [[_json_value(row[name]) for name in columns] for row in records(table)]
    data = {
        "columns": columns,
        "titles": [*LISTED.values(), "source", "reason"],
        "rows": rows,
        "numeric": _NUMERIC,
        "digits": _DIGITS_SHOWN,
        "pageRows": N_STATIC,
        "entry": {"pattern": f"^(?:{ENTRY.pattern})$", "page": PAGE},
    }
    first = [dict(zip(columns, row, strict=True)) for row in rows[:N_STATIC]]
    labelled = bool(table["error"].notna().any())
    titles = {name: title for name, title in LISTED.items() if labelled or name not in _OF_LABELS}
    numeric = [name for name in _NUMERIC if name in titles]
    return {
        "n": n,
        "n_listed": len(table),
        "first": first,
        "titles": titles,
        "numeric": numeric,
        "data": data,
    }


def _listed_rows(bounds: pd.DataFrame) -> pd.DataFrame:
    """Columns of the table of structures, rounded, from those of the bounds table."""
    import pandas as pd

    mev = {
        name: bounds[f"{column}_mev_per_atom"].round(_MEV_DIGITS)
        for name, column in (
            ("expected", "expected_error"),
            ("lower", "lower"),
            ("upper", "upper"),
            ("error", "error"),
        )
    }
    return pd.DataFrame(
        {
            **{
                name: bounds[name]
                for name in ("id", "formula", "chemistry", "source", "reason", "flags", "inside")
            },
            "energy": (bounds["energy_model_ev"] / bounds["n_atoms"].astype(float)).round(_EV_DIGITS),
            **mev,
            "width": (bounds["upper_mev_per_atom"] - bounds["lower_mev_per_atom"]).round(_MEV_DIGITS),
            "novelty": bounds["novelty"].round(4),
        }
    )


def _remarkable(table: pd.DataFrame) -> pd.Index[int]:
    """Rows of a large table that the page keeps, in their order: farthest outside, widest, most novel, a third each."""
    below, above = table["lower"] - table["error"], table["error"] - table["upper"]
    beyond = below.where(below > above, above)
    share = MAX_ROWS_LISTED // 3
    kept = {i for score in (beyond, table["width"], table["novelty"]) for i in score.nlargest(share).index}
    rest = (i for i in table.index if i not in kept)
    return table.index[table.index.isin([*kept, *islice(rest, MAX_ROWS_LISTED - len(kept))])]


def _json_value(value: Any) -> Any:
    """JSON knows no infinity; names show what they hold."""
    value = _visible(value)
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def _files(out: Path) -> list[tuple[str, str, str]]:
    """Name, size and meaning of the files beside the page."""
    present = [
        (name, _size(out / name), meaning)
        for name, meaning in FILES.items()
        if name == _folder.SUMMARY or (name != _folder.REPORT and (out / name).is_file())
    ]
    return present + [(f"{name}/", "", meaning) for name, meaning in FOLDERS.items() if (out / name).is_dir()]


def _size(path: Path) -> str:
    """Write the size of a file; empty where it is not written yet."""
    if not path.is_file():
        return ""
    n = path.stat().st_size
    return f"{n / 1e6:,.1f} MB" if n >= 1e6 else f"{max(n / 1e3, 0.1):,.1f} kB"


def _failed(out: Path) -> dict[str, list[str]]:
    """Ids of the structures that could not be scored, by reason, a few of each."""
    if not AuditFolder(out).has(_folder.FAILURES):
        return {}
    table = AuditFolder(out).read(_folder.FAILURES)
    return {str(reason): ids.head(MAX_IDS_SHOWN).tolist() for reason, ids in table.groupby("reason")["id"]}


def percent(value: float, digits: int = 1) -> str:
    """Write a share as per cent."""
    return f"{100 * value:.{digits}f} %"


def level_text(level: float) -> str:
    """Write a level as per cent, as short as it can be."""
    return f"{100 * level:g} %"


def thousands(value: float) -> str:
    """Write a count with separators."""
    return f"{value:,.0f}"


def number(value: Any) -> str:
    """Write a quantity with three significant digits, without powers of ten."""
    if not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"−{text[1:]}" if text.startswith("-") else text


def listed_number(value: Any, name: str) -> str:
    """Write a number of the table of structures, as its script does; what is empty stays empty."""
    if value is None:
        return ""
    number = float(value)
    if np.isinf(number):
        return "∞" if number > 0 else "−∞"
    return f"{number:,.{_DIGITS_SHOWN.get(name, 1 if abs(number) < 99.95 else 0)}f}".replace("-", "−")


def _data_uris(plots: Sequence[Path]) -> dict[str, str]:
    """Every plot as a data URI: the SVG, or the PNG where the SVG is large."""
    uris = {}
    for png in (path for path in plots if path.suffix == ".png"):
        svg = png.with_suffix(".svg")
        vector = svg in plots and svg.stat().st_size <= MAX_SVG_BYTES
        kind, path = ("svg+xml", svg) if vector else ("png", png)
        uris[png.stem] = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return uris


def _at_level(table: pd.DataFrame | None, level: float) -> pd.DataFrame | None:
    return None if table is None else table[np.isclose(table["level"], level, rtol=0, atol=TOLERANCE)]


def _groups(coverage: pd.DataFrame | None, measured: str | None) -> list[dict[str, Any]]:
    """Coverage by group on the rows that measure the head, lowest first; groupings with one group are left out."""
    if coverage is None:
        return []
    table = coverage[coverage["rows"] == measured]
    found = []
    for by in _SHOWN:
        rows = table[table["by"] == by]
        if by != "size":
            rows = rows.sort_values(["coverage", "n"], kind="stable")
        if len(rows) > 1 or (by == "chemistry" and len(rows)):
            found.append(
                {
                    "by": by,
                    "title": GROUPINGS[by],
                    "rows": records(rows.head(MAX_GROUPS_SHOWN)),
                    "hidden": max(0, len(rows) - MAX_GROUPS_SHOWN),
                }
            )
    return found


def _by_role(coverage: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Coverage by what compositions were used for before."""
    if coverage is None:
        return []
    picked = coverage[(coverage["by"] == "seen_in") & (coverage["rows"] == ALL)]
    order = {role: place for place, role in enumerate(SEEN_IN_TEXT)}
    rows = [
        {**row, "what": f"compositions {SEEN_IN_TEXT.get(row['group'], row['group'])}"}
        for row in records(picked)
    ]
    return sorted(rows, key=lambda row: order.get(row["group"], len(order)))


def _first(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else records(table.head(MAX_ROWS_SHOWN))


def _nearest_to_hull(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows of the hull of a chemical system, the nearest first."""
    if table is None:
        return []
    good = table[table["reason"].isna()].sort_values("e_above_hull_ev_per_atom", kind="stable")
    rows = records(good.head(MAX_ROWS_SHOWN))
    return [{**row, "decomposition": str(row["decomposition"] or "").split(";")[0]} for row in rows]


def _atlas_by(atlas: pd.DataFrame | None) -> str:
    """What the atlas is grouped by, in words."""
    if atlas is None:
        return ""
    titles = [_title(by) for by in atlas["by"].unique() if by != "all"]
    return " and ".join([", ".join(titles[:-1]), *titles[-1:]][len(titles) < 2 :])


def _title(by: str) -> str:
    title = GROUPINGS[by]
    return title[0].lower() + title[1:]


def _notable(atlas: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Groups of the atlas whose coverage or bias is more than chance, lowest coverage first."""
    if atlas is None:
        return []
    picked = atlas[(atlas["by"] != "all") & (atlas["significant"] | atlas["bias_significant"])]
    rows = records(picked.sort_values(["coverage", "n"], kind="stable").head(MAX_ROWS_SHOWN))
    return [{**row, "by": _title(row["by"]).split(" (")[0]} for row in rows]


def _elements(bias: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Elements whose bias is more than chance, largest first."""
    if bias is None:
        return []
    picked = bias[bias["significant"].astype(bool)]
    order = picked["bias_mev_per_atom"].abs().sort_values(ascending=False, kind="stable").index
    return records(picked.loc[order].head(MAX_ROWS_SHOWN))
