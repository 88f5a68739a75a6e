"""``mace-bounds score``: bounds for a few structures, on the screen or for a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    EnergyKeyOption,
    HeadOption,
    LevelOption,
    MaxAtomsOption,
    ModelOption,
    Table,
)
from mace_bounds.structures import help_text

FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help=f"Files ({help_text()}), folders, globs; - for stdin."),
]
FormatOption = Annotated[
    Table, typer.Option("--format", "-f", help="table for the screen, others for programs.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to the screen.")
]


def score(
    files: FilesArgument,
    model: ModelOption = None,
    head: HeadOption = None,
    level: LevelOption = 0.95,
    output_format: FormatOption = Table.table,
    output: OutputOption = None,
    energy_key: EnergyKeyOption = None,
    max_atoms: MaxAtomsOption = 500,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.float32,
) -> None:
    """Bound the DFT energy of crystals: MACE's energy and an interval with stated coverage.

    Exit code 0 if at least one structure was scored, 1 if none was.
    """
    from mace_bounds.bounds import BoundsPredictor
    from mace_bounds.cli.tables import check_output, write_bounds
    from mace_bounds.features import ExtractSettings
    from mace_bounds.structures import read

    check_output(output_format, output)
    settings = ExtractSettings(
        energy_key=energy_key, max_atoms=max_atoms, device=device.value, dtype=dtype.value
    )
    # what names nothing is said before the model is loaded
    records = read(files[0] if len(files) == 1 else files, energy_key=energy_key, max_atoms=max_atoms)
    predictor = BoundsPredictor(model, head, level=level, settings=settings)
    for warning in predictor.model.warnings:
        _console.note(f"note: {warning}")
    table = predictor.predict(records)
    if output_format is Table.table and output is None:
        from mace_bounds.cli.screen import print_bounds

        print_bounds(table, predictor.head, predictor.head.name, level)
    else:
        write_bounds(table, output_format, output)
    failed = table[table["reason"].notna()]
    for name, reason in zip(failed["id"], failed["reason"], strict=True):
        _console.note(f"{name}: {reason}")
    if len(failed) == len(table):
        raise typer.Exit(1)
