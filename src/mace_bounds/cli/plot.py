"""``mace-bounds plot``: draw the plots of an audit again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.options import PlotFormat

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of an audit.")]
FormatsOption = Annotated[
    list[PlotFormat] | None,
    typer.Option("--format", "-f", help="png, svg or pdf; may be repeated. Default: png and svg."),
]
FolderOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where they go. Default: OUT/plots.")
]
GroupLevelOption = Annotated[
    float | None, typer.Option("--level", "-l", help="Level of the plots by group. Default: the audit's.")
]


def plot(
    out: OutArgument,
    formats: FormatsOption = None,
    folder: FolderOption = None,
    level: GroupLevelOption = None,
) -> None:
    """Draw calibration, coverage by group, reliability, widths, parity and residuals of an audit again."""
    from mace_bounds.auditing import plot as run

    chosen = [one.value for one in formats] if formats else ["png", "svg"]
    for path in run(out, level=level, formats=chosen, folder=folder):
        _console.out().print(str(path), markup=False, soft_wrap=True)
