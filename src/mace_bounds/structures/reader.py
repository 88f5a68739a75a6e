"""One verb for every source: files, folders, patterns, standard input and Python objects."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures import files
from mace_bounds.structures.check import check, structure_flags
from mace_bounds.structures.formats import ReadOptions, format_of, help_text, sniff
from mace_bounds.structures.formats.objects import CONVERT, is_object, records_of_object
from mace_bounds.structures.labels import guard_energy_key
from mace_bounds.structures.record import Record
from mace_bounds.structures.text import UniqueNames, clean, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from mace_bounds.structures.formats import Format
    from mace_bounds.structures.record import Source

SCHEMES = "mace_bounds.sources"
"""Entry points that turn ``SCHEME:REST`` into a path, so that no database need be known here."""

DUPLICATE_FLAG = "duplicate_id"
NO_STRUCTURE = "the source holds no structure; check it."
MAX_UNNAMED_BYTES = 4_000_000_000

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
        A file of one of :data:`~mace_bounds.structures.formats.FORMATS` (plain or ``.gz``), a folder (recursive), a
        glob pattern, ``"-"`` (standard input), a query of the Materials Project (``"mp:Li-Fe-P-O"``, downloaded
        into a cache once), a pymatgen ``Structure`` or ``ComputedStructureEntry``, an ase ``Atoms``, a dictionary of
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
        If the source names nothing (a missing path, an empty folder, a pattern without match), now and not on the
        first iteration.
    LabelError
        If ``energy_key`` by its name is no uncorrected total energy.
    """
    if energy_key is not None:
        guard_energy_key(energy_key)
    return _finish(_named_records(source, ReadOptions(energy_key, max_atoms)), max_atoms, elements)


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
        check(record.crystal, elements=elements, max_atoms=max_atoms)
    except StructureError as error:
        return replace(record, crystal=None, reason=str(error))
    extra = tuple(flag for flag in structure_flags(record.crystal) if flag not in record.flags)
    return replace(record, flags=record.flags + extra) if extra else record


def _named_records(source: Any, options: ReadOptions) -> Iterator[Named]:
    """Return (fallback id, source, record) of every structure; what names nothing raises here, at once."""
    if isinstance(source, (str, os.PathLike)):
        source = _local(source)
        if os.fspath(source) == "-":
            data = files.read_stdin()
            return _numbered("stdin", "stdin", _safely(_records_of_bytes(data, None, options)))
        return _from_files(files.expand([source]), options)
    if is_object(source):
        return _from_object("structure", source, options)
    if isinstance(source, (list, tuple)):
        if not source:
            raise SourceError("the list of structures is empty; name a file or an object.")
        if all(isinstance(item, (str, os.PathLike)) and os.fspath(item) != "-" for item in source):
            return _from_files(files.expand([_local(item) for item in source]), options)
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
        else:
            yield from _from_object(f"structure#{index}", item, options)


def _from_object(label: str, item: Any, options: ReadOptions) -> Iterator[Named]:
    return _numbered(label, type(item).__name__, records_of_object(item, options.energy_key))


def _from_files(paths: list[tuple[Path, str]], options: ReadOptions) -> Iterator[Named]:
    return chain.from_iterable(
        _numbered(clean(label), clean(path.name), _safely(_records_of_file(path, options)))
        for path, label in paths
    )


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


def _safely(records: Iterator[Record]) -> Iterator[Record]:
    """Turn what goes wrong while a file is read into a last record with the reason."""
    try:
        yield from records
    except StructureError as error:
        yield Record.failed(str(error))
    except files.READ_ERRORS as error:
        yield Record.failed(_read_trouble(error))
    except (MemoryError, RecursionError) as error:
        yield Record.failed(f"the file is too large to be read at once ({one_line(error)}); split it.")


def _read_trouble(error: Exception) -> str:
    """Return the sentence for what :data:`files.READ_ERRORS` lists: of the file system, or of gzip."""
    if isinstance(error, EOFError):
        return "the gzip file is cut off; fetch it again."
    if isinstance(error, FileNotFoundError):
        return "the file does not exist; check the path."
    if isinstance(error, OSError) and error.errno is not None:
        return f"the file cannot be read ({error.strerror}); check its permissions."
    return f"the gzip file is damaged ({one_line(error)}); fetch it again."


def _records_of_file(path: Path, options: ReadOptions) -> Iterator[Record]:
    if path.is_dir():
        raise StructureError(files.empty_folder(path.name))
    format = format_of(path)
    if format is not None and format.takes == "lines":
        yield from _records_of_stream(path, format, options)
    else:
        yield from _records_of_bytes(path.read_bytes(), format, options)


def _records_of_stream(path: Path, format: Format, options: ReadOptions) -> Iterator[Record]:
    """Read a file as it comes, without holding it."""
    with path.open("rb") as handle:
        empty = True
        for record in format.parse(files.open_lines(handle), options):
            empty = False
            yield record
        if empty:
            yield Record.failed(files.EMPTY_FILE)


def _records_of_bytes(data: bytes, by_name: Format | None, options: ReadOptions) -> Iterator[Record]:
    """Parse a whole content by the format of its file name, else by the format that it looks like."""
    limit = by_name.max_bytes if by_name else MAX_UNNAMED_BYTES
    data = files.decompressed(data, limit)
    files.check_size(data, limit)
    looks_like = sniff(data)
    format = by_name or looks_like
    if files.is_binary(data) and (format is None or format.takes != "bytes"):
        raise StructureError("the file is binary, not text; check the source.")
    if format is None:
        raise StructureError(f"the format is unknown; use {help_text()}, or correct the suffix.")
    records = _parsed(data, format, options)
    first = next(records, None)
    if first is not None and first.reason is not None and looks_like not in (None, format):
        other = (looks_like or format).name
        raise StructureError(
            f"by its name the file is {format.name}, but it looks like {other}; rename the file."
        )
    if first is not None:
        yield first
    yield from records


def _parsed(data: bytes, format: Format, options: ReadOptions) -> Iterator[Record]:
    if format.takes == "bytes":
        return format.parse(data, options)
    if format.takes == "text":
        return format.parse(data.decode("utf-8-sig", errors="replace"), options)
    return format.parse(files.open_lines(io.BufferedReader(io.BytesIO(data))), options)
