"""Answers that can be fetched again by a link, for a while: in memory, as many as fit."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mace_bounds.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from mace_bounds.structures import Record

_HEX = 40
_ROW_BYTES = 4000  # about what a row of the table takes


@dataclass(frozen=True, eq=False)
class Kept:
    """A table and its structures."""

    table: pd.DataFrame
    structures: Sequence[Record]
    until: float  # of time.monotonic()
    n_bytes: int


class Results:
    """Tables by the hash of what was asked: whoever asks the same gets the same link, and nobody can guess another's.

    Parameters
    ----------
    seconds : float
        For which each is kept; 0 for none.
    max_bytes : float
        Of all together; the oldest go first.
    """

    def __init__(self, seconds: float, max_bytes: float) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, table: pd.DataFrame, structures: Sequence[Record], asked: str) -> str | None:
        """Keep an answer; its name, or None where nothing is kept.

        ``asked``: head and level, as far as they are part of the question.
        """
        sha = hashlib.sha256(asked.encode())
        n_bytes = _ROW_BYTES * len(structures)
        for record in structures:
            sha.update(f"\0{record.id}\0{record.source}\0{record.energy_ev}\0{record.reason}".encode())
            if record.crystal is not None:
                for array in (record.crystal.numbers, record.crystal.positions, record.crystal.cell):
                    sha.update(array.tobytes())
                    n_bytes += array.nbytes
        if not self._seconds or n_bytes > self._max_bytes:
            return None
        name = sha.hexdigest()[:_HEX]
        with self._lock:
            self._drop(name)
            self._kept[name] = Kept(table, structures, time.monotonic() + self._seconds, n_bytes)
            self._bytes += n_bytes
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))
        return name

    def get(self, name: str) -> Kept:
        """An answer that is kept; Problem 404 if it is not, or not any more."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and kept.until < time.monotonic():
                self._drop(name)
                kept = None
        if kept is None:
            raise Problem(404, "There is no such result, or not any more", "Send the structures again.")
        return kept

    def _drop(self, name: str) -> None:
        gone = self._kept.pop(name, None)
        self._bytes -= 0 if gone is None else gone.n_bytes
