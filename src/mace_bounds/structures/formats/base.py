"""What the reader has to know of a file format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mace_bounds.structures.crystal import Record

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
    max_bytes : int
        Unpacked bytes of one file beyond which it is refused.
    max_failures : int
        A file is given up after so many unusable structures in a row from its beginning.
    """

    energy_key: str | None = None
    max_atoms: int | None = None
    max_bytes: int = 100_000_000_000
    max_failures: int = 10_000

    @property
    def max_value(self) -> int:
        """Largest length of one line or one JSON value, which holds one structure; it grows with ``max_atoms``."""
        return max(16_000_000, 2_000 * (self.max_atoms or 0))


DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        For sentences: ``"extended XYZ"``.
    suffixes : tuple of str
        Ends of file names, in lower case, with the dot; those of containers (``.gz``) after them are understood.
    sniff : callable
        Given the first bytes of a content (decompressed), tells whether it looks like this format.
    parse : callable
        ``parse(content, options)`` yields one :class:`Record` a structure. A damaged structure is a record with a
        reason; for a content that is unusable as a whole it may raise :class:`~mace_bounds.errors.StructureError`.
    takes : {"text", "lines", "bytes", "stream", "file"}
        What the parser is given: decoded text, an iterator of lines or a binary stream (such files may have any
        size), the content as it is, or the path of a file that holds it (unpacked if need be).
    file_names : str
        Regular expression of whole file names that say the format (``POSCAR``); empty for none. Suffixes come first.
    help : str
        How lists of formats name it; empty for ``name``.
    max_bytes : int
        Larger contents are refused (unpacked size); lines and streams have no limit of their own.
    labels : str
        For the documentation: which label is taken from the file; empty for none.
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    parse: Callable[[Any, ReadOptions], Iterator[Record]]
    takes: Literal["text", "lines", "bytes", "stream", "file"] = "text"
    file_names: str = ""
    help: str = ""
    max_bytes: int = 4_000_000_000
    labels: str = ""


def beginning(data: bytes) -> str:
    """Return the beginning of a content as text, for sniffing; empty if it is binary."""
    head = data[:SNIFFED_BYTES]
    return "" if b"\0" in head else head.decode("utf-8", errors="replace").lstrip("\ufeff")
