"""Where a table goes that a command makes: to the screen, to a program, into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from mace_bounds._io import atomic
from mace_bounds.cli import console
from mace_bounds.errors import SourceError
from mace_bounds.settings import setting

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.bounds import TableFormat
    from mace_bounds.structures import Record

Kind = Literal["table", "json", "csv", "tsv", "parquet", "markdown", "extxyz", "cif"]


@dataclass(frozen=True)
class Output:
    """How a table is written."""

    output_format: Kind = setting(
        "table",
        "table for the screen; json, csv, tsv, parquet, markdown, extxyz or cif for programs and files. extxyz "
        "and cif have the crystals, with all numbers as mace_bounds_NAME; extxyz also the model's energy as energy.",
        metavar="FORMAT",
        option="--format -f",
    )
    output: Path | None = setting(
        None, "Write there instead of to the screen.", metavar="FILE", option="--output -o"
    )

    def kind(self, *, crystals: bool = False) -> Kind:
        """The format, by the name of the file where none is given; SourceError, early, for what cannot be written.

        ``crystals``: whether the rows of the table are crystals, so that it can be written with them.
        """
        from mace_bounds.bounds import OF_CRYSTALS, SUFFIXES

        kind = self.output_format
        if self.output is not None:
            if not self.output.parent.is_dir():
                raise SourceError(
                    f"the folder {self.output.parent} of --output does not exist; make it first."
                )
            writable = self.output if self.output.exists() else self.output.parent
            if self.output.is_dir() or not os.access(writable, os.W_OK):
                raise SourceError(
                    f"--output {self.output} cannot be written; name a file in a folder of yours."
                )
            kind = kind if kind != "table" else SUFFIXES.get(self.output.suffix.lower(), "csv")
        elif kind == "parquet" and sys.stdout.isatty():
            raise SourceError("Parquet is binary; add --output FILE or pipe it into a program.")
        if kind in OF_CRYSTALS and not crystals:
            raise SourceError(
                f"the rows of this table are no structures, so they cannot be written as {kind}; use another format."
            )
        return kind

    def write(
        self, table: pd.DataFrame, kind: Kind, structures: Sequence[Record] = (), *, basic: bool = False
    ) -> None:
        """Write the table in a format for programs and files: into the file, whole or not at all, or to the screen."""
        from mace_bounds.bounds import table_bytes

        data = table_bytes(table, cast("TableFormat", kind), structures, basic=basic)
        if self.output is None:
            console.write_data(data)
            return
        with atomic(self.output) as temporary:
            temporary.write_bytes(data)
