"""The folder of a comparison: its settings, one file per finished split, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import write_csv, write_json
from mace_bounds.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SETTINGS, SPLITS, PLOTS = "settings.json", "splits", "plots"
TABLE, SPLIT_ROWS, GROUPS, FLAGS, SECONDS = (
    "compare.csv",
    "splits.csv",
    "groups.csv",
    "flags.csv",
    "seconds.csv",
)
FULL, PAGE = "compare.json", "index.html"
_SECONDS_SUFFIX = ".seconds.json"


def open_comparison(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or accept one that the same comparison began.

    Raises
    ------
    StoreError
        If ``out`` is something else, or was begun with other data or settings.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"expected a folder for the comparison, but {out} is a file; choose another place.")
    if not (out / SETTINGS).is_file():
        if out.is_dir() and any(out.iterdir()):
            raise StoreError(
                f"expected a new folder or one of an earlier comparison, but {out} holds something else; "
                "choose another."
            )
        (out / SPLITS).mkdir(parents=True)
        write_json(out / SETTINGS, settings)
        return
    began = _read(out / SETTINGS)
    differing = sorted(k for k in {*began, *settings} if began.get(k) != settings.get(k))
    if differing:
        raise StoreError(
            f"expected to go on with the comparison in {out}, but its {', '.join(differing)} differ; "
            "choose another folder."
        )
    (out / SPLITS).mkdir(exist_ok=True)


def read_split(out: Path, name: str) -> dict[str, Any] | None:
    """Record of a finished split; None if it is not finished."""
    path = out / SPLITS / f"{name}.json"
    return _read(path) if path.is_file() else None


def write_split(out: Path, name: str, record: dict[str, Any], seconds: dict[str, Any]) -> None:
    """Keep a finished split: what it took goes to a file of its own, and first, so that neither is ever missing."""
    write_json(out / SPLITS / f"{name}{_SECONDS_SUFFIX}", seconds)
    write_json(out / SPLITS / f"{name}.json", record)


def read_seconds(out: Path, name: str) -> dict[str, Any]:
    """What the methods of a finished split took."""
    return _read(out / SPLITS / f"{name}{_SECONDS_SUFFIX}")


def write_tables(out: Path, tables: Mapping[str, pd.DataFrame], full: dict[str, Any]) -> None:
    """Write each table under its name, and ``compare.json``, which holds them all but the seconds."""
    for name, table in tables.items():
        write_csv(table, out / name)
    kept = {name.removesuffix(".csv"): rows_of(table) for name, table in tables.items() if name != SECONDS}
    write_json(out / FULL, {**full, **kept})


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain mappings, None for what is missing."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"expected JSON in {path}, but it cannot be read; delete it and run again."
        ) from error
    return values
