"""The file formats and objects that structures are read from."""

from mace_bounds.structures.formats.cif import (
    parse_cif,
)
from mace_bounds.structures.formats.entries import (
    cell_of,
    load_json,
    parse_entries,
    parse_lines,
)
from mace_bounds.structures.formats.extxyz import (
    parse_extxyz,
)
from mace_bounds.structures.formats.objects import (
    drafts_of_object,
    is_object,
)
from mace_bounds.structures.formats.poscar import (
    parse_poscar,
)

__all__ = [
    "cell_of",
    "drafts_of_object",
    "is_object",
    "load_json",
    "parse_cif",
    "parse_entries",
    "parse_extxyz",
    "parse_lines",
    "parse_poscar",
]
