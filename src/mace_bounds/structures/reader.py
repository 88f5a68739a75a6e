"""One verb for every source: files, folders, patterns, standard input and Python objects."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures import files as _files
from mace_bounds.structures.check import check, structure_flags
from mace_bounds.structures.draft import Draft
from mace_bounds.structures.formats import (
    drafts_of_object,
    is_object,
    load_json,
    parse_cif,
    parse_entries,
    parse_extxyz,
    parse_lines,
    parse_poscar,
)
from mace_bounds.structures.labels import guard_energy_key
from mace_bounds.structures.record import Record
from mace_bounds.structures.text import clean, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

SCHEMES = "mace_bounds.sources"
"""Entry points that turn ``SCHEME:REST`` into a path, so that no database need be known here."""

_FORMATS = {"cif": "CIF", "poscar": "POSCAR", "extxyz": "extended XYZ", "json": "JSON", "jsonl": "JSON lines"}


def read(
    source: Any,
    *,
    energy_key: str | None = None,
    max_atoms: int = 500,
    elements: AbstractSet[int] | None = None,
) -> Iterator[Record]:
    """Read structures from anywhere, one record at a time.

    Parameters
    ----------
    source : path, str, object or iterable
        A file (CIF, POSCAR, extxyz, JSON entries, JSON lines; plain or .gz), a folder (recursive), a glob
        pattern, ``"-"`` (standard input), a query of the Materials Project (``"mp:Li-Fe-P-O"``, downloaded into
        a cache once), a pymatgen ``Structure`` or ``ComputedStructureEntry``, an ase ``Atoms``, a dictionary of
        an entry or a structure, a :class:`Crystal`, a :class:`Record`, or an iterable of any of these.
    energy_key : str, optional
        Name of the label: a key of extxyz comment lines, of ``Atoms.info``, or of an entry. None takes
        ``REF_energy``, ``dft_energy`` or ``energy`` (in this order), and the uncorrected energy of entries.
    max_atoms : int
        Larger cells come out with a reason.
    elements : set of int, optional
        Atomic numbers that the model knows; crystals with others come out with a reason.

    Yields
    ------
    Record
        In the order of the source (folders and patterns sorted by name). What cannot be scored, a damaged
        file included, is a record with ``crystal=None`` and a one-sentence ``reason``. Ids are
        unique: the second ``x`` becomes ``x~2`` with the flag ``duplicate_id``.

    Raises
    ------
    SourceError
        If the source names nothing: a missing path, an empty folder, a pattern without match.
    LabelError
        If ``energy_key`` by its name is no uncorrected total energy.
    """
    if energy_key is not None:
        guard_energy_key(energy_key)
    named = _named_drafts(source, energy_key, max_atoms)
    return _finish(named, max_atoms, elements)


def _finish(
    named: Iterator[tuple[str, str, Draft | Record]], max_atoms: int, elements: AbstractSet[int] | None
) -> Iterator[Record]:
    """Turn drafts into records: unique printable ids, checks, flags."""
    seen: set[str] = set()
    for fallback, source, draft in named:
        flags = draft.flags
        name = base = clean(draft.id or "") or fallback
        count = 1
        while name in seen:
            count += 1
            name = f"{base}~{count}"
        seen.add(name)
        if name != base and "duplicate_id" not in flags:
            flags = (*flags, "duplicate_id")
        record = Record(
            id=name,
            source=clean(draft.source or "") or source,
            crystal=draft.crystal,
            energy_ev=draft.energy_ev,
            label_kind=draft.label_kind,
            run_type=draft.run_type and clean(draft.run_type, 40),
            flags=flags,
            reason=draft.reason and clean(draft.reason, 400),
            label_reason=draft.label_reason and clean(draft.label_reason, 400),
            hull_distance_ev_per_atom=draft.hull_distance_ev_per_atom,
        )
        yield _checked(record, max_atoms, elements)


def _checked(record: Record, max_atoms: int, elements: AbstractSet[int] | None) -> Record:
    if record.crystal is None or record.reason is not None:
        return replace(
            record, crystal=None, reason=record.reason or "expected a structure, got none; check the source"
        )
    try:
        check(record.crystal, elements=elements, max_atoms=max_atoms)
    except StructureError as error:
        return replace(record, crystal=None, reason=str(error))
    extra = tuple(flag for flag in structure_flags(record.crystal) if flag not in record.flags)
    return replace(record, flags=record.flags + extra) if extra else record


def _named_drafts(
    source: Any, energy_key: str | None, max_atoms: int
) -> Iterator[tuple[str, str, Draft | Record]]:
    """Return (fallback id, source, draft) of every structure; what names nothing raises here, at once."""
    if isinstance(source, (str, os.PathLike)):
        source = _local(source)
        if os.fspath(source) == "-":
            data = _files.read_stdin()
            return _numbered("stdin", "stdin", _safely(_drafts_of_bytes(data, None, energy_key, max_atoms)))
        return _from_files(_files.expand([source]), energy_key, max_atoms)
    if is_object(source):
        return _from_object("structure", source, energy_key)
    if isinstance(source, (list, tuple)):
        if not source:
            raise SourceError("expected at least one structure, got an empty list; name a file or an object")
        if all(isinstance(item, (str, os.PathLike)) and os.fspath(item) != "-" for item in source):
            return _from_files(_files.expand([_local(item) for item in source]), energy_key, max_atoms)
    if isinstance(source, (bytes, bytearray)) or not hasattr(source, "__iter__"):
        raise SourceError(
            "expected a path, a Structure, Atoms or ComputedStructureEntry, or an iterable of them, "
            f"got {type(source).__name__}; convert it first"
        )
    return _from_iterable(source, energy_key, max_atoms)


def _local(item: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a path as it is; for ``SCHEME:REST`` what the entry point of that scheme makes of it."""
    scheme, colon, _ = item.partition(":") if isinstance(item, str) else ("", "", "")
    for entry in entry_points(group=SCHEMES, name=scheme) if colon else ():
        local: str | os.PathLike[str] = entry.load()(item)
        return local
    return item


def _from_iterable(
    items: Iterable[Any], energy_key: str | None, max_atoms: int
) -> Iterator[tuple[str, str, Draft | Record]]:
    for index, item in enumerate(items):
        if isinstance(item, (str, os.PathLike)):
            try:
                yield from _named_drafts(item, energy_key, max_atoms)
            except SourceError as error:
                yield clean(item), clean(item), Draft(reason=str(error))
        else:
            yield from _from_object(f"structure#{index}", item, energy_key)


def _from_object(label: str, item: Any, energy_key: str | None) -> Iterator[tuple[str, str, Draft | Record]]:
    if isinstance(item, Record):
        return iter([(label, type(item).__name__, item)])
    return _numbered(label, type(item).__name__, drafts_of_object(item, energy_key=energy_key))


def _from_files(
    files: list[tuple[Path, str]], energy_key: str | None, max_atoms: int
) -> Iterator[tuple[str, str, Draft | Record]]:
    return chain.from_iterable(
        _numbered(clean(label), clean(path.name), _safely(_drafts_of_file(path, energy_key, max_atoms)))
        for path, label in files
    )


def _numbered(label: str, source: str, drafts: Iterator[Draft]) -> Iterator[tuple[str, str, Draft | Record]]:
    """Name structures without id: ``LABEL`` if there is one, ``LABEL#0``, ``LABEL#1``, ... if several."""
    first = next(drafts, None)
    if first is None:
        yield label, source, Draft(reason="expected a structure, got none; check the source")
        return
    second = next(drafts, None)
    if second is None:
        yield label, source, first
        return
    for index, draft in enumerate(chain((first, second), drafts)):
        yield f"{label}#{index}", source, draft


def _safely(drafts: Iterator[Draft]) -> Iterator[Draft]:
    """Turn what goes wrong while a file is read into a last draft with the reason."""
    try:
        yield from drafts
    except StructureError as error:
        yield Draft(reason=str(error))
    except _files.READ_ERRORS as error:
        if isinstance(error, EOFError):
            why = "expected a complete gzip file, got one that is cut off; fetch it again"
        elif isinstance(error, FileNotFoundError):
            why = "expected a file, got a path that does not exist; check the path"
        elif isinstance(error, OSError) and error.errno is not None:
            why = f"expected a readable file, got '{error.strerror}'; check its permissions"
        else:
            why = f"expected an intact gzip file, got damaged data ({sentence(error)}); fetch it again"
        yield Draft(reason=why)
    except (MemoryError, RecursionError) as error:
        yield Draft(reason=f"expected a file of moderate size, got too much ({sentence(error)}); split it")


def _drafts_of_file(path: Path, energy_key: str | None, max_atoms: int) -> Iterator[Draft]:
    if path.is_dir():
        raise StructureError(_files.EMPTY_FOLDER.format(clean(path.name)))
    kind = _files.format_of(path)
    if kind in ("extxyz", "jsonl"):
        yield from _drafts_of_lines(path, kind, energy_key, max_atoms)
        return
    yield from _drafts_of_bytes(_files.read_bytes(path), kind, energy_key, max_atoms)


def _drafts_of_lines(path: Path, kind: str, energy_key: str | None, max_atoms: int) -> Iterator[Draft]:
    """Read a file as it comes, without holding it."""
    with path.open("rb") as handle:
        empty, lines = True, _files.open_lines(handle)
        for draft in _parse_lines(lines, kind, energy_key, max_atoms):
            empty = False
            yield draft
        if empty:
            yield Draft(reason="expected a structure file, got an empty file; check the source")


def _drafts_of_bytes(
    data: bytes, kind: str | None, energy_key: str | None, max_atoms: int
) -> Iterator[Draft]:
    data = _files.unpack(data, kind)
    looks_like = _files.sniff(data)
    kind = kind or looks_like
    if kind is None:
        raise StructureError(
            "expected CIF, POSCAR, extxyz or JSON entries, got an unknown format; "
            "check the content or the suffix"
        )
    drafts = _parse(data, kind, energy_key, max_atoms)
    first = next(drafts, None)
    if first is not None and first.reason is not None and looks_like not in (None, kind):
        raise StructureError(
            f"expected {_FORMATS[kind]} as the file's name says, "
            f"got what looks like {_FORMATS[looks_like or kind]}; rename the file"
        )
    if first is not None:
        yield first
    yield from drafts


def _parse(data: bytes, kind: str, energy_key: str | None, max_atoms: int) -> Iterator[Draft]:
    if kind == "json":
        yield from parse_entries(load_json(data), energy_key=energy_key)
        return
    text = data.decode("utf-8-sig", errors="replace")
    if kind == "cif":
        yield from parse_cif(text, max_atoms=max_atoms)
    elif kind == "poscar":
        yield parse_poscar(text, max_atoms=max_atoms)
    else:
        yield from _parse_lines(iter(text.splitlines()), kind, energy_key, max_atoms)


def _parse_lines(lines: Iterator[str], kind: str, energy_key: str | None, max_atoms: int) -> Iterator[Draft]:
    if kind == "jsonl":
        return parse_lines(lines, energy_key=energy_key)
    return parse_extxyz(lines, energy_key=energy_key, max_atoms=max_atoms)
