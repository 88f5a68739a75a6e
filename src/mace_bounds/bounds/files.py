"""A bounds table as the bytes of a file, in every format that ``mace-bounds score`` and the service offer."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeAlias

from mace_bounds.bounds.geometry import atoms_with_bounds
from mace_bounds.columns import BASIC
from mace_bounds.screen import markdown_table
from mace_bounds.structures import Record
from mace_bounds.tables import records, write_table

if TYPE_CHECKING:
    import pandas as pd

_NO_WORD = re.compile(r"[^A-Za-z0-9.-]+")

TableFormat: TypeAlias = Literal["json", "csv", "tsv", "parquet", "markdown", "extxyz", "cif"]

SUFFIXES: dict[str, TableFormat] = {
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".md": "markdown",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".cif": "cif",
}
"""Formats by the ends of file names."""

OF_CRYSTALS: tuple[TableFormat, ...] = ("extxyz", "cif")
"""Formats that hold the crystals, for which :func:`table_bytes` needs these."""


def table_bytes(
    table: pd.DataFrame, kind: TableFormat, structures: Iterable[Record] = (), *, basic: bool = False
) -> bytes:
    """Write a bounds table as a file of this kind has it.

    Parameters
    ----------
    table : DataFrame
        As :meth:`BoundsPredictor.predict` gives it.
    kind : str
        ``"extxyz"`` has the crystals with the model's energy as ``energy``, and all else as ``mace_bounds_NAME``;
        ``"cif"`` has them as one block each, with every column as ``_mace_bounds_NAME``.
    structures : iterable of Record
        Of its rows, in order; needed for :data:`OF_CRYSTALS`.
    basic : bool
        Only the columns that a person reads.
    """
    shown = table[list(BASIC)] if basic else table
    if kind == "extxyz":
        return _extxyz(shown, structures)
    if kind == "cif":
        return _cif(shown, structures)
    if kind == "markdown":
        return _markdown(shown).encode()
    suffix = next(suffix for suffix, name in SUFFIXES.items() if name == kind)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"bounds{suffix}"
        write_table(shown, path)
        return path.read_bytes()


def _extxyz(table: pd.DataFrame, structures: Iterable[Record]) -> bytes:
    from ase.io.extxyz import write_extxyz

    text = io.StringIO()
    write_extxyz(text, atoms_with_bounds(table, [record.crystal for record in structures]))
    return text.getvalue().encode()


def _cif(table: pd.DataFrame, structures: Iterable[Record]) -> bytes:
    """One block for each crystal that has bounds: all atoms of its cell, without symmetry."""
    from gemmi import cif

    document = cif.Document()
    for k, atoms in enumerate(atoms_with_bounds(table, [record.crystal for record in structures])):
        block = document.add_new_block(f"{k}_{_NO_WORD.sub('_', atoms.info['mace_bounds_id'])[:60]}")
        lengths = zip(("a", "b", "c"), atoms.cell.lengths(), strict=True)
        angles = zip(("alpha", "beta", "gamma"), atoms.cell.angles(), strict=True)
        for name, value in (
            *((f"length_{n}", v) for n, v in lengths),
            *((f"angle_{n}", v) for n, v in angles),
        ):
            block.set_pair(f"_cell_{name}", f"{value:.10g}")
        block.set_pair("_space_group_name_H-M_alt", cif.quote("P 1"))
        block.init_loop("_space_group_symop_", ["operation_xyz"]).add_row([cif.quote("x, y, z")])
        for name, value in atoms.info.items():
            block.set_pair(f"_{name}", cif.quote(str(value)))
        sites = block.init_loop("_atom_site_", ["label", "type_symbol", "fract_x", "fract_y", "fract_z"])
        for n, (symbol, place) in enumerate(
            zip(atoms.symbols, atoms.get_scaled_positions(wrap=False), strict=True)
        ):
            sites.add_row([f"{symbol}{n}", symbol, *(f"{x:.10f}" for x in place)])
    return str(document.as_string()).encode()


def _markdown(table: pd.DataFrame) -> str:
    """Rows of a table as a Markdown table, numbers to four decimals; names in it are text, whatever they hold."""
    rows = (
        ["" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in row.values()]
        for row in records(table)
    )
    return markdown_table([str(name) for name in table.columns], rows) + "\n"
