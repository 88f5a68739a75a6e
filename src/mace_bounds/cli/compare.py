"""``mace-bounds compare``: every method on the same splits, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.fit import (
    BalanceOption,
    CalibrationShareOption,
    FitShareOption,
    IncludeTrainingOption,
    SeedOption,
    SplitByOption,
    TrainedModelOption,
)
from mace_bounds.cli.options import JsonOption, SplitBy, StoreArgument

if TYPE_CHECKING:
    from mace_bounds.benchmark import CompareReport

ComparisonArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder of tables, plots and page; run it again to go on.")
]
SplitsOption = Annotated[int, typer.Option("--repeats", min=0, help="Splits by composition.")]
LocoOption = Annotated[
    int,
    typer.Option(
        "--loco",
        min=0,
        metavar="FOLDS",
        help="Also leave out whole chemical systems, in this many folds; with at most as many systems, one at a time.",
    ),
]
DropSubsystemsOption = Annotated[
    bool,
    typer.Option("--drop-subsystems", help="With --loco, leave the subsystems of a fold out as well."),
]
MethodsOption = Annotated[
    str | None,
    typer.Option(
        "--methods", metavar="NAME,...", help="Only these (constant always joins).", show_default="all"
    ),
]


def compare(
    store: StoreArgument,
    out: ComparisonArgument,
    repeats: SplitsOption = 10,
    loco: LocoOption = 0,
    drop_subsystems: DropSubsystemsOption = False,
    methods: MethodsOption = None,
    model: TrainedModelOption = None,
    seed: SeedOption = 0,
    fit_share: FitShareOption = 0.6,
    calibration_share: CalibrationShareOption = 0.25,
    split_by: SplitByOption = SplitBy.formula,
    balance: BalanceOption = False,
    include_training: IncludeTrainingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare mace-bounds with what else could bound the errors: same features, same splits, same calibration.

    Leaves compare.csv, compare.json, splits.csv, groups.csv, seconds.csv, plots and index.html in OUT.
    """
    from mace_bounds.benchmark import compare as run
    from mace_bounds.calibration import FitConfig

    config = FitConfig(
        fit_share=fit_share,
        calibration_share=calibration_share,
        seed=seed,
        split_by=split_by.value,
        balance=balance,
    )
    with _console.progress("splits", repeats + loco) as update:
        report = run(
            store,
            out,
            config,
            model=model,
            repeats=repeats,
            loco=loco,
            drop_subsystems=drop_subsystems,
            methods=[name.strip() for name in methods.split(",")] if methods else None,
            include_training=include_training,
            progress=lambda done, _: update(done, 0),
        )
    if as_json:
        _console.write_json(_summary(report))
    else:
        _print(report)


def _summary(report: CompareReport) -> dict[str, object]:
    from mace_bounds.benchmark import rows_of

    return {
        "command": "compare",
        "out": str(report.folder),
        "left_out": report.left_out,
        "table": rows_of(report.table),
        "flags": rows_of(report.flags),
        "seconds": rows_of(report.seconds),
    }


def _print(report: CompareReport) -> None:
    from mace_bounds.benchmark import rows_of

    console = _console.out()
    for reason, n in report.left_out.items():
        console.print(f"[dim]left out: {n:,} ({reason})[/dim]")
    numbers = ("score / constant", "90 %", "95 %", "99 %", "mean width", "worst element", "fit (s)")
    spent = report.seconds.set_index(["kind", "method"])["fit_seconds_mean"]
    for kind, rows in report.table.groupby("kind", sort=False):
        n = int(rows["n_splits"].max())
        title = f"New {'compositions' if kind == 'composition' else 'chemical systems'}, {n} splits"
        view = _console.plain_table("method", *numbers, right=numbers, title=title)
        for row in rows_of(rows):
            if not row["n_splits"]:
                view.add_row(str(row["method"]), *["–"] * len(numbers))
                continue
            view.add_row(
                str(row["method"]),
                _spread(row, "interval_score_ratio"),
                *(_percent(row[f"coverage_{level}_mean"]) for level in (90, 95, 99)),
                _number(row["mean_width_95_mev_per_atom_mean"], 0),
                f"{row['worst_element'] or ''} {_percent(row['worst_element_coverage_95'])}".strip(),
                _number(spent[kind, row["method"]], 2),
            )
        console.print(view)
    console.print(f"[dim]{report.folder / 'index.html'}[/dim]", soft_wrap=True)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _spread(row: dict[str, Any], name: str) -> str:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    return _number(mean, 3) + ("" if std is None else f" ± {std:.3f}")
