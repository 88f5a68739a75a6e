"""``mace-bounds score``: bounds for a few structures, on the screen or for a program."""

from __future__ import annotations

import os
import sys
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from mace_bounds._io import atomic
from mace_bounds.calibration import FitConfig
from mace_bounds.cli import console
from mace_bounds.cli.options import READING, HeadOption, LevelOption, ModelOption, only, takes
from mace_bounds.cli.views import print_bounds
from mace_bounds.errors import LabelError, SourceError
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import help_text, usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from mace_bounds.bounds import Explanation, TableFormat
    from mace_bounds.structures import Record


FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help=f"Files ({help_text()}), folders, globs; - for stdin."),
]
FormatOption = Annotated[
    Literal["table", "json", "csv", "tsv", "parquet", "markdown", "extxyz", "cif"],
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table for the screen; json, csv, tsv, parquet, markdown, extxyz or cif for programs and files. extxyz "
        "and cif have the crystals, with all numbers as mace_bounds_NAME; extxyz also the model's energy as energy.",
    ),
]
ColumnsOption = Annotated[
    Literal["basic", "all"] | None,
    typer.Option(
        "--columns",
        help="Columns of all formats but the table for the screen: those that a person reads, or all. "
        "Default: all, in markdown basic.",
    ),
]
PredictionsOption = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        metavar="TABLE",
        help="CSV, Parquet or JSON of total energies of these structures by the model that the head names: for a head "
        "of published energies, whose features another model gives.",
    ),
]
EnergyColumnOption = Annotated[
    str | None, typer.Option("--energy-column", metavar="NAME", help="Its column of total energies, eV.")
]
IdColumnOption = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        metavar="NAME",
        help="Its column of ids.",
        show_default="id, material_id, mat_id or entry_id",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a service (mace-bounds serve) instead of a model here; --head is one of its heads. An API key is "
        "taken from $MACE_BOUNDS_KEY.",
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to the screen.")
]


@takes(
    extract=READING,
    known=only(FitConfig, "quantity", "trained_on"),
)
def score(
    files: FilesArgument,
    model: ModelOption = None,
    head: HeadOption = None,
    level: LevelOption = 0.95,
    output_format: FormatOption = "table",
    output: OutputOption = None,
    columns: ColumnsOption = None,
    predictions: PredictionsOption = None,
    energy_column: EnergyColumnOption = None,
    id_column: IdColumnOption = None,
    server: ServerOption = None,
    *,
    extract: ExtractSettings,
    known: FitConfig,
) -> None:
    """Bound the DFT energy of crystals: the model's energy and an interval.

    The interval holds the DFT energy for the stated share of structures like those of the head's data. Exit code 0 if
    at least one structure was scored, 1 if none was.
    """
    from mace_bounds.bounds import OF_CRYSTALS, BoundsPredictor, unscored_table

    kind = format_of_output(output_format, output)
    if columns and kind == "table":
        raise SourceError("--columns does not change the table for the screen; add --format or --output.")
    if server is not None:
        if model is not None or predictions is not None:
            raise SourceError("with --server the service has the model; leave out --model and --predictions.")
        kept = list(extract.read(files[0] if len(files) == 1 else files)) if kind in OF_CRYSTALS else []
        table = _asked(server, files, level, head)
        if kind == "table":
            print_bounds(table, None, level)
        else:
            _write_table(table, kind, columns, output, kept)
        _end(table)
        return
    energies = _energies(predictions, energy_column, id_column)
    # a source that names nothing, or holds nothing, is answered before the model is loaded
    any_usable, structures = usable(extract.read(files[0] if len(files) == 1 else files))
    if not any_usable:
        kept = list(structures)
        table = unscored_table(kept)
        if output is not None or kind != "table":
            _write_table(table, kind, columns, output, kept)
        console.note_failures(table)
        raise typer.Exit(1)
    predictor = BoundsPredictor(
        model, head, level=level, settings=extract, quantity=known.quantity, trained_on=known.trained_on
    )
    models = [predictor.model]
    if energies is None and (other := predictor.energy_model) is not None and other is not predictor.model:
        models.append(other)
    for warning in [warning for loaded in models for warning in loaded.warnings]:
        console.note(f"note: {warning}")
    if predictor.note and kind != "table":
        console.note(f"note: {predictor.note}")
    explanation: Explanation | str = ""
    if kind == "table":
        first = list(islice(structures, 2))
        if len(first) == 1:
            table, explanation = predictor.predict_one(first[0], energies=energies)
        else:
            table = predictor.predict(chain(first, structures), energies=energies)
        print_bounds(table, predictor.head, level, None if isinstance(explanation, str) else explanation)
    else:
        kept = list(structures) if kind in OF_CRYSTALS else []
        table = predictor.predict(kept or structures, energies=energies)
        _write_table(table, kind, columns, output, kept)
    _end(table)


def _end(table: pd.DataFrame) -> None:
    """Say what was left aside; exit code 1 if nothing was scored."""
    console.note_labels(table[table["reason"].isna()], "energy_dft_ev")
    console.note_failures(table)
    if table["reason"].notna().all():
        raise typer.Exit(1)


def _asked(server: str, files: list[str], level: float, head: str | None) -> pd.DataFrame:
    """Rows of a service."""
    from mace_bounds.client import Client

    with Client(server) as client:
        return client.score(files, level=level, head=head)


def _write_table(
    table: pd.DataFrame, kind: str, columns: str | None, output: Path | None, structures: Sequence[Record]
) -> None:
    """Write the table in a format for programs and files."""
    from mace_bounds.bounds import table_bytes

    basic = (columns or ("basic" if kind == "markdown" else "all")) == "basic"
    write(output, table_bytes(table, cast("TableFormat", kind), structures, basic=basic))


def _energies(
    predictions: Path | None, energy_column: str | None, id_column: str | None
) -> dict[str, float] | None:
    """Energies by id from the table of predictions; None without one."""
    if predictions is None and energy_column is None and id_column is None:
        return None
    if predictions is None or energy_column is None:
        raise LabelError(
            "a table of predictions and the name of its energy column belong together; give both "
            "(--predictions TABLE --energy-column NAME)."
        )
    from mace_bounds.fitting import read_predictions

    return {
        str(key): energy for key, energy in read_predictions(predictions, energy_column, id_column).items()
    }


def format_of_output(wanted: str, output: Path | None) -> str:
    """Return the format, by the name of the file where none is given; refuse early what cannot be written.

    Raises
    ------
    SourceError
        If the folder of the file does not exist, or Parquet would go to a terminal.
    """
    if output is not None:
        if not output.parent.is_dir():
            raise SourceError(f"the folder {output.parent} of --output does not exist; make it first.")
        if output.is_dir() or not os.access(output if output.exists() else output.parent, os.W_OK):
            raise SourceError(f"--output {output} cannot be written; name a file in a folder of yours.")
        from mace_bounds.bounds import SUFFIXES

        return wanted if wanted != "table" else SUFFIXES.get(output.suffix.lower(), "csv")
    if wanted == "parquet" and sys.stdout.isatty():
        raise SourceError("Parquet is binary; add --output FILE or pipe it into a program.")
    return wanted


def write(output: Path | None, data: bytes) -> None:
    """Write into the file, whole or not at all, or to standard output."""
    if output is None:
        console.write_data(data)
        return
    with atomic(output) as temporary:
        temporary.write_bytes(data)
