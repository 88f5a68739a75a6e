"""From the bytes of a CIF to its data blocks: encodings, gemmi's grammar, tags in one spelling, numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from gemmi import cif

from mace_bounds.errors import StructureError
from mace_bounds.structures.text import clean, one_line

MAX_BLOCKS = 100_000
_MINUS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d\u00ad"), "-")
_TABLE = {**_MINUS, 0x2044: "/", 0x200B: None, 0xFEFF: None, 0x2060: None, 0x0B: " ", 0x0C: " "}
_OVERLINE = re.compile("([1-6])[\u0304\u0305\u0332]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_DATA = re.compile(r"[ \t]*data_", re.IGNORECASE)
_UNQUOTED = re.compile(r"^([ \t]*_\S+[ \t]+)([^\s'\"_;#][^'\"\n#]*?[ \t][^'\"\n#]*?)[ \t]*$", re.MULTILINE)
_PLACE = re.compile(r"^string:(\d+)(?::\d+\(\d+\))?(?: in \S*)?: *(.*)$", re.DOTALL)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?)(?:\(\d*\)?)?")
_FRACTION = re.compile(r"([+-]?\d{1,6})/(\d{1,6})")


@dataclass
class Block:
    """One data block: its name and, by tag in lower case with ``_`` for dots, the values as they are written."""

    name: str
    raw: dict[str, list[str]] = field(default_factory=dict)
    twice: dict[str, list[str]] = field(default_factory=dict)

    def add(self, tag: str, values: list[str]) -> None:
        """Take a tag's values; a second set of other values is remembered as a contradiction."""
        key = tag.lower().replace(".", "_")
        if self.raw.setdefault(key, values) != values:
            self.twice[key] = values

    def column(self, *tags: str) -> list[str]:
        """Return the values of the first tag that has some, without quotes; unknown ones are empty."""
        for tag in tags:
            if tag in self.twice:
                one, other = (quote(" ".join(v[:3]), 40) for v in (self.raw[tag], self.twice[tag]))
                raise StructureError(f"the CIF gives {tag} twice, as {one} and {other}; keep the right one.")
            values = self.raw.get(tag)
            if values and not all(map(cif.is_null, values)):
                return [cif.as_string(value).strip() for value in values]
        return []

    def value(self, *tags: str) -> str:
        """Return the value of the first tag that has one, else an empty text."""
        return next((value for value in self.column(*tags) if value), "")


def quote(text: object, limit: int = 30) -> str:
    """Return text of a file in quotes, fit for a sentence with one semicolon of its own."""
    return repr(clean(str(text).replace(";", ","), limit))


def decode(content: bytes | str) -> str:
    """Return the text of a CIF in ASCII: any usual encoding and line end, typographic signs as typed ones.

    Raises
    ------
    StructureError
        If the content is no text.
    """
    text = content if isinstance(content, str) else _decode_bytes(content)
    if not text.isascii():
        text = _OVERLINE.sub(r"-\1", unicodedata.normalize("NFD", text.translate(_TABLE)))
        text = _NON_ASCII.sub("_", unicodedata.normalize("NFKC", text).translate(_TABLE))
    elif "\x0b" in text or "\x0c" in text:
        text = text.translate(_TABLE)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.rstrip("\x1a\x00 \t\n") + "\n"


def _decode_bytes(data: bytes) -> str:
    if b"\0" in data.rstrip(b"\x1a\0"):
        raise StructureError("the file is binary, not text; check the source.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def blocks(text: str) -> Iterator[Block | StructureError]:
    """Yield the data blocks; of a file that breaks the grammar those that do not, and errors for the others."""
    try:
        document = _parse(text)
    except ValueError as error:
        pieces = _pieces(text)
        if len(pieces) > 1:
            for piece in pieces[:MAX_BLOCKS]:
                yield from blocks(piece)
        elif not pieces:
            yield StructureError("the file has no data_ block, so it is no CIF; check the file.")
        else:
            yield _grammar_error(error)
        return
    for number, block in enumerate(document):
        if number == MAX_BLOCKS:
            return
        result = Block(block.name)
        for item in block:
            if item.pair is not None:
                tag, value = cast("tuple[str, str]", item.pair)
                result.add(tag, [value])
            elif (loop := item.loop) is not None:
                values, tags = list(loop.values), list(loop.tags)
                for i, tag in enumerate(tags):
                    result.add(tag, values[i :: len(tags)])
        yield result


def _parse(text: str) -> cif.Document:
    try:
        return cif.read_string(text, 0)
    except ValueError as error:
        quoted = _UNQUOTED.sub(r"\1'\2'", text)  # _symmetry_space_group_name_H-M F m -3 m
        if quoted != text:
            with suppress(ValueError):
                return cif.read_string(quoted, 0)
        raise error


def _pieces(text: str) -> list[str]:
    """Cut a file at its data_ lines outside of text fields."""
    starts, position, inside = [], 0, False
    for line in text.splitlines(keepends=True):
        if line.startswith(";"):
            inside = not inside
        elif not inside and _DATA.match(line):
            starts.append(position)
        position += len(line)
    return [text[a:b] for a, b in pairwise([*starts, len(text)])]


def _grammar_error(error: ValueError) -> StructureError:
    match = _PLACE.match(str(error))
    what = clean(match[2] if match else one_line(error), 80).replace(";", ",").rstrip(" .") or "parse error"
    place = f" in line {match[1]} of its block" if match else ""
    if "values in loop" in what:
        what = "a loop whose rows do not fit its columns"
    return StructureError(f"the CIF breaks the grammar of CIF{place} ({what}); correct that line.")


def number(text: str, tag: str) -> float:
    """Return a number as CIFs write it: ``5.640(2)``, ``1/4``, ``2.5E-1``."""
    match = _NUMBER.fullmatch(text)
    if match:
        return float(match[1].replace("d", "e").replace("D", "e"))
    match = _FRACTION.fullmatch(text)
    if match and int(match[2]):
        return int(match[1]) / int(match[2])
    raise StructureError(f"{quote(text)} of {tag} is no number; write it with digits and a decimal point.")


def optional_number(block: Block, *tags: str) -> float | None:
    """Return the number of the first tag that has a value; None where it is missing or no number."""
    text = block.value(*tags)
    try:
        return number(text, tags[0]) if text else None
    except StructureError:
        return None


def decimals(text: str) -> int:
    """Return the number of decimal places that a coordinate is given to; ``1/4`` counts as exact."""
    mantissa = text.partition("(")[0].lower().partition("e")[0]
    return 9 if "/" in text else len(mantissa.partition(".")[2])
