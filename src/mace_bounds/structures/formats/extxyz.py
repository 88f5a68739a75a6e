"""A streaming parser of extended XYZ: frames in, records out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.structures.check import too_many_atoms
from mace_bounds.structures.crystal import Record, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.entries import record_of_values
from mace_bounds.structures.labels import DEFAULT_ENERGY_KEYS, require_angstrom
from mace_bounds.structures.text import clean

# Quotes and brackets may open anywhere in a token and a backslash escapes, as in ase.io.extxyz.
_PIECE = re.compile(
    r"""\\(?P<escaped>.)
      | "(?P<double>(?:\\.|[^"\\])*)"
      | '(?P<single>(?:\\.|[^'\\])*)'
      | \{(?P<curly>(?:\\.|[^}\\])*)\}
      | \[(?P<square>(?:\\.|[^\]\\])*)\]
      | (?P<blank>\s+)
      | (?P<equals>=)
      | (?P<open>["'{\[\\].*)
      | (?P<plain>[^\s="'{\[\\]+)""",
    re.VERBOSE | re.DOTALL,
)
# What nearly every line consists of: KEY=WORD or KEY="WORDS".
_ORDINARY = re.compile(r"""([^\s="'{\[\\]+)=(?:"([^"\\]*)"|([^\s="'{\[\\]+))(?:\s+|$)""")
_COUNT = re.compile(r"[ \t]*\d{1,11}[ \t]*([\r\n]|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TRUE = {"T", "True", "true", "TRUE", "1"}
_FALSE = {"F", "False", "false", "FALSE", "0"}
_ID_KEYS = ("id", "material_id", "mat_id", "name")
_DEFAULT_PROPERTIES = "species:S:1:pos:R:3"
_READ = ("Lattice", "Properties", "pbc", *DEFAULT_ENERGY_KEYS)
_MAX_LINE = 1_000_000
ISOLATED = (
    "the frame is an isolated atom (config_type or a box with one atom), a reference and no crystal; "
    "leave such frames out."
)


def parse_comment(line: str) -> dict[str, str]:
    """Return the key=value pairs of an extxyz comment line, values as text.

    Parameters
    ----------
    line : str
        The second line of a frame. Quotes (single or double) and brackets delimit values, a backslash escapes
        the next character, a key without value means true (``"T"``).

    Returns
    -------
    dict of str to str
        Keys in the order of the line; a repeated key keeps its last value.

    References
    ----------
    The rules of ``ase.io.extxyz.key_val_str_to_dict``.
    """
    return dict(_pairs(line.strip()))


def _pairs(line: str) -> list[tuple[str, str]]:
    """All pairs of a comment line, as :func:`parse_comment`."""
    pairs = []
    end = 0
    for match in _ORDINARY.finditer(line):
        if match.start() != end:
            break
        end = match.end()
        pairs.append((match[1], match[3] or match[2] or ""))
    return pairs if end == len(line) else _pairs_of_any(line)


def _pairs_of_any(line: str) -> list[tuple[str, str]]:
    """Parse with all rules: quotes within words, escapes, brackets, keys without value."""
    items: list[list[list[str]]] = [[[]]]  # per item the pieces of the key, then of the value (split at '=')
    for match in _PIECE.finditer(line):
        kind = match.lastgroup or "plain"
        if kind == "blank":
            if items[-1][-1]:  # blanks after '=' belong to nothing
                items.append([[]])
        elif kind == "equals":
            if items[-1] == [[]] and len(items) > 1:  # blanks before '='
                items.pop()
            items[-1].append([])
        else:
            text = match[kind][1:] if kind == "open" else match[kind]
            if kind not in ("plain", "escaped") and "\\" in text:
                text = _ESCAPE.sub(r"\1", text)
            items[-1][-1].append(text)
    return [
        ("".join(key), "=".join("".join(value) for value in values) if values else "T")
        for key, *values in items
        if key or values
    ]


def parse_extxyz(lines: Iterator[str], options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per frame; a damaged frame gives a reason, and where frames cannot be told apart the file ends.

    Parameters
    ----------
    lines : iterator of str
        Lines of the file, with or without line ends.
    options : ReadOptions
        Key of the label (None looks for ``REF_energy``, ``dft_energy`` and ``energy`` in this order); frames with
        more atoms than ``max_atoms`` are skipped unread.
    """
    max_atoms = options.max_atoms
    frame = 0
    for header in lines:
        text = header[:_MAX_LINE].strip()
        if not text:
            continue
        if not (text.isascii() and text.isdecimal() and len(text) < 12):
            yield Record.failed(
                f"frame {frame} begins with {clean(text, 40)!r} instead of its number of atoms; check that the file "
                "is (extended) XYZ and not damaged."
            )
            return
        n_atoms = int(text)
        comment = next(lines, None)
        if max_atoms is not None and n_atoms > max_atoms:
            n_read = sum(1 for _ in islice(lines, n_atoms))
            reason = too_many_atoms(n_atoms, max_atoms)
            info = parse_comment(comment or "")
            yield Record.failed(
                reason if n_read == n_atoms else _cut(frame, n_read, n_atoms),
                id=_name_of(info),
                source=info.get("source", ""),
            )
        else:
            rows = list(islice(lines, n_atoms))
            if comment is None or len(rows) < n_atoms:
                yield Record.failed(_cut(frame, len(rows), n_atoms))
                return
            yield _parse_frame(comment, rows, options.energy_key)
        frame += 1


def _cut(frame: int, n_read: int, n_atoms: int) -> str:
    return f"the file is cut off in frame {frame}, after {n_read} of {n_atoms} atoms; fetch it again."


def _parse_frame(comment: str, rows: list[str], energy_key: str | None) -> Record:
    pairs = _pairs(comment.strip())
    info = dict(pairs)
    name, source = _name_of(info), info.get("source", "")
    try:
        if len(info) < len(pairs):
            _require_agreement(pairs, energy_key)
        require_angstrom(info)
        has_cell = "Lattice" in info
        require_periodic(_parse_pbc(info.get("pbc"), has_cell=has_cell), has_cell=has_cell)
        cell = _parse_lattice(info["Lattice"])
        numbers, positions, flags = _parse_rows(rows, info.get("Properties", _DEFAULT_PROPERTIES))
        crystal = crystal_of(numbers, positions, cell)
    except StructureError as error:
        return Record.failed(str(error), id=name, source=source)
    record = record_of_values(info, crystal, flags, energy_key, name=name, source=source)
    if record.energy_ev is not None and _is_reference(info, len(numbers)):
        record = replace(record, energy_ev=None, label_kind=None, label_reason=ISOLATED)
    return record


def _require_agreement(pairs: list[tuple[str, str]], energy_key: str | None) -> None:
    """Refuse a frame that gives what is read here twice, and differently."""
    first: dict[str, str] = {}
    for key, value in pairs:
        if first.setdefault(key, value) != value and key in {*_READ, energy_key}:
            raise StructureError(
                f"the comment line has {clean(key, 60)!r} twice, with different values; keep one of them."
            )


def _is_reference(info: dict[str, str], n_atoms: int) -> bool:
    """Tell whether a frame is the reference of an isolated atom, as training sets of MACE have them."""
    kind = re.sub(r"[^a-z]", "", (info.get("config_type") or info.get("REF_config_type") or "").lower())
    return n_atoms == 1 and kind in ("isolatedatom", "isolatedatoms", "atom", "singleatom", "freeatom")


def _name_of(info: dict[str, str]) -> str:
    return next((info[key] for key in _ID_KEYS if info.get(key)), "")


def _parse_pbc(text: str | None, *, has_cell: bool) -> list[bool]:
    if text is None:
        return [has_cell] * 3
    words = text.replace(",", " ").split()
    if len(words) not in (1, 3) or any(word not in _TRUE | _FALSE for word in words):
        raise StructureError(f"pbc is {clean(text, 40)!r}; write it as 'T T T' in the comment line.")
    return [word in _TRUE for word in words]


def _parse_lattice(text: str) -> list[list[float]]:
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != 9:
        raise StructureError(
            f"Lattice is {clean(text, 60)!r}, which is not nine numbers; correct the comment line."
        )
    return [values[0:3], values[3:6], values[6:9]]


@lru_cache(maxsize=256)
def _columns(properties: str) -> tuple[list[int], int, int]:
    """Return the columns of the element (symbols before numbers), that of x, and the length of a row."""
    fields = properties.split(":")
    symbols, numbers, x = list[int](), list[int](), None
    column = 0
    try:
        for name, kind, width in zip(fields[0::3], fields[1::3], map(int, fields[2::3]), strict=True):
            if kind not in ("S", "R", "I", "L") or not 1 <= width <= 10_000:
                raise ValueError(name)
            if name in ("species", "symbols"):
                symbols.append(column)
            elif name in ("Z", "numbers"):
                numbers.append(column)
            elif name in ("pos", "positions") and width == 3:
                x = column
            column += width
    except ValueError:
        x = None
    if not symbols + numbers or x is None:
        raise StructureError(
            f"Properties is {clean(properties, 60)!r}, without species and pos; correct the comment line."
        )
    return symbols + numbers, x, column


def _parse_rows(
    rows: list[str], properties: str
) -> tuple[list[int], np.ndarray[tuple[int, ...], np.dtype[np.float64]], tuple[str, ...]]:
    elements, x, width = _columns(properties)
    words = [row.split() for row in rows]
    if any(len(row) < width for row in words):
        short = next(i for i, row in enumerate(words) if len(row) < width)
        raise StructureError(
            f"the row of atom {short} has {len(words[short])} of {width} columns; correct the row."
        )
    try:
        positions = np.array([[float(row[x]), float(row[x + 1]), float(row[x + 2])] for row in words])
    except ValueError:
        raise StructureError(
            "the positions of this frame hold text where numbers are needed; correct its rows."
        ) from None
    (numbers, flags), *others = (numbers_of([row[column] for row in words]) for column in elements)
    if any(other != numbers for other, _ in others):
        raise StructureError(
            "two columns name different elements for one atom (species, Z); correct one of them."
        )
    return numbers, positions, flags


EXTXYZ = Format(
    name="extended XYZ",
    suffixes=(".xyz", ".extxyz", ".exyz"),
    sniff=lambda data: _COUNT.match(beginning(data)) is not None,
    parse=parse_extxyz,
    takes="lines",
    help="extxyz",
)
