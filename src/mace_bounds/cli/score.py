"""``mace-bounds score``: bounds for a few structures, on the screen or for a program."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mace_bounds._io import atomic
from mace_bounds.cli import console
from mace_bounds.cli.options import HeadOption, LevelOption, ModelOption, only, takes
from mace_bounds.cli.views import print_bounds
from mace_bounds.columns import write_table
from mace_bounds.errors import SourceError
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import help_text

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "json", "csv", "parquet")
FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help=f"Files ({help_text()}), folders, globs; - for stdin."),
]
FormatOption = Annotated[
    Literal["table", "json", "csv", "parquet"],
    typer.Option("--format", "-f", help="table for the screen, others for programs."),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to the screen.")
]


@takes(extract=only(ExtractSettings, "energy_key", "max_atoms", "device", "dtype", "memory_bytes"))
def score(
    files: FilesArgument,
    model: ModelOption = None,
    head: HeadOption = None,
    level: LevelOption = 0.95,
    output_format: FormatOption = "table",
    output: OutputOption = None,
    *,
    extract: ExtractSettings,
) -> None:
    """Bound the DFT energy of crystals: the model's energy and an interval.

    The interval holds the DFT energy for the stated share of structures like those of the head's data. Exit code 0 if
    at least one structure was scored, 1 if none was.
    """
    from mace_bounds.bounds import BoundsPredictor

    kind = _format(output_format, output)
    # a source that names nothing is an error before the model is loaded
    records = extract.read(files[0] if len(files) == 1 else files)
    predictor = BoundsPredictor(model, head, level=level, settings=extract)
    for warning in predictor.model.warnings:
        console.note(f"note: {warning}")
    table = predictor.predict(records)
    if kind == "table":
        print_bounds(table, predictor.head, level)
    else:
        _write(table, kind, output)
    failed = table[table["reason"].notna()]
    for name, reason in zip(failed["id"], failed["reason"], strict=True):
        console.note(f"{name}: {reason}")
    if len(failed) == len(table):
        raise typer.Exit(1)


def _format(wanted: str, output: Path | None) -> str:
    """Return the format, by the name of the file where none is given; refuse early what cannot be written.

    Raises
    ------
    SourceError
        If the folder of the file does not exist, or Parquet would go to a terminal.
    """
    if output is not None:
        if not output.parent.is_dir():
            raise SourceError(f"the folder {output.parent} of --output does not exist; make it first.")
        suffix = output.suffix.lower().removeprefix(".")
        return wanted if wanted != "table" else suffix if suffix in FORMATS else "csv"
    if wanted == "parquet" and sys.stdout.isatty():
        raise SourceError("Parquet is binary; add --output FILE or pipe it into a program.")
    return wanted


def _write(table: pd.DataFrame, kind: str, output: Path | None) -> None:
    """Write a table into the file, whole or not at all, or to standard output."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"bounds.{kind}"
        write_table(table, path)
        data = path.read_bytes()
    if output is not None:
        with atomic(output) as temporary:
            temporary.write_bytes(data)
        return
    console.write_data(data)
