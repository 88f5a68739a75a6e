"""When an audit ran and how long each stage took: ``run.json``, the one file that differs between equal audits."""

from __future__ import annotations

import json
import platform
import time
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing.folder import RUN, open_folder, write_json
from mace_bounds.features import usable_cores
from mace_bounds.versions import now

if TYPE_CHECKING:
    from pathlib import Path


def begin(out: Path) -> None:
    """Open the folder and note the start in ``run.json``, the first file there: it marks the folder as an audit's.

    Raises
    ------
    StoreError
        If the folder holds something else.
    """
    open_folder(out)
    for leftover in out.glob(".*.tmp"):
        leftover.unlink()
    about = {"system": platform.system(), "machine": platform.machine(), "usable_cores": usable_cores()}
    start = {"started": now(), "finished": None, "seconds": {}, "machine": about}
    _write(out, [*_starts(out), start])


class Stages:
    """The stages of a run; each goes to ``run.json`` as it ends."""

    def __init__(self, out: Path) -> None:
        self._out, self._seconds, self._last = out, dict[str, float](), time.perf_counter()

    def end(self, name: str, *, last: bool = False) -> None:
        """End a stage; with the last one the run is finished."""
        before, self._last = self._last, time.perf_counter()
        self._seconds[name] = round(self._last - before, 2)
        *earlier, mine = _starts(self._out) or [{}]
        _write(self._out, [*earlier, {**mine, "finished": now() if last else None, "seconds": self._seconds}])


def read_times(out: Path) -> dict[str, Any]:
    """What ``run.json`` holds: ``starts``, oldest first, each with times, seconds of its stages and the machine."""
    values: dict[str, Any] = json.loads((out / RUN).read_text(encoding="utf-8"))
    return values


def _starts(out: Path) -> list[dict[str, Any]]:
    try:
        return list(read_times(out)["starts"])
    except (OSError, ValueError, KeyError, TypeError):  # times are no reason to stop
        return []


def _write(out: Path, starts: list[dict[str, Any]]) -> None:
    write_json(out / RUN, {"command": "audit", "starts": starts})
