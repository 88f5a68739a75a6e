"""``mace-bounds compare``: every method on the same splits, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mace_bounds.benchmark import CompareConfig, CompareReport
from mace_bounds.cli import console
from mace_bounds.cli.options import JsonOption, StoreArgument, TrainedModelOption, takes
from mace_bounds.cli.sheet import Sheet
from mace_bounds.cli.views import print_labels
from mace_bounds.tables import records

ComparisonArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder of tables, plots and page; run it again to go on.")
]


@takes(config=CompareConfig)
def compare(
    store: StoreArgument,
    out: ComparisonArgument,
    model: TrainedModelOption = None,
    as_json: JsonOption = False,
    *,
    config: CompareConfig,
) -> None:
    """Compare mace-bounds with other error bars on the same splits.

    All methods get the same features, the same splits and the same conformal calibration. Leaves compare.csv,
    compare.json, splits.csv, groups.csv, flags.csv, seconds.csv, plots and index.html in OUT.
    """
    from mace_bounds.benchmark import compare as run

    with console.progress("splits", config.n_splits + config.system_folds) as update:
        report = run(store, out, config, model=model, progress=lambda done, _: update(done, 0))
    if as_json:
        console.write_json(
            {
                "command": "compare",
                "out": str(report.folder),
                "left_out": report.left_out,
                **{name: records(getattr(report, name)) for name in ("table", "flags", "seconds")},
            }
        )
    else:
        _print_comparison(report)


def _print_comparison(report: CompareReport) -> None:
    """Print one table for each kind of split, the narrowest method first."""
    print_labels(report.labels)
    for reason, n in report.left_out.items():
        console.say((f"left out: {n:,} ({reason})", "dim"))
    numbers = ("score / constant", "90 %", "95 %", "99 %", "mean width", "worst element", "fit (s)")
    seconds = report.seconds.set_index(["kind", "method"])["fit_seconds_mean"]
    for kind, rows in report.table.groupby("kind", sort=False):
        new = "compositions" if kind == "composition" else "chemical systems"
        title = f"New {new}, {int(rows['n_splits'].max())} splits"
        view = Sheet("method", *numbers, numbers=numbers, title=title)
        for row in records(rows):
            if not row["n_splits"]:
                view.add(str(row["method"]), *["–"] * len(numbers))
                continue
            view.add(
                str(row["method"]),
                _spread(row, "interval_score_ratio"),
                *(_percent(row.get(f"coverage_{level}_mean")) for level in (90, 95, 99)),
                _number(row["mean_width_95_mev_per_atom_mean"], 0),
                f"{row['worst_element'] or ''} {_percent(row['worst_element_coverage_95'])}".strip(),
                _number(seconds[kind, row["method"]], 2),
            )
        console.show(view)
    console.say((str(report.folder / "index.html"), "dim"))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _spread(row: dict[str, Any], name: str) -> str:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    return _number(mean, 3) + ("" if std is None else f" ± {std:.3f}")
