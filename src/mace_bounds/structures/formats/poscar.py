"""VASP's POSCAR and CONTCAR."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.structures.check import too_many_atoms
from mace_bounds.structures.crystal import Record, crystal_of, numbers_of
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.text import clean

_CARTESIAN = ("C", "c", "K", "k")
_MODES = (*_CARTESIAN, "D", "d")
_MAX_HEAD = 60
_SYMBOL = re.compile(r"[A-Z][a-z]?(?![a-z])")


def parse_poscar(text: str, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield the record of a POSCAR (VASP 4 and 5; selective dynamics and velocities are ignored).

    References
    ----------
    The VASP manual, file POSCAR: a negative scale is the volume, three scales act on x, y, z.
    """
    try:
        with np.errstate(all="ignore"):  # absurd numbers are refused later
            yield _parse(text.splitlines(), options.max_atoms)
    except StructureError as error:
        yield Record.failed(str(error))


def _parse(lines: list[str], max_atoms: int | None) -> Record:
    if len(lines) < 8:
        raise StructureError(f"a POSCAR has at least 8 lines and this file has {len(lines)}; check it.")
    head = _head(lines)
    cell, factor, counts = head.cell, head.factor, head.counts
    n_atoms, row = sum(counts), head.n_lines
    if max_atoms is not None and n_atoms > max_atoms:
        raise StructureError(too_many_atoms(n_atoms, max_atoms))
    if row < len(lines) and lines[row].strip()[:1] in ("S", "s"):
        row += 1
    mode = lines[row].strip() if row < len(lines) else ""
    if mode[:1] not in _MODES and _is_vector(mode):
        raise StructureError(
            f"line {row + 1} holds {clean(mode, 40)!r} where 'Direct' or 'Cartesian' belongs; add that line above the "
            "coordinates."
        )
    rows = [line.split() for line in lines[row + 1 : row + 1 + n_atoms]]
    if len(rows) < n_atoms or any(len(words) < 3 for words in rows):
        raise StructureError(
            f"the file is cut off: it has fewer than {n_atoms} rows of coordinates; fetch it again."
        )
    coordinates = np.array([_numbers(" ".join(words[:3]), "three coordinates", (3,)) for words in rows])
    coordinates = coordinates.reshape(-1, 3)
    numbers, flags = numbers_of(_symbols(head.names, counts, rows, lines[0]))
    positions = coordinates * factor if mode[:1] in _CARTESIAN else coordinates @ cell
    return Record(crystal=crystal_of(numbers, positions, cell), flags=flags)


@dataclass(frozen=True)
class _Head:
    """What stands above the coordinates: cell and scale, symbols (none in VASP 4), numbers of atoms, lines taken."""

    cell: NDArray[np.float64]
    factor: NDArray[np.float64]
    names: list[str]
    counts: list[int]
    n_lines: int


def _head(lines: list[str]) -> _Head:
    scale = _numbers(lines[1], "a scale factor in line 2", allowed=(1, 3))
    cell = np.array([_numbers(lines[i], f"a lattice vector in line {i + 1}", (3,)) for i in (2, 3, 4)])
    if len(scale) == 1 and scale[0] < 0:
        volume = abs(float(np.linalg.det(cell)))
        factor = np.full(3, np.cbrt(-scale[0] / volume) if volume > 0 else np.nan)
    else:
        factor = np.broadcast_to(np.array(scale), (3,))
    cell = cell * factor

    names, row = [], 5
    while row < len(lines) and (words := lines[row].split()) and not words[0].isdecimal() and row < _MAX_HEAD:
        names += words  # VASP breaks the line after 20 symbols; VASP 4 has none
        row += 1
    if row == len(lines):
        raise StructureError("the POSCAR has no line with numbers of atoms; correct the POSCAR.")
    counts = _counts(lines[row], row)
    row += 1
    while (
        row < len(lines)
        and len(counts) < len(names)
        and all(w.isdecimal() for w in lines[row].split() or "-")
    ):
        counts += _counts(lines[row], row)
        row += 1
    return _Head(cell, np.asarray(factor), names, counts, row)


def _numbers(line: str, what: str, allowed: tuple[int, ...]) -> list[float]:
    """Return the leading numbers of a line: as many as there are, cut to the largest allowed count."""
    values: list[float] = []
    for word in line.split()[: max(allowed)]:
        try:
            values.append(float(word))
        except ValueError:
            break
    if len(values) == 2 and 1 in allowed:
        values = values[:1]
    if len(values) not in allowed:
        raise StructureError(f"{clean(line, 40)!r} is not {what}; correct the POSCAR.")
    return values


def _counts(line: str, row: int) -> list[int]:
    words = line.split("!")[0].split("#")[0].split()
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise StructureError(
            f"line {row + 1} holds {clean(line, 40)!r} instead of numbers of atoms; correct the POSCAR."
        )
    return [int(word) for word in words]


def _symbols(names: list[str], counts: list[int], rows: list[list[str]], comment: str) -> list[str]:
    """Return one symbol per atom, from the symbols' line, the rows' ends or the comment (VASP 4)."""
    if names:
        if len(names) < len(counts):
            raise StructureError(
                f"line 6 has {len(names)} element symbols for {len(counts)} numbers of atoms; correct the POSCAR."
            )
        fraction = next((name for name in names if re.match(r"[A-Z][a-z]?\d*\.\d", name)), None)
        if fraction is not None:
            raise StructureError(
                f"{clean(fraction, 20)!r} is a pseudo-atom of fractional charge and no element; remove such atoms."
            )
        symbols = [re.split(r"[_/.]", name)[0] for name in names]
        symbols = [symbol for symbol, n in zip(symbols, counts, strict=False) for _ in range(n)]
        if (last := _ends(rows)) and numbers_of(last)[0] != numbers_of(symbols)[0]:
            raise StructureError(
                "the elements behind the coordinates are not those of the line of symbols; correct one of them."
            )
        return symbols
    if last := _ends(rows):
        return last
    words = comment.split()
    if len(words) == len(counts) and all(_SYMBOL.fullmatch(word) for word in words):
        return [symbol for symbol, n in zip(words, counts, strict=True) for _ in range(n)]
    raise StructureError(
        "the POSCAR names no elements (VASP 4 format); add a line of element symbols above the numbers of atoms."
    )


def _ends(rows: list[list[str]]) -> list[str]:
    """Return the element symbols behind the coordinates, as pymatgen writes them; none where other words stand."""
    last = [words[-1] if len(words) > 3 else "" for words in rows]
    symbols = all(_SYMBOL.fullmatch(word) for word in last) and not set(last) <= {"T", "F"}
    return last if symbols else []


def parse_xdatcar(lines: Iterator[str], options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per frame of an XDATCAR, of fixed or of changing cell; it holds no energies."""
    head: list[str] = []
    fresh: list[str] = []
    frame = 0
    for line in lines:
        if "configuration=" not in line:
            fresh.append(line.rstrip("\n"))
            if len(fresh) > _MAX_HEAD:
                raise StructureError(
                    f"frame {frame} of the XDATCAR has no line 'configuration='; fetch it again."
                )
            continue
        head, fresh = (fresh if any(text.strip() for text in fresh) else head), []
        try:
            if len(head) < 7:
                raise StructureError("the head of the XDATCAR is cut off; fetch it again.")
            n_atoms = sum(_head(head).counts)
            mode = "Cartesian" if line.strip()[:1] in _CARTESIAN else "Direct"
            if options.max_atoms is not None and n_atoms > options.max_atoms:
                for _ in islice(lines, n_atoms):
                    pass
                raise StructureError(too_many_atoms(n_atoms, options.max_atoms))
            rows = [row.rstrip("\n") for row in islice(lines, n_atoms)]
            with np.errstate(all="ignore"):
                yield _parse([*head, mode, *rows], options.max_atoms)
        except StructureError as error:
            yield Record.failed(str(error))
        frame += 1
    if not frame:
        raise StructureError("the XDATCAR holds no frame; fetch it again.")


def _looks_like_poscar(data: bytes) -> bool:
    lines = beginning(data).splitlines()
    return len(lines) > 5 and all(_is_vector(line) for line in lines[2:5])


def _is_vector(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()[:3]]) == 3
    except ValueError:
        return False


POSCAR = Format(
    name="POSCAR",
    suffixes=(".vasp", ".poscar", ".contcar"),
    file_names=r"(POSCAR|CONTCAR)([._-].*)?",
    sniff=_looks_like_poscar,
    parse=parse_poscar,
    max_bytes=20_000_000,
)
XDATCAR = Format(
    name="XDATCAR",
    suffixes=(".xdatcar",),
    file_names=r"XDATCAR([._-].*)?",
    sniff=lambda data: _looks_like_poscar(data) and "configuration=" in beginning(data),
    parse=parse_xdatcar,
    takes="lines",
)
