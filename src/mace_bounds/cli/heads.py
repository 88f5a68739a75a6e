"""``mace-bounds fit``: a feature store to a calibrated head; prints what it covers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.options import Conformal, Groups, JsonOption, Posterior, SplitBy, StoreArgument

if TYPE_CHECKING:
    from mace_bounds.fitting import FitReport

HeadArgument = Annotated[Path, typer.Argument(metavar="HEAD", help="Folder of the new head.")]
TrainedModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="Where the model's own training compositions are looked up.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the splits and folds.")]
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", min=1, help="Measure coverage over this many splits; the first head is kept."),
]
FitShareOption = Annotated[
    float, typer.Option("--fit-share", min=0.05, max=0.95, help="Share of the groups that fit the head.")
]
CalibrationShareOption = Annotated[
    float,
    typer.Option(
        "--calibration-share", min=0.05, max=0.95, help="Share that calibrates it; cross also fits it."
    ),
]
SplitByOption = Annotated[SplitBy, typer.Option("--split-by", help="What never straddles two splits.")]
PosteriorOption = Annotated[Posterior, typer.Option("--posterior", help="The POPS posterior.")]
ClipOption = Annotated[
    float, typer.Option("--clip-percent", min=0.0, max=49.0, help="Tail of the corrections cut on each side.")
]
CompositionOption = Annotated[
    bool, typer.Option("--composition/--no-composition", help="Join atomic fractions to the features.")
]
BalanceOption = Annotated[
    bool, typer.Option("--balance", help="Give every source the same total weight, whatever its size.")
]
ConformalOption = Annotated[
    Conformal,
    typer.Option(
        "--conformal",
        help="Calibrate by rows that folds leave out (every row fits and calibrates), or by rows set apart.",
    ),
]
SignedOption = Annotated[
    bool,
    typer.Option("--signed", help="Calibrate lower and upper bounds by themselves; needs twice the rows."),
]
GroupsOption = Annotated[
    Groups,
    typer.Option(
        "--groups", help="Calibrate each of these with 200 rows or more by itself; bounds get wider."
    ),
]
IncludeTrainingOption = Annotated[
    bool,
    typer.Option(
        "--include-training",
        help="Use compositions from the model's own training too; if it knew such labels, bounds are too narrow.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the head that is there.")]
NotesOption = Annotated[str, typer.Option("--notes", help="For the card: what the data are.")]
LicenceOption = Annotated[str, typer.Option("--licence", help="For the card: licence of the data.")]


def fit(
    store: StoreArgument,
    head: HeadArgument,
    model: TrainedModelOption = None,
    seed: SeedOption = 0,
    repeats: RepeatsOption = 1,
    fit_share: FitShareOption = 0.6,
    calibration_share: CalibrationShareOption = 0.25,
    split_by: SplitByOption = SplitBy.formula,
    posterior: PosteriorOption = Posterior.hypercube,
    clip_percent: ClipOption = 0.5,
    composition: CompositionOption = True,
    balance: BalanceOption = False,
    conformal: ConformalOption = Conformal.folds,
    signed: SignedOption = False,
    groups: GroupsOption = Groups.none,
    include_training: IncludeTrainingOption = False,
    overwrite: OverwriteOption = False,
    notes: NotesOption = "",
    licence: LicenceOption = "",
    as_json: JsonOption = False,
) -> None:
    """Fit and calibrate a head on labelled features, and measure what it covers.

    Splits go by composition: what measures coverage has been seen neither by the fit nor by the
    calibration, nor, unless it is included, by the model's own training where that is known.
    """
    from mace_bounds.calibration import FitConfig
    from mace_bounds.errors import HeadError
    from mace_bounds.fitting import fit as run

    if fit_share + calibration_share >= 1:
        raise HeadError(
            f"expected shares that leave rows to measure on, got {fit_share:g} + {calibration_share:g}; lower one."
        )
    config = FitConfig(
        fit_share=fit_share,
        calibration_share=calibration_share,
        seed=seed,
        split_by=split_by.value,
        composition=composition,
        posterior=posterior.value,
        clip_percent=clip_percent,
        balance=balance,
        conformal=conformal.value,
        signed=signed,
        groups=groups.value,
    )
    with _console.progress("splits", repeats) as update:
        report = run(
            store,
            head,
            config,
            model=model,
            repeats=repeats,
            include_training=include_training,
            overwrite=overwrite,
            notes=notes,
            licence=licence,
            progress=lambda done, _: update(done, 0),
        )
    summary = _summary(report, store)
    _console.write_summary(head.with_name(f"{head.name}.summary.json"), summary)
    if as_json:
        _console.write_json(summary)
    else:
        _print(report, head)


def _summary(report: FitReport, store: Path) -> dict[str, object]:
    about = report.head.provenance
    return {
        "command": "fit",
        "store": str(store),
        "head": str(report.folder),
        **{k: about[k] for k in ("settings", "versions", "rows", "left_out", "coverage", "metrics")},
        **{k: about[k] for k in ("coverage_over_splits", "includes_training", "test_rows_in_training")},
        "model": {"name": report.head.identity.model, "digest": report.head.identity.model_digest},
    }


def _print(report: FitReport, head: Path) -> None:
    from mace_bounds.cli.coverage import coverage_view, groups_view

    console, about = _console.out(), report.head.provenance
    rows = ", ".join(f"{n:,} {name}" for name, n in report.splits.items() if n)
    console.print(f"[bold]{head}[/bold]  [dim]head for {report.head.identity.model}: {rows}[/dim]")
    for reason, n in report.left_out.items():
        console.print(f"[dim]left out: {n:,} ({reason})[/dim]")
    title = "compositions not used by the head" if about["includes_training"] else "unseen compositions"
    console.print(coverage_view(about["coverage"], f"Coverage on {title}"))
    if about["includes_training"]:
        console.print(
            f"[dim]{about['test_rows_in_training']:,} of these {about['rows']['test']:,} structures have compositions "
            "that the model's own training has seen.[/dim]",
            soft_wrap=True,
        )
    if len(report.repeats) and int(report.repeats["n_splits"].iloc[0]) > 1:
        view = _console.plain_table(
            "level",
            "mean",
            "± over splits",
            "lowest",
            "highest",
            right=("level", "mean", "± over splits", "lowest", "highest"),
            title=f"Over {int(report.repeats['n_splits'].iloc[0])} splits",
        )
        for row in report.repeats.to_dict("records"):
            shares = (row["level"], row["mean"], row["std"], row["minimum"], row["maximum"])
            view.add_row(*(f"{100 * share:.1f} %" for share in shares))
        console.print(view)
    level = 0.95 if 0.95 in report.head.levels else report.head.levels[-1]
    groups = groups_view(report.coverage, level, ("source", "chemistry"))
    if groups is not None:
        console.print(groups)
    centre = report.head.centre.describe()
    console.print(f"[dim]Centred on {centre}; scale {report.head.scale.kind}.[/dim]", soft_wrap=True)
    console.print(f"[dim]Use it: mace-bounds score FILE --head {head}[/dim]", soft_wrap=True)
