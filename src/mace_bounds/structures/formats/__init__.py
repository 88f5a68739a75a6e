"""The file formats and objects that structures are read from.

:data:`FORMATS` is the one list: the reader, its messages and the help of the command line come from it. How to add a
format: ``docs/dev/add-a-format.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

from mace_bounds.structures.formats import ase_rows, cif, documents, extxyz, objects, poscar, vasp_runs
from mace_bounds.structures.formats.base import Format, ReadOptions
from mace_bounds.structures.formats.entries import cell_of, load_json

FORMATS: dict[str, Format] = {
    "cif": cif.CIF,
    "extxyz": extxyz.EXTXYZ,  # before POSCAR: rows of atomic numbers and positions look like lattice vectors
    "xsf": objects.XSF,
    "outcar": vasp_runs.OUTCAR,
    "xdatcar": poscar.XDATCAR,
    "poscar": poscar.POSCAR,
    "json": documents.JSON,
    "jsonl": documents.JSON_LINES,
    "vasprun": vasp_runs.VASPRUN,
    "traj": ase_rows.TRAJECTORY,
    "db": ase_rows.DATABASE,
}
"""Every format by a short key; a content without a telling name is of the first whose ``sniff`` says so."""


CONTAINERS = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".lz4", ".zip", ".tar", ".tgz", ".tbz2", ".txz")
"""Ends of file names that say how a file is packed and not what it holds."""


def bare_name(name: str) -> str:
    """Return a file's name without the suffixes of containers."""
    while (end := container_of(name)) and len(end) < len(name):
        name = name[: -len(end)]
    return name


def container_of(name: str) -> str:
    """Return the last suffix of a file's name if it is that of a container, else nothing."""
    return next((end for end in CONTAINERS if name.lower().endswith(end)), "")


def format_of(path: Path) -> Format | None:
    """Return the format that a file's name says (``.gz`` and the like apart), else None."""
    name = bare_name(path.name)
    suffix = Path(name).suffix.lower()
    by_suffix = (format for format in FORMATS.values() if suffix in format.suffixes)
    by_name = (
        format for format in FORMATS.values() if format.file_names and re.fullmatch(format.file_names, name)
    )
    return next(by_suffix, None) or next(by_name, None)


def sniff(data: bytes) -> Format | None:
    """Return the format that the beginning of a content looks like, else None."""
    data = re.sub(rb"\s{200,}", b"\n", data)  # so that expressions that look for the first word stay quick
    return next((format for format in FORMATS.values() if format.sniff(data)), None)


def help_text() -> str:
    """Return the formats for help texts and messages: ``"CIF, extxyz, ... or JSON lines (packed too)"``."""
    *names, last = [format.help or format.name for format in FORMATS.values()]
    return f"{', '.join(names)} or {last} (packed too)"


__all__ = [
    "FORMATS",
    "Format",
    "ReadOptions",
    "bare_name",
    "cell_of",
    "container_of",
    "format_of",
    "help_text",
    "load_json",
    "sniff",
]
