"""Compositions as 64-bit keys, which heads and models remember of their data; and what a model was trained on."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures.containers import unpacked
from mace_bounds.structures.crystal import reduced_formula
from mace_bounds.structures.files import source_digest
from mace_bounds.structures.reader import read
from mace_bounds.structures.text import clean


def composition_key(formula: str) -> np.uint64:
    """Reduce a formula to 64 bits, so that a head can remember the compositions it has seen.

    Parameters
    ----------
    formula : str
        Reduced formula as :attr:`mace_bounds.structures.Crystal.formula` writes it.

    Returns
    -------
    uint64
        First eight bytes of the SHA-256 of the UTF-8 text, big endian. Among 1e6 formulas the chance of any
        collision is 3e-8.
    """
    return np.uint64(int.from_bytes(hashlib.sha256(formula.encode()).digest()[:8], "big"))


def composition_keys(formulas: Sequence[str] | NDArray[np.str_]) -> NDArray[np.uint64]:
    """Return the sorted, distinct keys of many formulas: what a head stores and ``np.isin`` looks up."""
    return np.unique(np.array([composition_key(str(formula)) for formula in formulas], dtype=np.uint64))


def joined_keys(*parts: NDArray[np.uint64] | None) -> NDArray[np.uint64] | None:
    """The keys of all parts, sorted; None, which stands for what is not known, only where all are None."""
    known = [keys for keys in parts if keys is not None]
    if len(known) < 2:
        return known[0] if known else None
    return np.unique(np.concatenate(known))


def compositions_in(
    formulas: Sequence[str] | NDArray[np.str_], keys: NDArray[np.uint64] | None
) -> NDArray[np.bool_]:
    """Tell which formulas are among stored compositions.

    Parameters
    ----------
    formulas : sequence of str, shape (n,)
        Reduced formulas.
    keys : ndarray of uint64, optional
        Sorted, from :func:`composition_keys`; nothing is among None, which stands for compositions that are not known.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if keys is None:
        return np.zeros(len(formulas), dtype=bool)
    wanted = np.array([composition_key(str(f)) for f in formulas], dtype=np.uint64)
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool)
    # the keys are sorted: a look-up costs a few comparisons, where np.isin would hash all keys for each call
    return np.asarray(keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)


FORMULA_COLUMNS = (
    "formula",
    "reduced_formula",
    "formula_pretty",
    "pretty_formula",
    "composition",
    "full_formula",
)
"""Columns of a table in which formulas are looked for, in any letter case; the first that is there."""

_LISTS = {".txt": None, ".csv": ",", ".tsv": "\t"}
_MAX_BYTES = 2_000_000_000
_MAX_ATOMS = 10_000_000
_LOG = logging.getLogger("mace_bounds")


def read_compositions(source: str | os.PathLike[str]) -> NDArray[np.uint64]:
    """Read which compositions a model was trained on.

    Parameters
    ----------
    source : path
        A text file (``.txt``) with a formula on each line (``#`` begins a comment), a table (``.csv``, ``.tsv``) with
        one of :data:`FORMULA_COLUMNS`, or anything else that :func:`mace_bounds.structures.read` takes; packed or not.

    Returns
    -------
    ndarray of uint64
        Sorted keys (:func:`mace_bounds.structures.composition_keys`) of the reduced formulas.

    Raises
    ------
    SourceError
        If the source cannot be read, holds no composition, or a line is no formula.
    """
    if os.fspath(source) == "-":
        raise SourceError(
            "what the model was trained on is read more than once; save standard input to a file."
        )
    path = Path(source)
    if path.is_file():
        return _read(str(path), source_digest(path))
    return _of(_formulas_of_structures(os.fspath(source)), source)


@lru_cache(maxsize=4)
def _read(path: str, digest: str) -> NDArray[np.uint64]:  # noqa: ARG001 - part of the key
    try:
        name = next((s for s in reversed(Path(path).suffixes) if s.lower() in _LISTS), None)
        if name is None:
            return _of(_formulas_of_structures(path), path)
        _, data = unpacked(Path(path), _MAX_BYTES)
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, StructureError) as error:
        raise SourceError(f"{clean(path)} cannot be read as a list of formulas: {clean(error)}") from None
    return _of(_formulas_of_lines(lines, _LISTS[name.lower()], path), path)


def _of(formulas: Iterator[str], source: object) -> NDArray[np.uint64]:
    keys = composition_keys(sorted(set(formulas)))
    if not len(keys):
        raise SourceError(f"{clean(source)} holds no composition; give formulas, one a line, or structures.")
    keys.flags.writeable = False
    return keys


def _formulas_of_structures(source: str) -> Iterator[str]:
    n_left_out = 0
    for record in read(source, max_atoms=_MAX_ATOMS):
        if record.crystal is None:
            n_left_out += 1
        else:
            yield record.crystal.formula
    if n_left_out:
        _LOG.warning(
            "note: %d structures of %s could not be read; their compositions count as new to the model.",
            n_left_out,
            clean(source),
        )


def _formulas_of_lines(lines: list[str], separator: str | None, path: str) -> Iterator[str]:
    place, start = 0, 0
    if separator is not None:
        header = [name.strip().casefold() for name in next(csv.reader(lines, delimiter=separator), [])]
        found = next((name for name in FORMULA_COLUMNS if name in header), None)
        if found is None:
            raise SourceError(
                f"{clean(path)} has no column of formulas ({', '.join(FORMULA_COLUMNS)}); name one of its columns so."
            )
        place, start = header.index(found), 1
        cells = [row[place] if len(row) > place else "" for row in csv.reader(lines, delimiter=separator)]
    else:
        cells = [line.split("#")[0] for line in lines]
    for number, cell in enumerate(cells[start:], start + 1):
        if cell.strip():
            yield _reduced(cell.strip(), f"line {number} of {clean(path)}")


@lru_cache(maxsize=65536)
def _reduced(text: str, where: str) -> str:
    from pymatgen.core import Composition

    try:
        counts: dict[int, float] = {}
        for element, n in Composition(text.replace(" ", "")).items():
            counts[element.Z] = counts.get(element.Z, 0) + n
        if counts and all(n > 0 and n == int(n) for n in counts.values()):
            return reduced_formula(tuple((z, int(n)) for z, n in sorted(counts.items())))
    except Exception:  # pymatgen raises what it likes for text that is no formula
        counts = {}
    raise SourceError(
        f"{where}, {clean(text, 40)!r}, is no formula with whole numbers; write LiFePO4 or Li2O, for example."
    )
