"""One verb for every source: files, folders, patterns, standard input and Python objects."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures import containers, files
from mace_bounds.structures.check import check
from mace_bounds.structures.containers import Part, Upload, on_disk, parts_of
from mace_bounds.structures.crystal import Crystal, Record
from mace_bounds.structures.formats import FORMATS, Format, ReadOptions, format_of, help_text, sniff
from mace_bounds.structures.formats.foreign import refuse_foreign_content, refuse_foreign_name
from mace_bounds.structures.formats.objects import CONVERT, is_object, records_of_object
from mace_bounds.structures.labels import guard_energy_key
from mace_bounds.structures.surroundings import structure_flags
from mace_bounds.structures.text import UniqueNames, clean, one_line

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

SCHEMES = "mace_bounds.sources"
"""Entry points that turn ``SCHEME:REST`` into a path, so that no database need be known here."""

_LOG = logging.getLogger("mace_bounds")  # without handlers, warnings go to standard error

ISOLATED_ATOM = (
    "the structure is one atom in a box, no crystal, so that its energy is no label; leave it out."
)
DUPLICATE_FLAG = "duplicate_id"
NO_STRUCTURE = "the source holds no structure; check it."
_SHOWN = 3

PathLike: TypeAlias = "str | os.PathLike[str]"
StructureLike: TypeAlias = (
    "Record | Crystal | Upload | Structure | ComputedStructureEntry | Atoms | Mapping[str, Any] | PathLike"
)
"""One structure, or the name of a file, folder, pattern or query that holds some."""

Source: TypeAlias = "StructureLike | Iterable[StructureLike]"
"""Whatever :func:`read` reads."""

Named: TypeAlias = "tuple[str, str, Record]"
"""The id and source that a record gets if it brings none, and the record."""


def read(
    source: Source,
    *,
    energy_key: str | None = None,
    max_atoms: int = 500,
    elements: AbstractSet[int] | None = None,
) -> Iterator[Record]:
    """Read structures from anywhere, one record at a time.

    Parameters
    ----------
    source : path, str, object or iterable
        A file of one of :data:`~mace_bounds.structures.formats.FORMATS` (plain or packed, also in
        ``.zip`` and ``.tar``), a folder (recursive), a
        glob pattern, ``"-"`` (standard input), a query of the Materials Project (``"mp:Li-Fe-P-O"``, downloaded
        into a cache once), a pymatgen ``Structure`` or ``ComputedStructureEntry``, an ase ``Atoms``, a dictionary of
        an entry or a structure, a :class:`Crystal`, a :class:`Record`, an :class:`Upload`, or an iterable of any of
        these.
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
        If the source names nothing (a missing path, an empty folder, a pattern without match), now and not on the
        first iteration.
    LabelError
        If ``energy_key`` by its name is no uncorrected total energy.
    """
    if energy_key is not None:
        guard_energy_key(energy_key)
    return _finish(_named_records(source, ReadOptions(energy_key, max_atoms)), max_atoms, elements)


def usable(records: Iterator[Record]) -> tuple[bool, Iterator[Record]]:
    """Read ahead to the first structure that can be used: whether there is one, and all records from the first on.

    Looking before a model is loaded makes a source without structures an error of a second.
    """
    ahead = []
    for record in records:
        ahead.append(record)
        if record.reason is None:
            return True, chain(ahead, records)
    return False, iter(ahead)


def require_usable(records: Iterator[Record]) -> Iterator[Record]:
    """Return all records of a source, read ahead to the first structure that can be used.

    Raises
    ------
    SourceError
        If there is none, with the reasons.
    """
    good, ahead = usable(records)
    if not good:
        raise SourceError(f"no structure can be used: {reasons_in_short([str(r.reason) for r in ahead])}")
    return ahead


def reasons_in_short(reasons: Sequence[str]) -> str:
    """Write the most frequent of many reasons, each with its number."""
    counted = Counter(reasons).most_common()
    if len(reasons) == 1:
        return reasons[0]
    shown = [f"{n:,} × {reason.rstrip('.')}" for reason, n in counted[:_SHOWN]]
    rest = sum(n for _, n in counted[_SHOWN:])
    return "; ".join(shown) + (f"; and {rest:,} for other reasons." if rest else ".")


def _finish(named: Iterator[Named], max_atoms: int, elements: AbstractSet[int] | None) -> Iterator[Record]:
    """Finish what parsers found: unique printable ids, checks, flags."""
    unique = UniqueNames()
    for fallback, source, record in named:
        wanted = clean(record.id) or fallback
        name = unique(wanted)
        again = name != wanted and DUPLICATE_FLAG not in record.flags
        named_record = replace(
            record,
            id=name,
            source=clean(record.source) or source,
            run_type=record.run_type and clean(record.run_type, 40),
            flags=(*record.flags, DUPLICATE_FLAG) if again else record.flags,
            reason=record.reason and clean(record.reason, 400),
            label_reason=record.label_reason and clean(record.label_reason, 400),
        )
        yield _checked(named_record, max_atoms, elements)


def _checked(record: Record, max_atoms: int, elements: AbstractSet[int] | None) -> Record:
    if record.crystal is None or record.reason is not None:
        return replace(record, crystal=None, reason=record.reason or NO_STRUCTURE)
    try:
        shortest = check(record.crystal, elements=elements, max_atoms=max_atoms)
    except StructureError as error:
        return replace(record, crystal=None, reason=str(error))
    flags = structure_flags(record.crystal, shortest)
    if record.energy_ev is not None and len(record.crystal.numbers) == 1 and "isolated_atoms" in flags:
        record = replace(record, energy_ev=None, label_kind=None, label_reason=ISOLATED_ATOM)
    extra = tuple(flag for flag in flags if flag not in record.flags)
    return replace(record, flags=record.flags + extra) if extra else record


def _named_records(source: Any, options: ReadOptions) -> Iterator[Named]:
    """Return (fallback id, source, record) of every structure; what names nothing raises here, at once."""
    if isinstance(source, (str, os.PathLike)):
        source = _local(source)
        if os.fspath(source) == "-":
            return _from_file(None, "stdin", "stdin", options)
        return _from_files(files.expand([source]), options, [source])
    if isinstance(source, Upload):
        return _from_upload(source, options)
    if is_object(source):
        return _from_object("structure", source, options)
    if isinstance(source, (list, tuple)):
        if not source:
            raise SourceError("the list of structures is empty; name a file or an object.")
        if all(isinstance(item, (str, os.PathLike)) and os.fspath(item) != "-" for item in source):
            items = [_local(item) for item in source]
            return _from_files(files.expand(items), options, items)
    if isinstance(source, (bytes, bytearray)) or not hasattr(source, "__iter__"):
        raise SourceError(f"an object of type {type(source).__name__} is no source of structures; {CONVERT}.")
    return _from_iterable(source, options)


def _local(item: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a path as it is; for ``SCHEME:REST`` the path that the entry point of that scheme gives."""
    scheme, colon, _ = item.partition(":") if isinstance(item, str) else ("", "", "")
    for entry in entry_points(group=SCHEMES, name=scheme) if colon else ():
        local: str | os.PathLike[str] = entry.load()(item)
        return local
    return item


def _from_iterable(items: Iterable[Any], options: ReadOptions) -> Iterator[Named]:
    for index, item in enumerate(items):
        if isinstance(item, (str, os.PathLike)):
            try:
                yield from _named_records(item, options)
            except SourceError as error:
                yield clean(item), clean(item), Record.failed(str(error))
        elif isinstance(item, Upload):
            yield from _from_upload(item, options)
        else:
            yield from _from_object(f"structure#{index}", item, options)


def _from_object(label: str, item: Any, options: ReadOptions) -> Iterator[Named]:
    return _numbered(label, type(item).__name__, records_of_object(item, options.energy_key))


def _from_files(
    paths: list[tuple[Path, str]], options: ReadOptions, items: Iterable[str | os.PathLike[str]]
) -> Iterator[Named]:
    for item in items:
        if sentence := files.left_out(item):
            _LOG.warning("note: %s", sentence)
    for path, label in paths:
        yield from _from_file(path, label, path.name, options)


def _from_upload(upload: Upload, options: ReadOptions) -> Iterator[Named]:
    bounded = replace(options, max_bytes=min(options.max_bytes, upload.max_bytes))
    return _from_file(upload, upload.label or upload.plain_name, upload.plain_name, bounded)


def _from_file(path: Path | Upload | None, label: str, source: str, options: ReadOptions) -> Iterator[Named]:
    """Yield what a file holds, or what the files of an archive hold."""
    label, source = clean(label), clean(source)
    parts = _parts(path, options)
    while True:
        try:
            part = next(parts, None)
        except (StructureError, OSError) as error:
            yield label, source, Record.failed(_trouble(error))
            return
        if part is None:
            return
        name = f"{label}/{clean(part.member)}" if part.member else label
        yield from _numbered(name, source, _safely(_records_of_part(part, options), options))


def _parts(path: Path | Upload | None, options: ReadOptions) -> Iterator[Part]:
    if isinstance(path, Path) and path.is_dir():
        raise StructureError(files.empty_folder(path.name))
    yield from parts_of(path, options.max_bytes)


def _numbered(label: str, source: str, records: Iterator[Record]) -> Iterator[Named]:
    """Name structures without id: ``LABEL`` if there is one, ``LABEL#0``, ``LABEL#1``, ... if several."""
    first = next(records, None)
    if first is None:
        yield label, source, Record.failed(NO_STRUCTURE)
        return
    second = next(records, None)
    if second is None:
        yield label, source, first
        return
    for index, record in enumerate(chain((first, second), records)):
        yield f"{label}#{index}", source, record


def _safely(records: Iterator[Record], options: ReadOptions) -> Iterator[Record]:
    """Turn what goes wrong while a file is read into a last record with the reason, and give up where nothing comes."""
    n_failed: int | None = 0  # None as soon as one structure is good
    first = ""
    try:
        for record in records:
            yield record
            if n_failed is None:
                continue
            if record.reason is None:
                n_failed = None
                continue
            n_failed, first = n_failed + 1, first or record.reason
            if n_failed >= options.max_failures:
                yield Record.failed(
                    f"none of the first {n_failed:,} structures can be used, and the rest was not read; the "
                    f"first one says: {first}"
                )
                return
    except (StructureError, OSError) as error:
        yield Record.failed(_trouble(error))
    except (MemoryError, RecursionError) as error:
        yield Record.failed(f"the file is too large to be read at once ({one_line(error)}); split it.")


def _trouble(error: Exception) -> str:
    """Return the sentence for a file that cannot be opened or read."""
    if isinstance(error, StructureError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "the file does not exist; check the path."
    reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
    return f"the file cannot be read ({reason}); check its permissions."


def _records_of_part(part: Part, options: ReadOptions) -> Iterator[Record]:
    """Parse a content by the format of its file name, else by the format that its beginning looks like."""
    head = part.stream.peek()
    if not head:
        raise StructureError(files.EMPTY_FILE)
    by_name = format_of(Path(part.name))
    refuse_foreign_content(head, part.name, named=by_name is not None)
    looks_like = sniff(head)
    format = by_name or looks_like
    if by_name is None and (
        looks_like is None or looks_like is FORMATS["poscar"]
    ):  # which many formats resemble
        refuse_foreign_name(part.name)
    if b"\0" in head and (format is None or format.takes not in ("bytes", "file")):
        raise StructureError("the file is binary, not text; check the source.")
    if format is None:
        if not head.strip():
            raise StructureError(files.EMPTY_FILE)
        raise StructureError(f"the format is unknown; use {help_text()}, or correct the suffix.")
    records = _parsed(part, format, options)
    first = next(records, None)
    if first is None and format.takes == "lines":
        raise StructureError(files.EMPTY_FILE)
    other = (looks_like or format).name
    if (
        first is not None and first.reason is not None and not format.name.startswith(other)
    ):  # JSON, JSON lines
        raise StructureError(
            f"by its name the file is {format.name}, but it looks like {other}; rename the file."
        )
    if first is not None:
        yield first
    yield from records


def _parsed(part: Part, format: Format, options: ReadOptions) -> Iterator[Record]:
    if format.takes == "file":
        with on_disk(part, min(options.max_bytes, format.max_bytes)) as path:
            yield from format.parse(path, options)
    elif format.takes == "stream":
        yield from format.parse(part.stream, options)
    elif format.takes == "lines":
        yield from format.parse(containers.open_lines(part.stream, options.max_value), options)
    else:
        limit = min(options.max_bytes, format.max_bytes)
        data = part.stream.read(limit + 1)
        files.check_size(data, limit)
        text = format.takes == "text"
        yield from format.parse(data.decode("utf-8-sig", errors="replace") if text else data, options)
