"""``mace-bounds build``: the whole path to a head for one model, in one command that can be stopped at any time."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.fit import BalanceOption, IncludeTrainingOption
from mace_bounds.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    EnergyKeyOption,
    JsonOption,
    MaxAtomsOption,
    PlotsOption,
    SchedulerOption,
    ShardRowsOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from mace_bounds.pipeline import BuildResult


class Stage(StrEnum):
    """The stages of a build, in order."""

    download = "download"
    features = "features"
    fit = "fit"
    audit = "audit"


OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder for downloads, features, head and report.")
]
SourceOption = Annotated[
    str,
    typer.Option(
        "--source",
        "-s",
        metavar="SOURCE",
        help="Labelled structures: a Materials Project query, a file, a folder, a glob, or a feature store.",
    ),
]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="SOURCE",
        help="More labelled structures, such as ones new to the model; repeatable.",
    ),
]
BuildModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|PATH", help="The frozen model to build a head for.")
]
CrossFitOption = Annotated[
    bool,
    typer.Option(
        "--cross-fit",
        help="Let the audit fit heads of its own, so that each label is bounded by one new to it: six times the fit.",
    ),
]
UntilOption = Annotated[Stage, typer.Option("--until", help="Stop after this stage; later the rest.")]
InstallOption = Annotated[
    str | None,
    typer.Option(
        "--install", metavar="NAME", help="Copy the head to your own heads, where score and audit look."
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only say what would be fetched, how long it takes here, and how much disk."
    ),
]


def build(
    out: OutArgument,
    source: SourceOption = "mp:all",
    more: WithOption = None,
    model: BuildModelOption = "medium-mpa-0",
    include_training: IncludeTrainingOption = False,
    balance: BalanceOption = False,
    cross_fit: CrossFitOption = False,
    energy_key: EnergyKeyOption = None,
    max_atoms: MaxAtomsOption = 500,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.float32,
    shard_rows: ShardRowsOption = 256,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    plots: PlotsOption = True,
    until: UntilOption = Stage.audit,
    install: InstallOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a head for a model: download, features, fit, audit, in one command that resumes.

    The run can be stopped at any time; the same command goes on, and stages that are done are not done again.
    """
    question: dict[str, Any] = {
        "source": source,
        "also": more or (),
        "model": model,
        "include_training": include_training,
        "balance": balance,
        "cross_fit": cross_fit,
        "energy_key": energy_key,
        "max_atoms": max_atoms,
        "dtype": dtype.value,
        "shard_rows": shard_rows,
        "device": device.value,
        "workers": workers,
        "scheduler": scheduler,
    }
    if dry_run:
        from mace_bounds.cli.build_plan import print_plan
        from mace_bounds.pipeline import plan

        told = plan(out, **question, note=_console.note)
        _console.write_json(told.as_dict()) if as_json else print_plan(told)
        return
    from mace_bounds.pipeline import build as run
    from mace_bounds.pipeline import install_head

    with _Stages() as stages:
        result = run(
            out, **question, plots=plots, until=until.value, progress=stages.update, note=_console.note
        )
    installed = install_head(result.head, install) if install and result.head else None
    if install and installed is None:
        _console.note(
            f"note: nothing to install before the fit; add --install {install} to the command that does it"
        )
    if as_json:
        values = {"folder": str(result.folder), "training": result.training, "stages": result.stages}
        _console.write_json({**values, "installed": str(installed) if installed else None})
    else:
        _print(result, out, model, installed, until)


class _Stages:
    """Progress of one stage after another, each with its own bar."""

    def __init__(self) -> None:
        self._stack, self._stage = ExitStack(), ""
        self._update: _console.Update | None = None

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, stage: str, done: int, failed: int, total: int | None) -> None:
        """Tell how far a stage is."""
        if stage != self._stage:
            self._stack.close()
            what = {"download": "documents", "fit": "heads", "audit": "heads"}.get(stage, "structures")
            self._stage = stage
            self._update = self._stack.enter_context(_console.progress(f"{what} ({stage})", total))
        if self._update is not None:
            self._update(done, failed, total)


def _print(result: BuildResult, out: Path, model: str, installed: Path | None, until: Stage) -> None:
    from mace_bounds.cli.coverage import coverage_view

    console, stages = _console.out(), result.stages
    for name, stage in stages.items():
        if name.startswith("features"):
            made = stage["made"]
            failed = f", {made['failed']:,} with a reason instead" if made["failed"] else ""
            console.print(
                f"[dim]{made['rows'] - made['failed']:,} structures in {out / made['folder']}{failed}[/dim]",
                soft_wrap=True,
            )
    if result.head is None:
        _console.note("next: the same command without --until")
        if until is Stage.download:
            _print_arrays(stages["download"]["made"]["sources"], model)
        return
    made = stages["fit"]["made"]
    rows = ", ".join(f"{n:,} {name}" for name, n in made["rows"].items() if n)
    console.print(f"[bold]{out / 'head'}[/bold]  [dim]head for {model}: {rows}[/dim]", soft_wrap=True)
    console.print(coverage_view(made["coverage"], "Coverage on compositions that the head has not seen"))
    style = "dim" if made["new_to_model"] else "bold"
    console.print(result.training, style=style, soft_wrap=True, markup=False)
    if result.report is not None:
        console.print(f"[bold]{out / 'audit' / 'report.html'}[/bold]", soft_wrap=True)
    if installed is not None:
        console.print(f"Installed as {installed}: mace-bounds score FILE --model {model}", soft_wrap=True)
    else:
        console.print(
            f"[dim]Use it: mace-bounds score FILE --model {model} --head {out / 'head'} (or --install NAME)[/dim]",
            soft_wrap=True,
        )


def _print_arrays(sources: list[dict[str, Any]], model: str) -> None:
    """Say how an array of jobs does the features; what these need is here."""
    for source in sources:
        if source["kind"] != "store":
            _console.note(
                f"or first, as an array of jobs: sbatch --array=1-8 scripts/slurm_features.sh {source['path']} "
                f"{source['features']} --atoms --symmetry --model {model}"
            )
    _console.note(
        "(with the same --dtype, --max-atoms, --energy-key and --shard-rows where these were given)"
    )
