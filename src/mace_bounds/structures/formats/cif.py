"""CIF through pymatgen's parser, guarded against files that would occupy it for minutes."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.structures.draft import Draft
from mace_bounds.structures.formats.objects import draft_of_structure
from mace_bounds.structures.text import clean, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(r"^\s*data_", re.MULTILINE)
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


def parse_cif(text: str, *, max_atoms: int | None = None) -> Iterator[Draft]:
    """Yield one draft per data block that holds a crystal; other blocks count only if there is none.

    Parameters
    ----------
    text : str
        The CIF's text; magCIF is accepted (moments are ignored).
    max_atoms : int, optional
        Blocks whose symmetry expansion must give more atoms are refused before it is done.
    """
    matches = list(_BLOCK.finditer(text))
    if not matches:
        yield Draft(reason="expected a CIF with a data_ block, got none; check the file")
        return
    ends = [*(match.start() for match in matches[1:]), len(text)]
    blocks = [text[match.end() : end] for match, end in zip(matches, ends, strict=True)]
    crystals = [block for block in blocks[:_MAX_BLOCKS] if "_atom_site_" in block]
    for block in crystals or blocks[:1]:
        match = _HEADER.match(block)
        name = match[0] if match and len(crystals) > 1 else ""
        try:
            yield _parse_block(block, name or None, max_atoms)
        except StructureError as error:
            yield Draft(id=name or None, reason=str(error))
        except Exception as error:  # pymatgen raises whatever its libraries raise
            yield Draft(id=name or None, reason=_explain(error.__cause__ or error))


def _explain(error: BaseException) -> str:
    """Return a sentence for an exception of pymatgen, whose own messages often name only the symptom."""
    text = f"{type(error).__name__}: {sentence(error)}"
    for symptom, meaning in _MEANINGS:
        if symptom in text:
            return f"expected a readable CIF, got {meaning}; correct or export it again"
    return f"expected a readable CIF, got one that pymatgen cannot parse ({text}); correct or export it again"


def _parse_block(block: str, name: str | None, max_atoms: int | None) -> Draft:
    _guard_text(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymatgen.io.cif import CifParser

        parser: Any = CifParser.from_str("data_" + block, check_cif=False)
        for data in parser._cif.data.values():
            _guard_expansion(parser, data, max_atoms)
        structures = parser.parse_structures(primitive=False, on_error="raise")
    if not structures:
        raise StructureError("expected a crystal in the CIF, got a block without atoms; check the file")
    structure = structures[0]
    if "implicit_hydrogens" in structure.site_properties:
        raise StructureError("expected positions of all hydrogens, got implicit ones; add them to the CIF")
    return draft_of_structure(structure, name=name)


def _guard_text(block: str) -> None:
    """Refuse lines whose unmatched quotes would make the tokeniser quadratic."""
    work = sum((line.count("'") + line.count('"')) * len(line) for line in block.splitlines())
    if work > _MAX_QUOTE_WORK:
        raise StructureError("expected CIF lines of a few hundred characters, got huge quoted ones; check it")


def _guard_expansion(parser: Any, block: Any, max_atoms: int | None) -> None:
    """Refuse what would give too many atoms or take too long, before pymatgen expands the symmetry."""
    data = block.data
    rows = _as_list(data.get("_atom_site_label")) or _as_list(data.get("_atom_site_type_symbol"))
    if not rows:
        raise StructureError("expected atom sites in the CIF, got none; check the file")
    n_listed = max(len(_as_list(data.get(key))) for key in _SYMOP_KEYS)
    if parser.get_lattice(block) is None:
        raise StructureError("expected cell lengths and angles in the CIF, got fewer than six; add them")
    if n_listed > _MAX_SYMOPS:
        raise StructureError(
            f"expected at most {_MAX_SYMOPS} symmetry operations, got {n_listed}; write the crystal in P1"
        )
    if max_atoms is not None and len(rows) > 4 * max_atoms:
        raise StructureError(
            f"expected at most {max_atoms} atoms, got {len(rows)} rows; raise --max-atoms to accept them"
        )
    magnetic = parser.feature_flags["magcif"]
    operations = parser.get_magsymops(block) if magnetic else parser.get_symops(block)
    coordinates = _coordinates(data, len(rows))
    rotations = np.array([op.rotation_matrix for op in operations], dtype=float)
    shifts = np.array([op.translation_vector for op in operations], dtype=float)
    n_images = len(coordinates) * len(operations)
    if n_images * _SECONDS_PER_IMAGE > _MAX_SECONDS:
        raise _too_large(n_images, max_atoms)
    images = np.einsum("oij,rj->roi", rotations, coordinates) + shifts
    if not (np.all(np.isfinite(images)) and np.all(np.abs(images) < 1e6)):
        raise StructureError("expected finite fractional coordinates, got absurd ones; correct the CIF")
    n_atoms = len(np.unique(np.round((images % 1.0).reshape(-1, 3), 3) % 1.0, axis=0))
    if max_atoms is not None and n_atoms > 8 * max_atoms:  # rounding can split one atom into eight, no more
        raise StructureError(
            f"expected at most {max_atoms} atoms, got about {n_atoms}; raise --max-atoms to accept them"
        )
    comparisons = n_images * (n_atoms + len(rows))
    if n_images * _SECONDS_PER_IMAGE + comparisons * _SECONDS_PER_COMPARISON > _MAX_SECONDS:
        raise _too_large(n_images, max_atoms)


def _too_large(n_images: int, max_atoms: int | None) -> StructureError:
    return StructureError(
        f"expected a CIF of moderate size (at most {max_atoms} atoms), got {n_images} symmetry images; "
        "write the crystal as POSCAR or extxyz"
    )


def _coordinates(data: Any, n_rows: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    from pymatgen.io.cif import str2float

    columns = []
    for axis in "xyz":
        words = _as_list(data.get(f"_atom_site_fract_{axis}"))
        if len(words) != n_rows:
            raise StructureError(
                f"expected fractional coordinates of {n_rows} atoms, got {len(words)} along {axis}; "
                "add _atom_site_fract_x, y, z"
            )
        columns.append([str2float(word) for word in words])
    values = np.array(columns, dtype=float).T
    if not np.all(np.isfinite(values)):
        raise StructureError(
            f"expected finite fractional coordinates, got {clean(values[~np.isfinite(values)][0])}; "
            "correct the CIF"
        )
    return values


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
