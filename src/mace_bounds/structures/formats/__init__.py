"""The file formats and objects that structures are read from.

:data:`FORMATS` is the one list: the reader, its messages and the help of the command line come from it. How to add a
format: ``docs/dev/add-a-format.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

from mace_bounds.structures.formats import cif, entries, extxyz, poscar
from mace_bounds.structures.formats.base import Format, ReadOptions
from mace_bounds.structures.formats.entries import cell_of, load_json

FORMATS: dict[str, Format] = {
    "cif": cif.CIF,
    "extxyz": extxyz.EXTXYZ,  # before POSCAR: rows of atomic numbers and positions look like lattice vectors
    "poscar": poscar.POSCAR,
    "json": entries.JSON,
    "jsonl": entries.JSON_LINES,
}
"""Every format by a short key; a content without a telling name is of the first whose ``sniff`` says so."""


def format_of(path: Path) -> Format | None:
    """Return the format that a file's name says (``.gz`` apart), else None."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    suffix = Path(name).suffix.lower()
    by_suffix = (format for format in FORMATS.values() if suffix in format.suffixes)
    by_name = (
        format for format in FORMATS.values() if format.file_names and re.fullmatch(format.file_names, name)
    )
    return next(by_suffix, None) or next(by_name, None)


def sniff(data: bytes) -> Format | None:
    """Return the format that the beginning of a content looks like, else None."""
    return next((format for format in FORMATS.values() if format.sniff(data)), None)


def help_text() -> str:
    """Return the formats for help texts and messages: ``"CIF, extxyz, ... or JSON lines (.gz too)"``."""
    *names, last = [format.help or format.name for format in FORMATS.values()]
    return f"{', '.join(names)} or {last} (.gz too)"


__all__ = ["FORMATS", "Format", "ReadOptions", "cell_of", "format_of", "help_text", "load_json", "sniff"]
