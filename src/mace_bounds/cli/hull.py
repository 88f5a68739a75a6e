"""``mace-bounds hull``: is a crystal stable, and how sure is that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mace_bounds.bounds import HullSettings
from mace_bounds.cli import console
from mace_bounds.cli.options import BOUNDS_OPTIONS, BoundsOptions, SourceArgument, takes
from mace_bounds.cli.output import Output
from mace_bounds.columns import records

if TYPE_CHECKING:
    import pandas as pd

PhasesOption = Annotated[
    str | None,
    typer.Option(
        "--phases",
        metavar="SOURCE",
        help="Competing phases: entries of the Materials Project (entries.json, mp:Li-Fe-P-O), any file of structures, "
        "or a feature store. Default: the candidates compete with each other.",
    ),
]
_MOST_SHOWN = 40


@takes(options=BOUNDS_OPTIONS, output=Output, settings=HullSettings)
def hull(
    candidates: SourceArgument,
    phases: PhasesOption = None,
    *,
    options: BoundsOptions,
    output: Output,
    settings: HullSettings,
) -> None:
    """Bound the distance of crystals from the convex hull of competing phases.

    Energies of candidates are the model's with its bounds; those of competing phases are their labels where there are
    any. Exit code 0 if at least one candidate has a distance, 1 if none has.
    """
    from mace_bounds.bounds import LEFT_OUT

    kind = output.kind()
    found = options.predictor().hull(candidates, phases, settings)
    if kind == "table":
        _show(found.table)
        console.say(LEFT_OUT, wrap=True)
    else:
        output.write(found.table, kind)
        console.note(LEFT_OUT)
    for sentence in found.notes:
        console.note(f"note: {sentence}")
    console.note_failures(found.table)
    if found.table["reason"].notna().all():
        raise typer.Exit(1)


def _show(table: pd.DataFrame) -> None:
    """Print the first rows, nearest to the hull first."""
    from mace_bounds.cli.sheet import Sheet

    numbers = ("above hull", "lower", "upper", "P(stable)", "P(<50 meV)")
    sheet = Sheet("id", "formula", *numbers, "decomposition", "flags", numbers=numbers)
    good = table[table["reason"].isna()].sort_values("e_above_hull_ev_per_atom", kind="stable")
    for row in records(good.head(_MOST_SHOWN)):
        bounds = [
            f"{row[name]:+.3f}"
            for name in ("e_above_hull_ev_per_atom", "lower_ev_per_atom", "upper_ev_per_atom")
        ]
        likely = ["" if row[name] is None else f"{row[name]:.2f}" for name in ("p_stable", "p_within_50mev")]
        mixture = str(row["decomposition"] or "").split(";")[0]
        sheet.add(str(row["id"]), str(row["formula"]), *bounds, *likely, mixture, str(row["flags"] or ""))
    console.show(sheet)
    if len(good) > _MOST_SHOWN:
        console.say(f"{len(good) - _MOST_SHOWN:,} more; write them with --output FILE.")
    console.say("eV/atom; below 0 a crystal is stable by so much.")
