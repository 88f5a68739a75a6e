"""Answers that can be fetched again by a link, for a while: small files, which the processes of a service share."""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import orjson

from mace_bounds.service.problems import Problem
from mace_bounds.structures import Crystal, Record
from mace_bounds.tables import typed

if TYPE_CHECKING:
    import pandas as pd

_HEX = 40
_NAME = re.compile(rf"[0-9a-f]{{{_HEX}}}")
_SLACK = 1 / 16  # of the bytes: after as many were written, the oldest files go


@dataclass(frozen=True, eq=False)
class Kept:
    """A table, and records of its structures that hold no more than these."""

    table: pd.DataFrame
    structures: Sequence[Record]


class Results:
    """Tables by the hash of what was asked: whoever asks the same gets the same link, and nobody can guess another's.

    Parameters
    ----------
    folder : path or None
        Where the files are; several processes may share it. None for a temporary one.
    seconds : float
        For which each is kept; 0 for none.
    max_bytes : float
        Of all together; the oldest go first.
    """

    def __init__(self, folder: Path | None, seconds: float, max_bytes: float) -> None:
        self._folder, self._seconds, self._max_bytes = folder, seconds, max_bytes
        self._own: TemporaryDirectory[str] | None = None
        self._written = 0.0

    def start(self) -> None:
        """Make the folder."""
        if not self._seconds:
            return
        if self._folder is None:
            self._own = TemporaryDirectory(prefix="mace-bounds-")
            self._folder = Path(self._own.name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy()

    def stop(self) -> None:
        """Remove a temporary folder."""
        if self._own is not None:
            self._own.cleanup()

    def keep(self, rows: bytes, structures: Sequence[Record], asked: str) -> str | None:
        """Keep an answer; its name, or None where nothing is kept.

        Parameters
        ----------
        rows : bytes
            The table as JSON.
        structures : sequence of Record
        asked : str
            Head and level, as far as they are part of the question.
        """
        if not self._seconds or self._folder is None:
            return None
        sha = hashlib.sha256(asked.encode())
        crystals: list[list[list[float]] | None] = []
        for record in structures:
            sha.update(f"\0{record.id}\0{record.source}\0{record.energy_ev}\0{record.reason}".encode())
            arrays = [] if record.crystal is None else _arrays(record.crystal)
            for array in arrays:
                sha.update(array.tobytes())
            crystals.append([array.ravel().tolist() for array in arrays] or None)
        data = zlib.compress(orjson.dumps([rows.decode(), crystals]), 1)
        if len(data) > self._max_bytes:
            return None
        name = sha.hexdigest()[:_HEX]
        unfinished = self._folder / f".{name}.{os.getpid()}.{time.monotonic_ns()}"
        unfinished.write_bytes(data)
        unfinished.replace(self._folder / name)
        self._written += len(data)
        if self._written > _SLACK * self._max_bytes:
            self._written = 0.0
            self._tidy()
        return name

    def get(self, name: str) -> Kept:
        """An answer that is kept; Problem 404 if it is not, or not any more."""
        try:
            if self._folder is None or not _NAME.fullmatch(name):
                raise FileNotFoundError
            path = self._folder / name
            if path.stat().st_mtime + self._seconds < time.time():
                path.unlink()
                raise FileNotFoundError
            rows, crystals = orjson.loads(zlib.decompress(path.read_bytes()))
        except FileNotFoundError:
            raise Problem(
                404, "There is no such result, or not any more", "Send the structures again."
            ) from None
        import pandas as pd

        table = typed(pd.DataFrame(orjson.loads(rows)))
        return Kept(table, [Record(crystal=None if c is None else _crystal(*c)) for c in crystals])

    def _tidy(self) -> None:
        """Remove what is too old, and the oldest beyond the bytes."""
        assert self._folder is not None
        files = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process tidies too
                files.append((entry.stat().st_mtime, entry.stat().st_size, Path(entry.path)))
        left = (1 - _SLACK) * self._max_bytes
        for since, size, path in sorted(files, reverse=True):
            left -= size
            if left < 0 or since + self._seconds < time.time():
                path.unlink(missing_ok=True)


def _arrays(crystal: Crystal) -> list[np.ndarray]:
    return [crystal.numbers, crystal.positions, crystal.cell]


def _crystal(numbers: list[int], positions: list[float], cell: list[float]) -> Crystal:
    return Crystal(np.array(numbers), np.reshape(positions, (-1, 3)), np.reshape(cell, (3, 3)))
