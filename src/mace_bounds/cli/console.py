"""What commands write to the screen: results to standard output, everything else to standard error.

All text goes through :func:`as_text`: it is never read as markup, and nothing in it acts on the terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from mace_bounds.cli.sheet import Part, Sheet, as_text
from mace_bounds.screen import tell, visible

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from mace_bounds.bounds import BoundsPredictor

SECONDS_BETWEEN_LINES = 5.0
UNLIMITED = 10_000
"""Cells of a line that goes to a file or a program, where nothing is folded."""

MAX_NAMED = 20
"""Structures without bounds that are named one by one."""


class Update(Protocol):
    """Progress of a run: how many are done, how many of them failed, and the total where it becomes known late."""

    def __call__(self, done: int, failed: int, total: int | None = ...) -> None:
        """Show it."""
        ...


def say(*parts: Part, wrap: bool = False) -> None:
    """Write a line to standard output.

    Parameters
    ----------
    *parts : str or (str, str)
        Plain text, or text with its style.
    wrap : bool
        Fold it at blanks on a terminal: for sentences. Lines with paths and commands stay whole, to be copied.
    """
    _line(_console(sys.stdout), parts, wrap=wrap)


def show(sheet: Sheet) -> None:
    """Write a table to standard output, in a shape that fits the screen."""
    screen = _console(sys.stdout)
    for line in sheet.lines(screen.width, screen.encoding):
        screen.print(line, soft_wrap=True)


def note(text: str) -> None:
    """Write a sentence to standard error."""
    tell(text)


def note_labels(table: pd.DataFrame, energy: str = "energy_ev", *, always: bool = False) -> None:
    """Say on standard error which labels were taken and which refused, where there are any."""
    from mace_bounds.features import label_sentences, label_summary

    summary = label_summary(table, energy)
    if always or summary["taken"] or summary["refused"]:
        for line in label_sentences(summary):
            note(line)


def note_models(predictor: BoundsPredictor, *, given: bool) -> None:
    """Say on standard error what is odd about the models; ``given``: energies were, so that one only gives features."""
    models = [predictor.model]
    if not given and (other := predictor.energy_model) is not None and other is not predictor.model:
        models.append(other)
    for warning in [warning for loaded in models for warning in loaded.warnings]:
        note(f"note: {warning}")


def note_failures(table: pd.DataFrame) -> None:
    """Say on standard error which rows of a bounds table have a reason instead, and sum up many of them."""
    from mace_bounds.structures import reasons_in_short

    failed = table[table["reason"].notna()]
    for name, reason in zip(failed["id"][:MAX_NAMED], failed["reason"][:MAX_NAMED], strict=True):
        note(f"{name}: {reason}")
    if len(failed) > MAX_NAMED:
        note(f"{len(failed):,} in all could not be scored: {reasons_in_short(failed['reason'].tolist())}")


def write_json(values: Any) -> None:
    """Write JSON to standard output, in UTF-8."""
    write_data((json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_data(data: bytes) -> None:
    """Write bytes to standard output: what programs read does not depend on the locale."""
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is not None:
        binary.write(data)
        binary.flush()
    else:
        sys.stdout.write(data.decode())


def _line(screen: Console, parts: tuple[Part, ...], *, wrap: bool = False) -> None:
    from rich.text import Text

    text = Text.assemble(*(as_text(part, screen.encoding) for part in parts))
    screen.print(text, soft_wrap=not wrap)


def _console(stream: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() or os.environ.get("COLUMNS") else UNLIMITED
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


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
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", style="dim"),
        TimeElapsedColumn(),
    ]
    if total is not None:
        columns.append(TimeRemainingColumn())
    clock = _Rate()
    with Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(visible(what), total=total, rate="")

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
