"""``mace-bounds audit``: bounds for a database, measured coverage, violations, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.download import local
from mace_bounds.cli.options import (
    AuditSourceArgument,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    EnergyKeyOption,
    HeadOption,
    JsonOption,
    LevelOption,
    MaxAtomsOption,
    ModelOption,
    PlotsOption,
    SchedulerOption,
    ShardRowsOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from mace_bounds.auditing import AuditResult

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for bounds, plots and report.")]
CrossFitOption = Annotated[
    bool,
    typer.Option(
        "--cross-fit",
        help="Fit heads to the source's own labels; each structure is bounded by one new to its composition.",
    ),
]
PredictionsOption = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        metavar="TABLE",
        help="CSV, Parquet or JSON of energies that some model published for these structures: bound these (fits heads "
        "as --cross-fit).",
    ),
]
EnergyColumnOption = Annotated[
    str | None, typer.Option("--energy-column", metavar="NAME", help="Its column of total energies, eV.")
]
IdColumnOption = Annotated[
    str | None,
    typer.Option(
        "--id-column", metavar="NAME", help="Its column of ids.", show_default="id, material_id ..."
    ),
]


def audit(
    source: AuditSourceArgument,
    out: OutArgument,
    model: ModelOption = None,
    head: HeadOption = None,
    level: LevelOption = 0.95,
    energy_key: EnergyKeyOption = None,
    max_atoms: MaxAtomsOption = 500,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.float32,
    shard_rows: ShardRowsOption = 256,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    plots: PlotsOption = True,
    cross_fit: CrossFitOption = False,
    predictions: PredictionsOption = None,
    energy_column: EnergyColumnOption = None,
    id_column: IdColumnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bound every structure of a source and, where it has labels, measure how often the bounds hold.

    Coverage is measured on compositions that neither the model's training nor the head has seen (for a
    head made with --include-training: that the head has not used), where there are enough of them; the
    output says so.
    """
    from mace_bounds.auditing import AuditConfig
    from mace_bounds.auditing import audit as run
    from mace_bounds.features import ExtractSettings

    local(source)
    config = AuditConfig(
        level=level,
        plots=plots,
        cross_fit=cross_fit,
        predictions=predictions,
        energy_column=energy_column,
        id_column=id_column,
        extract=ExtractSettings(
            energy_key=energy_key,
            max_atoms=max_atoms,
            device=device.value,
            dtype=dtype.value,
            shard_rows=shard_rows,
            workers=workers,
            scheduler=scheduler,
        ),
    )
    with _console.progress("structures", None) as update:

        def progress(stage: str, done: int, failed: int, total: int | None) -> None:
            if stage == "features":
                update(done, failed)
            else:
                _console.note(f"{done} of {total} heads")

        result = run(source, out, model=model, head=head, config=config, progress=progress)
    if as_json:
        _console.write_json(result.summary)
    else:
        _print(result)


def _named(summary: dict[str, Any]) -> str:
    published = summary["published"]
    name = str(summary["model"]["name"])
    return f"{published['column']} (published energies; features of {name})" if published else name


def _print(result: AuditResult) -> None:
    from mace_bounds.cli.coverage import coverage_view, groups_view

    console, summary = _console.out(), result.summary
    counts, level = summary["counts"], summary["settings"]["level"]
    console.print(
        f"[bold]{counts['scored']:,} structures[/bold] bounded by {_named(summary)} with the head "
        f"{summary['head']['name']}"
        + (f", {counts['failed']:,} could not be scored" if counts["failed"] else "")
        + (f", {counts['suspect_labels']:,} suspect labels left out" if counts["suspect_labels"] else "")
        + ".",
        soft_wrap=True,
    )
    if summary["measured_on"]["n"]:
        console.print(coverage_view(summary["coverage"], "Measured coverage"))
        console.print(f"[dim]on {summary['measured_on']['sentence']}.[/dim]", soft_wrap=True)
        if result.coverage is not None:
            rows = result.coverage[result.coverage["rows"] == summary["measured_on"]["rows"]]
            groups = groups_view(rows, level, ("source", "chemistry"))
            if groups is not None:
                console.print(groups)
    else:
        console.print(f"[dim]Coverage is not measured: {summary['measured_on']['sentence']}.[/dim]")
    if summary["suspects"]["n"]:
        likely = f", {summary['suspects'].get('label', 0):,} of them rather by their label than by the model"
        console.print(f"{summary['suspects']['n']:,} suspect entries in suspects.csv{likely}.")
    for row in summary["failures"][:3]:
        console.print(f"[dim]{row['n']:,} not scored: {row['reason']}[/dim]", soft_wrap=True, markup=True)
    if (folder := summary["head"].get("folder")) and not summary["published"]:
        console.print(
            f"Head of all its labels: mace-bounds score FILE --head {result.folder / folder}", soft_wrap=True
        )
    names = [name for name in summary["files"] if "/" not in name]
    console.print(f"[bold]{result.report}[/bold]", soft_wrap=True)
    console.print(
        f"[dim]beside it {', '.join(n for n in names if n != result.report.name)}, plots/[/dim]",
        soft_wrap=True,
    )
