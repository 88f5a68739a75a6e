"""Text for screens: nothing in it acts on a terminal, and every encoding can hold it."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

SPELLED = "mace_bounds.spelled"
"""Name of the error handler of codecs that spells signs out which an encoding does not have."""

_MARKDOWN = re.compile(r"[\\`*\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Signs with a meaning in Markdown, but for underscores inside of words, which have none."""

_SIGNS = {
    "±": "+/-", "…": "...", "−": "-", "–": "-", "—": "-", "─": "-", "≤": "<=", "≥": ">=", "·": "*", "×": "x", "→": "->",
    "²": "^2", "³": "^3", "Å": "A", "µ": "u", "α": "alpha", "γ": "gamma", "σ": "sigma", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def visible(text: object) -> str:
    r"""Return text with everything escaped that does not stand for itself on a screen.

    Escape sequences, other control characters, marks that turn the direction of writing, line ends, and bytes of file
    names that are no text become ``\x1b``, ``\u202e``, ``\n``, ``\udc80``. Nothing is lost or cut.

    Examples
    --------
    >>> print(visible("NaCl \x1b[2J"))
    NaCl \x1b[2J
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)


def markdown_text(text: object) -> str:
    """Return text that stands for itself in Markdown and in tables of it: no HTML, link or emphasis, one line."""
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\g<0>", plain).replace("|", "&#124;")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; what is in its cells stands for itself."""
    lines = [columns, ["---"] * len(columns), *([markdown_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(text: str) -> None:
    """Write a sentence to standard error, with nothing in it that acts on the terminal.

    A terminal has it folded at blanks, so that paths stay whole, to be copied; files and programs get one line.
    """
    stream = sys.stderr
    line = spell(visible(text), (stream.encoding or "utf-8").lower())
    if stream.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    stream.write(line + "\n")


def spell(text: str, encoding: str) -> str:
    """Return text that an encoding can hold: ``±`` is ``+/-`` in ASCII, and what has no spelling is escaped."""
    return text if encoding.startswith("utf") else text.encode(encoding, SPELLED).decode(encoding)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end]
    return "".join(_SIGNS.get(c, c.encode("unicode_escape").decode("ascii")) for c in wanted), error.end


codecs.register_error(SPELLED, _spelled)


def prepare_streams() -> None:
    """Make the standard streams fit to be written to: none is closed, and none fails at a sign that it cannot hold.

    A closed one would lend its number to the next file that is opened. Where the locale is set to ``C``, what is
    written is ASCII: such terminals show nothing else.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives with the process
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)


def _prepared(stream: TextIO | None, number: int) -> TextIO:
    stream = stream or open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if hasattr(stream, "reconfigure"):
        ascii_only = os.environ.get("LC_ALL") in ("C", "POSIX") and not os.environ.get("PYTHONIOENCODING")
        stream.reconfigure(encoding="ascii" if ascii_only else None, errors=SPELLED)
    return stream
