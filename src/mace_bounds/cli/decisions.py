"""``mace-bounds differences`` and ``hull``: which is lower, is it stable, and how sure is that."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from ase.data import atomic_numbers

from mace_bounds.bounds import BoundsPredictor, HullSettings
from mace_bounds.cli import console
from mace_bounds.cli.options import BOUNDS_OPTIONS, BoundsOptions, SourceArgument, takes
from mace_bounds.cli.output import Output
from mace_bounds.cli.sheet import Sheet
from mace_bounds.errors import SourceError
from mace_bounds.fitting import PredictionTable
from mace_bounds.settings import setting
from mace_bounds.structures import read_element_energies
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Wanted:
    """Which differences, as settings: one of the first four."""

    polymorphs: bool = setting(False, "Every pair of structures of one composition: which is lower.")
    volumes: bool = setting(
        False,
        "Every pair of structures of one composition and number of atoms, which you say are one crystal at several "
        "volumes: errors cancel more.",
    )
    formation: bool = setting(False, "Each structure less the elements.")
    reactions: Path | None = setting(
        None,
        "Reactions between ids or formulas of the source, such as Li2O + Fe2O3 -> 2 LiFeO2: one a line, or the column "
        "reaction of a CSV. Without numbers they are balanced.",
        metavar="FILE",
    )
    references: Path | None = setting(
        None,
        "For --formation: structures of the elements with labels, or JSON of eV/atom by element; the same energy in "
        "DFT and model. Default: the lowest labels of the elements in the source.",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        if sum((self.polymorphs, self.volumes, self.formation, self.reactions is not None)) != 1:
            raise SourceError(
                "say which differences: one of --polymorphs, --volumes, --formation and --reactions FILE."
            )
        if self.references is not None and not self.formation:
            raise SourceError("--references belong to --formation; leave them out.")

    def kind(self) -> Literal["polymorphs", "volumes", "formation"] | list[str]:
        """As :meth:`BoundsPredictor.differences` takes it."""
        if self.reactions is not None:
            return read_reactions(self.reactions)
        if self.volumes:
            return "volumes"
        return "polymorphs" if self.polymorphs else "formation"


_SHOWN = (
    ("id_a", "a"), ("id_b", "b"), ("reaction", "reaction"), ("formula", "formula"), ("value_mev_per_atom", "value"),
    ("lower_mev_per_atom", "lower"), ("upper_mev_per_atom", "upper"), ("probability_lower", "P(<0)"),
    ("flags", "flags"),
)  # fmt: skip
_MOST_SHOWN = 40


@takes(wanted=Wanted, options=BOUNDS_OPTIONS, output=Output, predictions=PredictionTable)
def differences(
    source: SourceArgument,
    *,
    wanted: Wanted,
    options: BoundsOptions,
    output: Output,
    predictions: PredictionTable,
) -> None:
    """Bound differences of energies, in which errors cancel: polymorphs, volumes, formation energies, reactions.

    Energies are per atom, of reactions per atom of what is made. Exit code 0 if at least one difference was bounded, 1
    if none was.
    """
    from mace_bounds.bounds import LEFT_OUT, joint_note

    kind, of, energies = output.kind(), wanted.kind(), predictions.by_id()
    predictor = options.predictor()
    console.note_models(predictor, given=energies is not None)
    given = _references(wanted.references, predictor) if wanted.references is not None else None
    table = predictor.differences(source, of, references=given, energies=energies)
    failed = table["reason"].notna()
    if kind == "table":
        if not failed.all():
            _show_differences(table)
        console.say(LEFT_OUT, wrap=True)
    else:
        output.write(table, kind)
        console.note(LEFT_OUT)
    for sentence in (predictor.note, joint_note(predictor.joint_model)):
        if sentence:
            console.note(f"note: {sentence}")
    console.note_failures(table.assign(id=table["reaction"].fillna(table["id_a"])))
    if failed.all() and (wanted.polymorphs or wanted.volumes):
        size = " and number of atoms" if wanted.volumes else ""
        console.note(f"no two structures of the source have one composition{size}.")
    if failed.all():
        raise typer.Exit(1)


def read_reactions(path: Path) -> list[str]:
    """Reactions of a file: a line each, or the column ``reaction`` of a CSV; ``#`` begins a comment."""
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
    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise SourceError(f"{path} cannot be read as JSON of reference energies; check it.") from None
        if isinstance(values, dict) and not atomic_numbers.keys().isdisjoint(values):
            return dict(read_element_energies(path))
    return predictor.element_references(path)


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
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if title == "P(<0)" else f"{value:+.1f}"
    return str(value)


PhasesOption = Annotated[
    str | None,
    typer.Option(
        "--phases",
        metavar="SOURCE",
        help="Competing phases: entries of the Materials Project (entries.json, mp:Li-Fe-P-O), any file of structures, "
        "or a feature store. Default: the candidates compete with each other.",
    ),
]


@takes(options=BOUNDS_OPTIONS, output=Output, predictions=PredictionTable, settings=HullSettings)
def hull(
    candidates: SourceArgument,
    phases: PhasesOption = None,
    *,
    options: BoundsOptions,
    output: Output,
    predictions: PredictionTable,
    settings: HullSettings,
) -> None:
    """Bound the distance of crystals from the convex hull of competing phases.

    Energies of candidates are the model's with its bounds; those of competing phases are their labels where there are
    any. Exit code 0 if at least one candidate has a distance, 1 if none has.
    """
    from mace_bounds.bounds import LEFT_OUT

    kind, energies = output.kind(), predictions.by_id()
    predictor = options.predictor()
    console.note_models(predictor, given=energies is not None)
    found = predictor.hull(candidates, phases, settings, energies=energies)
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
