"""CIF through pymatgen's parser, guarded against files that would occupy it for minutes."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.structures.check import too_many_atoms
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.objects import record_of_structure
from mace_bounds.structures.record import Record
from mace_bounds.structures.text import clean, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(r"^\s*data_", re.MULTILINE)
_LOOK = re.compile(r"^\s*(data_|_cell_length_a)", re.MULTILINE)
_HEADER = re.compile(r"\S*")
_SYMOP_KEYS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_magn_operation.xyz",
    "_space_group_symop_magn_centering.xyz",
)
_MEANINGS = (
    ("ZeroDivisionError: integer", "a loop without rows or columns"),
    ("is not a multiple of n", "a loop whose rows do not fit its columns"),
    ("zip() argument", "a loop whose rows do not fit its columns"),
    ("exceeded tolerance", "sites that are occupied more than once"),
    ("thickness=", "a cell without thickness"),
    ("Singular matrix", "a cell without volume"),
    ("ZeroDivisionError: float", "a cell without volume"),
)
_MAX_BLOCKS = 100_000
_MAX_SYMOPS = 5_000
_MAX_QUOTE_WORK = 2e8  # characters that the tokeniser may look at for unmatched quotes
_MAX_SECONDS = 8.0
_SECONDS_PER_IMAGE = 5e-5  # pymatgen's cost of one symmetry image of one row, measured, times two
_SECONDS_PER_COMPARISON = 1.5e-7  # of comparing one image with one coordinate


def parse_cif(text: str, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per data block that holds a crystal; other blocks count only if there is none.

    Parameters
    ----------
    text : str
        The CIF's text; magCIF is accepted (moments are ignored).
    options : ReadOptions
        Blocks whose symmetry expansion must give more than ``max_atoms`` are refused before it is done.
    """
    matches = list(_BLOCK.finditer(text))
    if not matches:
        yield Record.failed("the file has no data_ block, so it is no CIF; check the file.")
        return
    ends = [*(match.start() for match in matches[1:]), len(text)]
    blocks = [text[match.end() : end] for match, end in zip(matches, ends, strict=True)]
    crystals = [block for block in blocks[:_MAX_BLOCKS] if "_atom_site_" in block]
    for block in crystals or blocks[:1]:
        match = _HEADER.match(block)
        name = match[0] if match and len(crystals) > 1 else ""
        try:
            yield _parse_block(block, name, options.max_atoms)
        except StructureError as error:
            yield Record.failed(str(error), id=name)
        except Exception as error:  # pymatgen raises whatever its libraries raise
            yield Record.failed(_explain(error.__cause__ or error), id=name)


def _explain(error: BaseException) -> str:
    """Return a sentence for an exception of pymatgen, whose own messages often name only the symptom."""
    text = f"{type(error).__name__}: {one_line(error)}"
    for symptom, meaning in _MEANINGS:
        if symptom in text:
            return f"the CIF has {meaning}; correct it or export it again."
    return f"pymatgen cannot parse this CIF ({text}); correct it or export it again."


def _parse_block(block: str, name: str, max_atoms: int | None) -> Record:
    _guard_text(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymatgen.io.cif import CifParser

        parser: Any = CifParser.from_str("data_" + block, check_cif=False)
        for data in parser._cif.data.values():
            _guard_expansion(parser, data, max_atoms)
        structures = parser.parse_structures(primitive=False, on_error="raise")
    if not structures:
        raise StructureError("the CIF's block holds no atoms; check the file.")
    structure = structures[0]
    if "implicit_hydrogens" in structure.site_properties:
        raise StructureError("the CIF names hydrogens without positions; add their positions.")
    return record_of_structure(structure, name=name)


def _guard_text(block: str) -> None:
    """Refuse lines whose unmatched quotes would make the tokeniser quadratic."""
    work = sum((line.count("'") + line.count('"')) * len(line) for line in block.splitlines())
    if work > _MAX_QUOTE_WORK:
        raise StructureError(
            "the CIF has huge lines with quotes, which would take minutes to parse; check the file."
        )


def _guard_expansion(parser: Any, block: Any, max_atoms: int | None) -> None:
    """Refuse what would give too many atoms or take too long, before pymatgen expands the symmetry."""
    data = block.data
    rows = _as_list(data.get("_atom_site_label")) or _as_list(data.get("_atom_site_type_symbol"))
    if not rows:
        raise StructureError("the CIF lists no atom sites; check the file.")
    n_listed = max(len(_as_list(data.get(key))) for key in _SYMOP_KEYS)
    if parser.get_lattice(block) is None:
        raise StructureError("the CIF lacks cell lengths or angles; add all six.")
    if n_listed > _MAX_SYMOPS:
        raise StructureError(
            f"the CIF lists {n_listed} symmetry operations, more than {_MAX_SYMOPS}; write the crystal in P1."
        )
    if max_atoms is not None and len(rows) > 4 * max_atoms:
        raise StructureError(too_many_atoms(len(rows), max_atoms))
    magnetic = parser.feature_flags["magcif"]
    operations = parser.get_magsymops(block) if magnetic else parser.get_symops(block)
    coordinates = _coordinates(data, len(rows))
    rotations = np.array([op.rotation_matrix for op in operations], dtype=float)
    shifts = np.array([op.translation_vector for op in operations], dtype=float)
    n_images = len(coordinates) * len(operations)
    if n_images * _SECONDS_PER_IMAGE > _MAX_SECONDS:
        raise _too_large(n_images)
    images = np.einsum("oij,rj->roi", rotations, coordinates) + shifts
    if not (np.all(np.isfinite(images)) and np.all(np.abs(images) < 1e6)):
        raise StructureError("the fractional coordinates are absurdly large or not finite; correct the CIF.")
    n_atoms = len(np.unique(np.round((images % 1.0).reshape(-1, 3), 3) % 1.0, axis=0))
    if max_atoms is not None and n_atoms > 8 * max_atoms:  # rounding can split one atom into eight, no more
        raise StructureError(too_many_atoms(n_atoms, max_atoms))
    comparisons = n_images * (n_atoms + len(rows))
    if n_images * _SECONDS_PER_IMAGE + comparisons * _SECONDS_PER_COMPARISON > _MAX_SECONDS:
        raise _too_large(n_images)


def _too_large(n_images: int) -> StructureError:
    return StructureError(
        f"the CIF has {n_images} symmetry images, which would take too long to expand; write the crystal as POSCAR "
        "or extxyz."
    )


def _coordinates(data: Any, n_rows: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    from pymatgen.io.cif import str2float

    columns = []
    for axis in "xyz":
        words = _as_list(data.get(f"_atom_site_fract_{axis}"))
        if len(words) != n_rows:
            raise StructureError(
                f"the CIF has fractional coordinates along {axis} of {len(words)} in {n_rows} atoms; add "
                "_atom_site_fract_x, _y and _z."
            )
        columns.append([str2float(word) for word in words])
    values = np.array(columns, dtype=float).T
    if not np.all(np.isfinite(values)):
        raise StructureError(
            f"a fractional coordinate is {clean(values[~np.isfinite(values)][0])}, not finite; correct the CIF."
        )
    return values


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


CIF = Format(
    name="CIF",
    suffixes=(".cif", ".mcif"),
    sniff=lambda data: _LOOK.search(beginning(data)) is not None,
    parse=parse_cif,
    max_bytes=20_000_000,
)
