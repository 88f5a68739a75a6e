"""Values that came from outside, made safe to use and to print on one line."""

from __future__ import annotations

from collections.abc import Mapping, MutableSet
from contextlib import suppress
from typing import Any


def clean(text: object, limit: int = 200) -> str:
    """Return one printable line of at most ``limit`` characters (control characters become blanks)."""
    raw = str(text)[: 4 * limit]
    if not raw.isprintable():
        with suppress(UnicodeError):  # a file name in UTF-8 that Python has read as ASCII, as the locale said
            raw = raw.encode("utf-8", "surrogateescape").decode("utf-8")
        raw = "".join(c if c.isprintable() else " " for c in raw)
    line = " ".join(raw.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def one_line(error: BaseException, limit: int = 160) -> str:
    """Return the message of another library's exception as one short clause without a final stop."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = clean(error, limit).rstrip(" .")
    return text or type(error).__name__


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a dictionary as it is and anything else as an empty one: JSON from outside holds what it likes."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str | None:
    """Return text, None for None, and the value of an enumeration's member as text."""
    return None if value is None else str(getattr(value, "value", value))


class UniqueNames:
    """Makes names unique in linear time: the second ``x`` becomes ``x~2``, unless a name is ``x~2`` already.

    Parameters
    ----------
    taken : mutable set of str, optional
        Where the names are remembered.
    """

    def __init__(self, taken: MutableSet[str] | None = None) -> None:
        self._taken: MutableSet[str] = set() if taken is None else taken
        self._last: dict[str, int] = {}  # so that the search for a free number goes on where it ended

    def __call__(self, name: str) -> str:
        """Return the name, or the first free ``NAME~2``, ``NAME~3``, ..."""
        unique = name
        if name in self._taken:
            number = self._last.get(name, 1)
            while unique in self._taken:
                number += 1
                unique = f"{name}~{number}"
            self._last[name] = number
        self._taken.add(unique)
        return unique
