"""``mace-bounds fit``, ``calibrate``, ``heads`` and ``models``: labels to a calibrated head; what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mace_bounds._io import heads_folder, summary_path, write_json
from mace_bounds.calibration import CalibratedHead, FitConfig
from mace_bounds.cli import console
from mace_bounds.cli.download import fetch_query
from mace_bounds.cli.options import (
    BoundsOptions,
    JsonOption,
    StoreArgument,
    TrainedModelOption,
    only,
    takes,
)
from mace_bounds.cli.sheet import Sheet
from mace_bounds.cli.views import heads_view, models_view, print_fit, print_labels
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.features import READING_FIELDS
from mace_bounds.fitting import CalibrateConfig, CalibrateReport, CardNotes, FitReport
from mace_bounds.levels import percent

HeadArgument = Annotated[Path, typer.Argument(metavar="HEAD", help="Folder of the new head.")]
RepeatsOption = Annotated[
    int,
    typer.Option(
        "--repeats", min=1, max=1000, help="Measure coverage over this many splits; the first head is kept."
    ),
]
IncludeTrainingOption = Annotated[
    bool,
    typer.Option(
        "--include-training",
        help="Also use compositions from the model's own training. Warning: the model may have been trained on these "
        "labels, which makes the bounds too narrow.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the head that is there.")]
ActionArgument = Annotated[
    Literal["install", "remove"] | None,
    typer.Argument(
        metavar="[install|remove]", help="Copy a head to your own, or delete one; else list them."
    ),
]
WhichArgument = Annotated[
    str | None,
    typer.Argument(metavar="[HEAD]", help="Folder of the head to install, name of the one to remove."),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Under which name to install it.", show_default="its folder's")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an installed head of this name.")]


@takes(card=CardNotes, config=FitConfig)
def fit(
    store: StoreArgument,
    head: HeadArgument,
    model: TrainedModelOption = None,
    repeats: RepeatsOption = 1,
    include_training: IncludeTrainingOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    *,
    card: CardNotes,
    config: FitConfig,
) -> None:
    """Fit and calibrate a head on labelled features, and measure its coverage.

    Splits go by composition: the structures that measure coverage have compositions that neither the fit nor the
    calibration has used, nor, unless they are included, the model's own training where that is known.
    """
    from mace_bounds.errors import HeadError
    from mace_bounds.features import FeatureStore
    from mace_bounds.fitting import fit as run
    from mace_bounds.fitting import fitted_before, inputs_sha256
    from mace_bounds.head import check_head_target, is_head_folder

    if not overwrite and is_head_folder(head):
        options: dict[str, Any] = {"include_training": include_training, "repeats": repeats}
        inputs = inputs_sha256(FeatureStore(store), config, model, **options)
        if (done := fitted_before(head, inputs, card)) is not None:
            _finish(done, head, store, as_json=as_json)
            return
    check_head_target(head, overwrite=overwrite)
    if config.fit_share + config.calibration_share >= 1:
        raise HeadError(
            f"the shares {config.fit_share:g} + {config.calibration_share:g} leave no rows to measure "
            "coverage on; lower one."
        )
    with console.progress("splits", repeats) as update:
        report = run(
            store,
            config=config,
            model=model,
            repeats=repeats,
            include_training=include_training,
            progress=lambda done, _: update(done, 0),
        )
    report = report.save(head, card, overwrite=overwrite)
    _finish(report.head, head, store, as_json=as_json, report=report)


def _finish(
    fitted: CalibratedHead, head: Path, store: Path, *, as_json: bool, report: FitReport | None = None
) -> None:
    """Write the summary beside a head, and show what was measured, or that it was there before."""
    summary = _summary(fitted, head, store)
    write_json(summary_path(head), summary)
    if as_json:
        console.write_json(summary)
    elif report is not None:
        print_fit(report, head)
    else:
        console.say(
            f"{head} is the head that this command makes, and is kept; --overwrite makes it again. Its coverage is in "
            f"{head / 'README.md'}."
        )


def _summary(fitted: CalibratedHead, head: Path, store: Path) -> dict[str, object]:
    from mace_bounds.fitting import Verdict

    about = fitted.provenance
    return {
        "command": "fit",
        "store": str(store),
        "head": str(head),
        **{k: about[k] for k in ("settings", "versions", "rows", "left_out", "coverage", "metrics")},
        **{k: about[k] for k in ("coverage_over_splits", "includes_training", "test_rows_in_training")},
        "verdict": {**about["verdict"], "sentence": Verdict(**about["verdict"]).sentence},
        "guarantee": fitted.guarantee,
        "sources_left_out": about.get("sources_left_out", {}),
        "flagged": about.get("flagged", []),
        "quantity": fitted.identity.quantity,
        "model": {"name": fitted.identity.model, "digest": fitted.identity.model_digest},
    }


def heads(
    action: ActionArgument = None,
    head: WhichArgument = None,
    name: NameOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the installed heads and their measured coverage.

    Heads are looked for among those that ship with the package, and in your own folder; install and remove change the
    latter. A head that is installed is found by the name of its model alone.
    """
    from mace_bounds.bounds import install_head, list_heads, remove_head

    if action is not None:
        if head is None:
            raise typer.BadParameter(f"name the head: mace-bounds heads {action} HEAD")
        path = install_head(head, name, force=force) if action == "install" else remove_head(head)
        if as_json:
            console.write_json({"command": f"heads {action}", "head": str(path)})
        else:
            console.say(f"installed as {path}" if action == "install" else f"removed {path}")
        return
    cards = list_heads()
    if as_json:
        console.write_json(
            [{**card.__dict__, "path": str(card.path), "levels": list(card.levels)} for card in cards]
        )
        return
    if cards:
        console.show(heads_view(cards))
        if without := [card.name for card in cards if not card.golden and not card.reason]:
            console.note(
                "without golden energies, so that their models are identified by their tensors alone: "
                + ", ".join(without)
            )
    else:
        console.say("No heads found.")
    console.note(f"your own heads are looked for in {heads_folder()} (or in $MACE_BOUNDS_HEADS)")


def models(as_json: JsonOption = False) -> None:
    """List the models that can be loaded.

    These are mini, which ships with the package, the models that mace downloads on first use, and CHGNet, whose package
    has its weights.
    """
    from mace_bounds.backbones import list_models
    from mace_bounds.bounds import list_heads

    cards = list_heads()
    rows = [{**one.__dict__, "heads": [c for c in cards if c.is_of(one.name)]} for one in list_models()]
    if as_json:
        console.write_json([row | {"heads": [card.name for card in row["heads"]]} for row in rows])
        return
    console.show(models_view(rows))
    console.note(
        "any other MACE model: --model PATH; a head for a model: mace-bounds features, then mace-bounds fit"
    )


OldHeadArgument = Annotated[
    str, typer.Argument(metavar="HEAD", help="The name of an installed head, or a head folder.")
]
LabelsArgument = Annotated[
    str,
    typer.Argument(
        metavar="LABELS",
        help="20 to 60 labelled structures: a file, a folder, a glob, - for standard input, mp:QUERY, or a feature "
        "store.",
    ),
]
NewHeadArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new head.")]


@takes(
    options=only(BoundsOptions, "model"),
    card=CardNotes,
    config=only(
        CalibrateConfig,
        *("predictions", "energy_column", "id_column", "include_training"),
        *("quantity", "trained_on", "kept_rows", *READING_FIELDS),
    ),
)
def calibrate(
    head: OldHeadArgument,
    labels: LabelsArgument,
    out: NewHeadArgument,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    *,
    options: BoundsOptions,
    card: CardNotes,
    config: CalibrateConfig,
) -> None:
    """Shift and scale an installed head by 20 to 60 labels of your own, and say what that gains.

    Both are drawn to the old head by as much as the labels leave open, so that few labels cannot do harm. What is
    gained is measured on each label by a head that was changed without its composition.
    """
    from mace_bounds.fitting import calibrate as run
    from mace_bounds.fitting import calibrated_before
    from mace_bounds.head import check_head_target, is_head_folder

    again = not overwrite and is_head_folder(out)
    if not again:
        check_head_target(out, overwrite=overwrite)
    fetch_query(labels)
    report = run(head, labels, config=config, model=options.model)
    if again and (done := calibrated_before(out, report, card)) is not None:
        console.note(f"{out} is the head that this command makes, and is kept; --overwrite makes it again.")
        report = done
    else:
        report = report.save(out, card, overwrite=overwrite)
    summary = {
        "command": "calibrate",
        "head": str(out),
        "labels_from": labels,
        "quantity": report.head.identity.quantity,
        "model": {"name": report.head.identity.model, "digest": report.head.identity.model_digest},
        **report.head.provenance["recalibrated"],
        "verdict": report.sentence,
    }
    write_json(summary_path(out), summary)
    if as_json:
        console.write_json(summary)
    else:
        _print_calibration(report, out)


def _print_calibration(report: CalibrateReport, out: Path) -> None:
    about = report.head.provenance["recalibrated"]
    parent, change = about["parent"]["name"], report.change
    what = f"{about['n_labels']:,} labels of {about['n_compositions']:,} compositions"
    console.say((str(out), "bold"), (f"  the head {parent} with {what}", "dim"), wrap=True)
    print_labels(report.labels)
    for reason, n in report.left_out.items():
        console.say((f"left out: {n:,} ({reason})", "dim"))
    numbers = ("level", "before", "after", "width before (meV/atom)", "after (meV/atom)")
    view = Sheet(
        *numbers, numbers=numbers, title="Coverage, each label by a head changed without its composition"
    )
    for old, new in zip(about["before"], about["after"], strict=True):
        shares = (f"{100 * row['coverage']:.1f} %" for row in (old, new))
        widths = (f"{row['median_width_mev_per_atom']:.0f}" for row in (old, new))
        view.add(f"{percent(old['level'])} %", *shares, *widths)
    console.show(view)
    console.say((report.sentence, "bold"), wrap=True)
    if change.changes:
        console.say(
            (
                f"Expected errors are shifted by {MEV_PER_EV * change.shift_ev_per_atom:+.1f} meV/atom, widths "
                f"multiplied by {change.factor:.2f}.",
                "dim",
            ),
            wrap=True,
        )
    else:
        console.say(("Its bounds are those of the old head.", "dim"))
    console.say((f"Use it: mace-bounds score FILE --head {out}", "dim"))
