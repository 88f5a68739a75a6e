"""How fast requests are answered, measured as they go: whether one more would wait too long."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

from mace_bounds.bounds import MOST_ATOMS

REQUEST_WORK = 64
"""Atoms whose features take about as long as what every request takes beside them (with mini on a CPU)."""
BYTES_PER_ATOM = 50
"""Of a file, for requests that have not been read yet."""
ALWAYS = 4
"""Requests that are let in however slow they are: beside a large one small ones are let in too."""

_WINDOW = (
    64  # latest answers that are measured; they come in bursts, as many as go through the model together
)
_SMOOTH = 0.1  # weight of the latest request in the usual time of one alone
_SMALL = 2 * REQUEST_WORK


def work_of(n_atoms: float) -> float:
    """What a request costs, in atoms: those of its structures, and as many more for all that is not the model."""
    return REQUEST_WORK + n_atoms


def ahead_of_others(work: float) -> float:
    """Work of a request that one which comes later waits for: large ones are cut, and take turns with others."""
    return min(work, REQUEST_WORK + MOST_ATOMS)


@dataclass
class Pace:
    """The time that a small request takes alone, and the work done in a second where several are under way.

    A request waits for the turns of those that came before it, so that it is answered after about the work ahead of it
    (:func:`ahead_of_others`) by the work done in a second.

    Parameters
    ----------
    alone_s, per_s : float
        Before anything has been measured.
    """

    alone_s: float = 0.1
    per_s: float = 4000.0
    _n_alone: int = 0
    _samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _since: float = 0.0  # the latest answer, or when the first request came after none was under way

    def expected_s(self, ahead: float) -> float:
        """After how long a small request will be answered that comes when so much work is ahead of it."""
        work, seconds = (
            (sum(column) for column in zip(*self._samples, strict=True)) if self._samples else (0, 0)
        )
        return (ahead + work_of(0)) / (work / seconds if seconds > 0 else self.per_s)

    def too_long(self, n: int, ahead: float, slowdown: float) -> bool:
        """Whether that is longer than so many times the time of a small request alone; n are under way."""
        return n >= ALWAYS and self.expected_s(ahead) > slowdown * self.alone_s

    def retry_after_s(self, ahead: float) -> int:
        """Whole seconds after which that work should have been done."""
        return min(30, max(1, math.ceil(self.expected_s(ahead))))

    def came(self, n: int, now: float | None = None) -> None:
        """A request has been let in, beside n others."""
        if n == 0:
            self._since = time.monotonic() if now is None else now

    def answered(self, n: int, work: float, took_s: float, *, alone: bool, now: float | None = None) -> None:
        """A request that was let in has been answered; n were under way, with it.

        Parameters
        ----------
        n : int
        work : float
            Of :func:`work_of`.
        took_s : float
            Since it came.
        alone : bool
            Whether no other was under way at any time.
        now : float, optional
            Of ``time.monotonic()``.
        """
        now = time.monotonic() if now is None else now
        seconds, self._since = now - self._since, now
        if alone and work <= _SMALL:
            self._n_alone += 1
            self.alone_s += max(_SMOOTH, 1 / self._n_alone) * (took_s - self.alone_s)
        elif n > 1:
            self._samples.append((work, seconds))
