"""The folder of an audit: its files, written whole or not at all, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.columns import BOUNDS as BOUND_COLUMNS
from mace_bounds.columns import GEOMETRY, MEASURED, arrow_schema, level_columns, names, read_table
from mace_bounds.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    import pyarrow as pa

FEATURES, BOUNDS, BOUNDS_CSV = "features", "bounds.parquet", "bounds.csv"
COVERAGE, CURVE, VIOLATIONS, FAILURES = "coverage.csv", "curve.csv", "violations.csv", "failures.csv"
SUSPECTS, ATLAS, ELEMENT_BIAS = "suspects.csv", "atlas.csv", "element_bias.csv"
HEADS = "heads"
SUMMARY, REPORT, PLOTS, RUN = "summary.json", "report.html", "plots", "run.json"
_STATISTICS: tuple[str, ...] = (
    "id",
    "formula",
    "n_atoms",
    "chemistry",
    "chemical_system",
    "seen_in",
    "run_type",
    "source",
    "flags",
)
_STATISTICS += (
    "reason",
    "energy_dft_ev",
    "error_mev_per_atom",
    "extrapolation_grade",
    "novelty",
    *names(GEOMETRY),
)
_MEASURED = ("expected_error_mev_per_atom", "sigma_mev_per_atom", "covered_above_level")
_GROUP_ROWS = 8192


def open_folder(out: Path) -> None:
    """Make the folder, or accept one that an audit began; raises :class:`StoreError` for anything else."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"expected a folder for the audit, but {out} is a file; choose another place.")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not there <= {f".{RUN}.tmp"} and there.isdisjoint({RUN, SUMMARY, FEATURES}):
        raise StoreError(
            f"expected a new folder or one of an earlier audit, but {out} holds something else; choose another."
        )
    out.mkdir(parents=True, exist_ok=True)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain mappings."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON under a temporary name, then rename."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    table.to_csv(temporary, index=False)
    temporary.replace(path)


def read_summary(out: Path) -> dict[str, Any]:
    """Read ``summary.json`` of a finished audit; raises :class:`StoreError` if there is none."""
    try:
        values: dict[str, Any] = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        if values["command"] != "audit":
            raise ValueError("the summary of another command")
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"expected the folder of a finished audit, got {out} ({type(error).__name__}); "
            "run mace-bounds audit SOURCE OUT first."
        ) from error


def write_bounds(tables: Iterable[pd.DataFrame], out: Path, levels: tuple[float, ...]) -> int:
    """Stream tables of bounds into ``bounds.parquet`` and ``bounds.csv``; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(levels)
    parquet, csv = out / f".{BOUNDS}.tmp", out / f".{BOUNDS_CSV}.tmp"
    n_rows, waiting = 0, list[pa.Table]()
    with pq.ParquetWriter(parquet, schema, compression="zstd") as writer, csv.open("w", newline="") as handle:
        for table in tables:
            picked = table[schema.names]
            waiting.append(pa.Table.from_pandas(picked, schema=schema, preserve_index=False))
            if sum(part.num_rows for part in waiting) >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
            picked.to_csv(handle, index=False, header=n_rows == 0)
            n_rows += len(picked)
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    parquet.replace(out / BOUNDS)
    csv.replace(out / BOUNDS_CSV)
    return n_rows


def statistics_columns(levels: tuple[float, ...]) -> list[str]:
    """Columns of the bounds table that statistics are made from: half of them, and memory grows with the rows."""
    return [*_STATISTICS, *_MEASURED, *_bounds_of(levels)]


def plot_columns(levels: tuple[float, ...]) -> list[str]:
    """Columns of the bounds table that are drawn."""
    names = ["model", "n_atoms", "energy_dft_ev", "energy_model_ev", "error_mev_per_atom", "seen_in", "flags"]
    return [*names, *_MEASURED, *_bounds_of(levels)]


def read_bounds(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read ``bounds.parquet``, or some of its columns; raises :class:`StoreError` if it cannot be read."""
    return read_table(path, columns)


def _schema(levels: tuple[float, ...]) -> pa.Schema:
    return arrow_schema((*BOUND_COLUMNS, *MEASURED, *level_columns(levels)))


def _bounds_of(levels: tuple[float, ...]) -> list[str]:
    return names(level_columns(levels))
