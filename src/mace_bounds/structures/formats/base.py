"""What the reader has to know of a file format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mace_bounds.structures.record import Record

SNIFFED_BYTES = 65_536


@dataclass(frozen=True)
class ReadOptions:
    """The options of :func:`mace_bounds.structures.read` that concern parsers.

    Attributes
    ----------
    energy_key : str or None
        Name of the label; None takes the format's usual ones.
    max_atoms : int or None
        Structures with more atoms may be refused before they are parsed (the reader refuses them anyway).
    """

    energy_key: str | None = None
    max_atoms: int | None = None


DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        For sentences: ``"extended XYZ"``.
    suffixes : tuple of str
        Ends of file names, in lower case, with the dot; ``.gz`` after them is understood.
    sniff : callable
        Given the first bytes of a content (decompressed), tells whether it looks like this format.
    parse : callable
        ``parse(content, options)`` yields one :class:`Record` a structure. A damaged structure is a record with a
        reason; for a content that is unusable as a whole it may raise :class:`~mace_bounds.errors.StructureError`.
    takes : {"text", "lines", "bytes"}
        What the parser is given: decoded text, an iterator of lines (such files are streamed and may have any
        size), or the content as it is (binary formats, JSON).
    file_names : str
        Regular expression of whole file names that say the format (``POSCAR``); empty for none. Suffixes come first.
    help : str
        How lists of formats name it; empty for ``name``.
    max_bytes : int
        Larger contents are refused (decompressed size); streamed files have no limit.
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    parse: Callable[[Any, ReadOptions], Iterator[Record]]
    takes: Literal["text", "lines", "bytes"] = "text"
    file_names: str = ""
    help: str = ""
    max_bytes: int = 4_000_000_000


def beginning(data: bytes) -> str:
    """Return the beginning of a content as text, for sniffing; empty if it is binary."""
    head = data[:SNIFFED_BYTES]
    return "" if b"\0" in head else head.decode("utf-8", errors="replace").lstrip("\ufeff")
