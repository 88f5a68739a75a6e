"""Tables on the screen, in a shape that fits: one line a row, two lines, or a list. Numbers are never cut or folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

from mace_bounds.screen import spell, visible

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2
"""Blanks between columns, and before a second line."""
NARROWEST, LONGEST_WORD = 14, 24
"""Text is folded to so many cells before the table changes its shape; words of up to the second stay whole (flags)."""


Part: TypeAlias = "str | tuple[str, str]"
"""A piece of text, or (text, style of rich)."""


def as_text(part: Part, encoding: str = "utf-8") -> Text:
    """Return a piece of text for rich, in signs that the encoding has."""
    from rich.text import Text

    text, style = part if isinstance(part, tuple) else (part, "")
    return Text(spell(visible(text), encoding), style, overflow="fold")


@dataclass(frozen=True)
class _Band:
    """Columns that stand beside each other, with their widths in cells."""

    places: list[int]
    widths: list[int]
    indent: int = 0

    @property
    def total(self) -> int:
        return self.indent + sum(self.widths) + GAP * (len(self.widths) - 1)


class Sheet:
    """A table in the house style: no box, headers dim, numbers to the right.

    Where it is wider than the screen, text is folded; then numbers go to a second line below the text of their row;
    then every cell has a line of its own, with its header before it.

    Parameters
    ----------
    *columns : str
        Headers.
    numbers : iterable of str
        Which of them hold numbers.
    title : str
        Above it; empty for none.
    headed : bool
        Whether headers are shown; without them a row is one line or a list.
    """

    def __init__(
        self, *columns: str, numbers: Iterable[str] = (), title: str = "", headed: bool = True
    ) -> None:
        right = set(numbers)
        self._columns, self._title, self._headed = columns, title, headed
        self._numbers = [name in right for name in columns]
        self._rows: list[tuple[Part, ...]] = []

    def add(self, *cells: Part) -> None:
        """Add a row: for each column its text, or (text, style of rich)."""
        self._rows.append(cells)

    def lines(self, width: int, encoding: str = "utf-8") -> Iterator[Text]:
        """Lay it out for a screen of so many cells."""
        headers = [as_text((name if self._headed else "", "dim"), encoding) for name in self._columns]
        rows = [[as_text(cell, encoding) for cell in row] for row in self._rows]
        if self._title:
            yield as_text((self._title, "bold"), encoding)
        bands = self._bands(headers, rows, width)
        if not bands:
            yield from self._list(headers, rows, width)
            return
        if self._headed:
            for band in bands:
                yield from self._line(headers, band)
            yield as_text(("─" * max(band.total for band in bands), "dim"), encoding)
        for row in rows:
            for band in bands:
                yield from self._line(row, band)

    def _bands(self, headers: list[Text], rows: list[list[Text]], width: int) -> list[_Band]:
        """Columns in one line, else texts above numbers; none where the numbers do not fit."""
        sizes = [_sizes([row[k] for row in rows], header) for k, header in enumerate(headers)]
        every = range(len(headers))
        texts = [k for k in every if not self._numbers[k]]
        numbers = [k for k in every if self._numbers[k]]
        whole = self._fitted(every, sizes, width)
        if whole or not self._headed:
            return [whole] if whole else []
        above, below = self._fitted(texts, sizes, width), self._fitted(numbers, sizes, width, GAP)
        return [above, below] if above and below else []

    def _fitted(
        self, places: Sequence[int], sizes: list[tuple[int, int, int]], width: int, indent: int = 0
    ) -> _Band | None:
        """Give columns their widths, texts as much as there is; None where they do not fit."""
        wanted = [sizes[k][1] for k in places]
        # without headers, what does not fit becomes a list
        widths = [
            sizes[k][0] if self._numbers[k] else min(sizes[k][1], sizes[k][2] if self._headed else width)
            for k in places
        ]
        spare = width - indent - sum(widths) - GAP * (len(widths) - 1)
        if spare < 0 or not widths:
            return None
        for at in sorted(
            range(len(widths)), key=lambda at: wanted[at] - widths[at]
        ):  # the nearly whole ones first
            more = min(wanted[at] - widths[at], spare)
            widths[at], spare = widths[at] + more, spare - more
        return _Band(list(places), widths, indent)

    def _line(self, cells: list[Text], band: _Band) -> Iterator[Text]:
        """Cells beside each other; those that are wider than their column go on below."""
        from rich.text import Text

        folded = [
            _folded(cells[k], size, right=self._numbers[k])
            for k, size in zip(band.places, band.widths, strict=True)
        ]
        for pieces in zip_longest(*folded):
            line = Text(" " * band.indent)
            for at, (piece, size) in enumerate(zip(pieces, band.widths, strict=True)):
                line.append(" " * GAP if at else "")
                line.append_text(piece if piece is not None else Text(" " * size))
            line.rstrip()
            yield line

    def _list(self, headers: list[Text], rows: list[list[Text]], width: int) -> Iterator[Text]:
        """Every cell in a line of its own; the first one, which names the row, without its header."""
        from rich.text import Text

        for first, *cells in rows:
            lines = [(0, piece) for piece in _folded(first, width)]
            for header, cell in zip(headers[1:], cells, strict=True):
                pair = Text("  ").join([header, cell]) if self._headed else cell
                whole = [pair] if pair.cell_len <= width - GAP else [header, cell]
                if cell.plain:
                    lines += [(GAP, line) for piece in whole for line in _folded(piece, width - GAP)]
            for indent, line in lines:
                line.rstrip()
                yield Text(" " * indent).append_text(line)


def _sizes(cells: list[Text], header: Text) -> tuple[int, int, int]:
    """Cells that a column needs with its header folded at blanks, with its header in one line, and folded itself."""
    widest = max((cell.cell_len for cell in cells), default=0)
    words = max((as_text(word).cell_len for word in header.plain.split()), default=0)
    longest = max((as_text(word).cell_len for cell in cells for word in cell.plain.split()), default=0)
    return max(widest, words), max(widest, header.cell_len), max(NARROWEST, min(longest, LONGEST_WORD))


def _folded(cell: Text, width: int, *, right: bool = False) -> list[Text]:
    """Lines of a cell, each as wide as its column."""
    from rich.console import Console

    width = max(width, 2)
    pieces = [cell] if cell.cell_len <= width else list(cell.wrap(Console(), width, overflow="fold"))
    out = []
    for piece in pieces:
        line = piece.copy()
        line.rstrip()
        blanks = max(width - line.cell_len, 0)
        line.pad_left(blanks) if right else line.pad_right(blanks)
        out.append(line)
    return out
