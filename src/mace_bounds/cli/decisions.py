"""``mace-bounds differences`` and ``hull``: which is lower, is it stable, and how sure is that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.bounds import BoundsPredictor, HullSettings
from mace_bounds.cli import console
from mace_bounds.cli.options import BOUNDS_OPTIONS, BoundsOptions, SourceArgument, takes
from mace_bounds.cli.output import Output
from mace_bounds.cli.sheet import Sheet
from mace_bounds.errors import SourceError
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd

PolymorphsOption = Annotated[
    bool, typer.Option("--polymorphs", help="Every pair of structures of one composition: which is lower.")
]
FormationOption = Annotated[bool, typer.Option("--formation", help="Each structure less the elements.")]
ReactionsOption = Annotated[
    Path | None,
    typer.Option(
        "--reactions",
        metavar="FILE",
        help="Reactions between ids or formulas of the source, such as Li2O + Fe2O3 -> 2 LiFeO2: one a line, or the "
        "column reaction of a CSV. Without numbers they are balanced.",
    ),
]
ReferencesOption = Annotated[
    Path | None,
    typer.Option(
        "--references",
        metavar="FILE",
        help="For --formation: structures of the elements with labels, or JSON of eV/atom by element; the same energy "
        "in DFT and model. Default: the lowest labels of the elements in the source.",
    ),
]

_SHOWN = (
    ("id_a", "a"), ("id_b", "b"), ("reaction", "reaction"), ("formula", "formula"), ("value_mev_per_atom", "value"),
    ("lower_mev_per_atom", "lower"), ("upper_mev_per_atom", "upper"), ("probability_lower", "P(<0)"),
    ("flags", "flags"),
)  # fmt: skip
_MOST_SHOWN = 40


@takes(options=BOUNDS_OPTIONS, output=Output)
def differences(
    source: SourceArgument,
    polymorphs: PolymorphsOption = False,
    formation: FormationOption = False,
    reactions: ReactionsOption = None,
    references: ReferencesOption = None,
    *,
    options: BoundsOptions,
    output: Output,
) -> None:
    """Bound differences of energies, in which errors cancel: polymorphs, formation energies, reactions.

    Energies are per atom, of reactions per atom of what is made. Exit code 0 if at least one difference was bounded, 1
    if none was.
    """
    from mace_bounds.bounds import LEFT_OUT

    if sum((polymorphs, formation, reactions is not None)) != 1:
        raise SourceError("say which differences: one of --polymorphs, --formation and --reactions FILE.")
    if references is not None and not formation:
        raise SourceError("--references belong to --formation; leave them out.")
    kind = output.kind()
    several = read_reactions(reactions) if reactions is not None else []
    predictor = options.predictor()
    given = _references(references, predictor) if references is not None else None
    table = predictor.differences(
        source, several or ("polymorphs" if polymorphs else "formation"), references=given
    )
    if kind == "table":
        if table["reason"].isna().any():
            _show_differences(table)
        console.say(LEFT_OUT, wrap=True)
    else:
        output.write(table, kind)
        console.note(LEFT_OUT)
    if not predictor.joint_model.reliability:
        console.note(
            f"note: the head {predictor.head.name} knows nothing of joint errors, which were taken as independent; fit "
            "it again to have them."
        )
    failed = table[table["reason"].notna()]
    for row in records(failed.head(console.MAX_NAMED)):
        console.note(f"{row['reaction'] or row['id_a']}: {row['reason']}")
    if not len(table):
        console.note("no two structures of the source have one composition.")
    if len(table) == len(failed):
        raise typer.Exit(1)


def read_reactions(path: Path) -> list[str]:
    """Reactions of a file: a line each, or the column ``reaction`` of a CSV; ``#`` begins a comment."""
    import csv

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read as a text of reactions ({type(error).__name__}); check it."
        ) from None
    rows = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    header = [cell.strip() for cell in next(csv.reader(rows[:1]), [])]
    if "reaction" in header:
        place = header.index("reaction")
        found = [row[place] for row in csv.reader(rows[1:]) if len(row) > place and row[place].strip()]
    else:
        found = [row.strip() for row in rows]
    if not found:
        raise SourceError(f"{path} holds no reaction; write one a line, as Li2O + Fe2O3 -> 2 LiFeO2.")
    return found


def _references(path: Path, predictor: BoundsPredictor) -> dict[str, float]:
    """Energies of the elements from JSON of numbers, or from labelled structures."""
    from mace_bounds.bounds import element_references

    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise SourceError(f"{path} cannot be read as JSON of reference energies; check it.") from None
        if isinstance(values, dict) and values and all(isinstance(v, (int, float)) for v in values.values()):
            return {str(element): float(value) for element, value in values.items()}
    found = element_references(predictor.decision_rows(str(path)))
    if not found:
        raise SourceError(
            f"{path} holds no element with a DFT energy; give structures of the elements with labels."
        )
    return found


def _show_differences(table: pd.DataFrame) -> None:
    """Print the first rows, meV/atom."""
    shown = [(name, title) for name, title in _SHOWN if name in table and table[name].notna().any()]
    sheet = Sheet(*(title for _, title in shown), numbers=("value", "lower", "upper", "P(<0)"))
    good = table[table["reason"].isna()]
    for row in good.head(_MOST_SHOWN)[[name for name, _ in shown]].itertuples(index=False):
        sheet.add(*(_cell(value, title) for value, (_, title) in zip(row, shown, strict=True)))
    console.show(sheet)
    if len(good) > _MOST_SHOWN:
        console.say(f"{len(good) - _MOST_SHOWN:,} more; write them with --output FILE.")
    console.say("meV/atom; lower and upper bound E_a - E_b, or right side less left, by DFT.", wrap=True)


def _cell(value: Any, title: str) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if title == "P(<0)" else f"{value:+.1f}"
    return "" if value is None else str(value)


PhasesOption = Annotated[
    str | None,
    typer.Option(
        "--phases",
        metavar="SOURCE",
        help="Competing phases: entries of the Materials Project (entries.json, mp:Li-Fe-P-O), any file of structures, "
        "or a feature store. Default: the candidates compete with each other.",
    ),
]


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
        _show_hull(found.table)
        console.say(LEFT_OUT, wrap=True)
    else:
        output.write(found.table, kind)
        console.note(LEFT_OUT)
    for sentence in found.notes:
        console.note(f"note: {sentence}")
    console.note_failures(found.table)
    if found.table["reason"].notna().all():
        raise typer.Exit(1)


def _show_hull(table: pd.DataFrame) -> None:
    """Print the first rows, nearest to the hull first."""
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
