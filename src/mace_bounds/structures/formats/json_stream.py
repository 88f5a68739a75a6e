"""JSON that is read value by value, so that a database of gigabytes needs the memory of one structure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from mace_bounds.errors import StructureError
from mace_bounds.structures.text import one_line

_CHUNK = 1_000_000
_MAX_BLANKS = 10_000_000
_NUMBER = re.compile(r"[0-9.eE+-]*")
_MAX_GROWTH = 10  # bytes in memory per character; structures take 3 to 5
_BLANKS = re.compile(r"[ \t\r\n]*")


class JsonReader:
    """Pulls values out of a stream of JSON; NaN and Infinity pass (they become reasons later).

    Parameters
    ----------
    stream : binary stream
        UTF-8.
    max_value : int
        A value that is read as a whole may have about so many characters.

    Raises
    ------
    StructureError
        By all methods, where the text is no JSON or a value is too large.
    """

    def __init__(self, stream: BinaryIO, max_value: int) -> None:
        self._stream, self._max_value = stream, max_value
        self._to_text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    @property
    def position(self) -> int:
        """Number of characters that were read."""
        return self._before + self._at

    def peek(self) -> str:
        """Return the next character that is not blank; empty at the end."""
        start = self.position
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            if self.position - start > _MAX_BLANKS:
                raise StructureError("the file holds millions of blanks in a row; check the source.")
            self._more(_CHUNK)

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise self._damage(error) from None
            else:
                rest_of_number = _NUMBER.match(self._text, end)
                cut = rest_of_number is not None and rest_of_number.end() == len(self._text)
                if self._ended or not cut:
                    self._at = end
                    return value
            rest = len(self._text) - self._at
            if rest > self._max_value or self._size_in_memory() > _MAX_GROWTH * self._max_value:
                raise StructureError(
                    f"one value of the JSON has more than {self._max_value:,} characters, more than a structure of the "
                    "size allowed needs; split the file, or raise --max-atoms."
                )
            self._more(max(_CHUNK, rest))

    def items(self) -> Iterator[None]:
        """Step to every item of the list that comes next; each must be read before the next step."""
        self._expect("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield
            if self._expect(",", "]") == "]":
                return

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that comes next; each value must be read before the next step."""
        self._expect("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise self._damage(ValueError(f"a key is {key!r:.40}"))
            self._expect(":")
            yield key
            if self._expect(",", "}") == "}":
                return

    def _expect(self, *allowed: str) -> str:
        found = self.peek()
        if found not in allowed:
            raise self._damage(ValueError(f"{' or '.join(allowed)} expected, not {found or 'its end'}"))
        self._at += 1
        return found

    def _size_in_memory(self) -> int:
        """Return about how many bytes the rest of the buffer takes when it is parsed."""
        count = self._text.count
        return 72 * (count("{", self._at) + count("[", self._at)) + 32 * count(",", self._at)

    def _damage(self, error: BaseException) -> StructureError:
        what = one_line(error).split(": line ")[0]
        place = f"at character {self.position:,}"
        return StructureError(f"the text is no JSON ({what}, {place}); check that the file is complete.")

    def _more(self, size: int) -> None:
        data = self._stream.read(size)
        self._ended = not data
        self._before += self._at
        self._text = self._text[self._at :] + self._to_text.decode(data, final=self._ended)
        self._at = 0
