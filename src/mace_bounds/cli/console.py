"""What commands write to the screen: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table

SECONDS_BETWEEN_LINES = 5.0


class Update(Protocol):
    """Progress of a run: how many are done, how many of them failed, and the total where it becomes known late."""

    def __call__(self, done: int, failed: int, total: int | None = ...) -> None:
        """Show it."""
        ...


def out() -> Console:
    """Console of standard output, as it is now; wide where it goes to a file."""
    return _console(stderr=False)


def err() -> Console:
    """Console of standard error, as it is now."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 120
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=width)


def note(text: str) -> None:
    """Write a line to standard error."""
    err().print(text, markup=False, soft_wrap=True)


def write_json(values: Any) -> None:
    """Write JSON to standard output."""
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain_table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """Return a table in the house style: no box, headers dim, numbers to the right."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="dim",
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    numbers = set(right)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Update]:
    """Show how far a run is: a bar on a terminal, a line every few seconds elsewhere; on standard error.

    Parameters
    ----------
    what : str
        What is counted: ``"structures"``.
    total : int, optional
        How many there are, where that is known.

    Yields
    ------
    callable
        To be called with (done, failed among them), and with the total where that becomes known on the way.
    """
    if sys.stderr.isatty():
        with _bar(what, total) as update:
            yield update
    else:
        yield _lines(what, total)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Update]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", style="dim"),
        TimeElapsedColumn(),
    ]
    if total is not None:
        columns.append(TimeRemainingColumn())
    clock = _Rate()
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def update(done: int, failed: int, total: int | None = total) -> None:
            tail = f", {failed:,} failed" if failed else ""
            bar.update(task, total=total, completed=done, rate=f"{clock(done):.1f}/s{tail}")

        yield update


def _lines(what: str, total: int | None) -> Update:
    clock, last = _Rate(), [time.monotonic()]

    def update(done: int, failed: int, total: int | None = total) -> None:
        now = time.monotonic()
        if now - last[0] < SECONDS_BETWEEN_LINES and done != total:
            return
        last[0] = now
        rate = clock(done)
        parts = [f"{done:,}" + (f" of {total:,}" if total else "") + f" {what}"]
        parts += [f"{failed:,} failed"] * bool(failed) + [f"{rate:.1f}/s"]
        if total and rate > 0 and done < total:
            parts.append(f"about {(total - done) / rate:.0f} s left")
        note(", ".join(parts))

    return update


class _Rate:
    """Structures per second since the start; what was there before a resumed run counts too."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, done: int) -> float:
        return done / max(time.monotonic() - self._start, 1e-9)
