"""``mace-bounds calibrate``: a few labels of one's own shift and scale a head that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds._io import write_json
from mace_bounds.cli import console
from mace_bounds.cli.download import fetch_query
from mace_bounds.cli.heads import OverwriteOption
from mace_bounds.cli.options import READING_FIELDS, BoundsOptions, JsonOption, only, takes
from mace_bounds.cli.sheet import Sheet
from mace_bounds.cli.views import print_labels
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.fitting import CalibrateConfig, CalibrateReport, CardNotes
from mace_bounds.levels import percent

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
    write_json(out.with_name(f"{out.name}.summary.json"), summary)
    if as_json:
        console.write_json(summary)
    else:
        _print(report, out)


def _print(report: CalibrateReport, out: Path) -> None:
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
