"""Bounds tables for programs: JSON, CSV, Parquet, on standard output or into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.cli.options import Table
from mace_bounds.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = {".json": Table.json, ".csv": Table.csv, ".parquet": Table.parquet}


def _chosen(output_format: Table, output: Path | None) -> Table:
    """The format asked for, else what the file's name says."""
    if output_format is not Table.table or output is None:
        return output_format
    return _SUFFIXES.get(output.suffix.lower(), Table.csv)


def check_output(output_format: Table, output: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    if output is not None and not output.parent.is_dir():
        raise SourceError(f"expected an existing folder for {output}, got {output.parent}; make it first.")
    if output_format is Table.parquet and output is None and sys.stdout.isatty():
        raise SourceError(
            "expected a place for binary Parquet, got a terminal; add --output FILE or pipe it into a program."
        )


def write_bounds(table: pd.DataFrame, output_format: Table, output: Path | None) -> None:
    """Write a bounds table; ``flags`` is one text with semicolons, missing values are null or empty."""
    chosen = _chosen(output_format, output)
    table = table.astype({"n_atoms": "Int64", "novel_atom": "Int64", "inside": "boolean"})
    if chosen is Table.parquet:
        data = table.to_parquet(index=False)
    elif chosen is Table.csv:
        data = table.to_csv(index=False).encode()
    else:
        rows = json.loads(table.to_json(orient="records", double_precision=15))
        data = (json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if output is not None:
        output.write_bytes(data)
        return
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is not None:
        binary.write(data)
        binary.flush()
    else:
        sys.stdout.write(data.decode())
