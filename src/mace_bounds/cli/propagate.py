"""``mace-bounds propagate``: errors of the energy, carried into volumes, elastic constants and phases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from ase.data import chemical_symbols

from mace_bounds.cli import console
from mace_bounds.cli.options import BoundsOptions, FilesArgument, only, takes
from mace_bounds.cli.output import Output
from mace_bounds.errors import SourceError
from mace_bounds.flags import FLAGS, flag_names
from mace_bounds.propagation import PropagateSettings, PropertyName
from mace_bounds.settings import setting
from mace_bounds.structures import Record
from mace_bounds.tables import records, stamped

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.calibration import CalibratedHead

PropertyArgument = Annotated[
    str,  # one of PropertyName: a line of all of them would not fit into help of 60 columns
    typer.Argument(
        metavar="PROPERTY",
        help="eos: equilibrium volume, bulk modulus and its derivative; elastic: elastic constants; phases: energies "
        "of all structures less the first, and transition pressures; vacancy, interstitial: formation energy; surface: "
        "surface energy; fault: energies of a slip along a plane, or of several structures as a path; relax: relaxed "
        "positions; phonons: frequencies.",
    ),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw values and intervals (.png, .svg, .pdf).")
]
_MOST_SHOWN = 60


@dataclass(frozen=True)
class PropertyOptions(BoundsOptions):
    """What gives properties: a model, with a head of one chemistry or without."""

    head: str | None = setting(
        None,
        "A head of one chemistry (mace-bounds fit-material), whose draws give the intervals. Default: the "
        "model itself, with the measured errors of its properties where they are known.",
        metavar="NAME|PATH",
    )


@takes(
    options=only(PropertyOptions, "model", "head", "level", "max_atoms", "device", "memory_bytes"),
    output=Output,
    settings=PropagateSettings,
)
def propagate(
    what: PropertyArgument,
    files: FilesArgument,
    plot: PlotOption = None,
    *,
    options: PropertyOptions,
    output: Output,
    settings: PropagateSettings,
) -> None:
    """Carry the error of the energy into properties: volumes, elastic constants, defects, phonons.

    Features are computed once on a grid of strained cells, in float64; every draw of the readout weights then has its
    own properties. Exit code 0 if at least one structure has the property, 1 if none has.
    """
    from mace_bounds.bounds import property_potential
    from mace_bounds.propagation import propagate as run

    if what not in (known_properties := get_args(PropertyName)):
        raise SourceError(f"{what!r} is no property; choose one of {', '.join(known_properties)}.")
    kind, level = output.kind(), options.level
    extract = replace(options.extract, dtype="float64")
    structures = list(extract.read(files))
    crystals = [record.crystal for record in structures if record.crystal is not None]
    found = property_potential(options.model, options.head, extract, settings, crystals)
    known = set(found.potential.backbone.atomic_numbers)
    structures = [_checked(record, known, found.head) for record in structures]
    with console.progress("structures", len(structures)) as update:
        table = run(
            cast("PropertyName", what),
            structures,
            found.potential,
            level,
            settings,
            errors=found.errors,
            progress=update,
        )
    table = stamped(table, found.provenance(level))
    if kind == "table":
        _show(table)
    else:
        output.write(table, kind)
    for sentence in found.notes:
        console.note(f"note: {sentence}")
    console.note_failures(table)
    if plot is not None:
        _draw(table, plot)
    if table["reason"].notna().all():
        raise typer.Exit(1)


def _checked(record: Record, known: set[int], head: CalibratedHead | None) -> Record:
    """A record, with a reason where the model or the head does not know its elements."""
    if record.crystal is None:
        return record
    if others := sorted(chemical_symbols[z] for z in set(record.crystal.counts) - known):
        reason = f"the model does not know {', '.join(others)}; use one that was trained on it."
        return Record.failed(reason, id=record.id, source=record.source)
    return record if head is None or head.material is None else head.material.checked(record)


def _show(table: pd.DataFrame) -> None:
    """Print the first rows, and below them what the intervals are and what was assumed."""
    from mace_bounds.cli.sheet import Sheet

    good = table[table["reason"].isna()]
    shown = ["value", "lower", "upper", "std"]
    if good["envelope_upper"].notna().any():
        shown += ["envelope_lower", "envelope_upper"]
    numbers = (*shown, "failed")
    sheet = Sheet("id", "formula", "property", *numbers, "unit", "bounds", numbers=numbers)
    for row in records(good.head(_MOST_SHOWN)):
        cells = ["" if row[name] is None else f"{row[name]:.5g}" for name in shown]
        failed = f"{100 * row['failed_share']:.0f} %" if row["n_draws"] else ""
        kind = "calibrated" if "calibrated on" in (row["bounds"] or "") else "range" if row["bounds"] else ""
        named = (str(row[name] or "") for name in ("id", "formula", "property"))
        sheet.add(*named, *cells, failed, str(row["unit"] or ""), kind)
    if len(good):
        console.show(sheet)
    if len(good) > _MOST_SHOWN:
        console.say(f"{len(good) - _MOST_SHOWN:,} more; write them with --output FILE.")
    for name in dict.fromkeys(good["bounds"].dropna()):
        console.say(("bounds  ", "dim"), str(name), wrap=True)
    sentences = [part for text in good["assumed"].dropna() for part in str(text).split("; ")]
    for sentence in dict.fromkeys(sentences):
        console.say(("assumed  ", "dim"), sentence, wrap=True)
    for name in dict.fromkeys(name for text in good["flags"].dropna() for name in flag_names(text)):
        about = ", ".join(dict.fromkeys(good.loc[good["flags"].notna(), "formula"]))
        console.say(("flag  ", "dim"), f"{name} ({about}): {FLAGS[name].meaning}", wrap=True)


def _draw(table: pd.DataFrame, path: Path) -> None:
    from mace_bounds.plots import plot_properties, save_plot

    if path.suffix not in (".png", ".svg", ".pdf"):
        raise SourceError(f"--plot {path.name} has no suffix of a picture; use .png, .svg or .pdf.")
    save_plot(plot_properties(table), path)
