"""How fast requests are answered, measured as they go: whether one more would wait too long."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

_WINDOW = (
    64  # latest answers that are measured; they come in bursts, as many as go through the model together
)
_SMOOTH = 0.1  # weight of the latest request in the usual time of one alone
ALWAYS = 4
"""Requests that are let in however slow they are: beside a large one small ones are let in too."""


@dataclass
class Pace:
    """The time that a request takes alone, and the time for each where several are under way.

    By Little's law a request that comes when n are under way is answered after about (n + 1) times the time for each.

    Parameters
    ----------
    alone_s, each_s : float
        Before anything has been measured.
    """

    alone_s: float = 0.1
    each_s: float = 0.02
    _n_alone: int = 0
    _samples: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _since: float = 0.0  # the latest answer, or when the first request came after none was under way

    def expected_s(self, n: int) -> float:
        """After how long a request will be answered that comes when n are under way."""
        each = sum(self._samples) / len(self._samples) if self._samples else self.each_s
        return (n + 1) * each

    def too_long(self, n: int, slowdown: float) -> bool:
        """Whether that is longer than so many times the time of a request alone."""
        return n >= ALWAYS and self.expected_s(n) > slowdown * self.alone_s

    def retry_after_s(self, n: int) -> int:
        """Whole seconds after which those under way should have been answered."""
        return min(30, max(1, math.ceil(self.expected_s(n))))

    def came(self, n: int, now: float | None = None) -> None:
        """A request has been let in, beside n others."""
        if n == 0:
            self._since = time.monotonic() if now is None else now

    def answered(self, n: int, took_s: float, *, alone: bool, now: float | None = None) -> None:
        """A request that was let in has been answered; n were under way, with it.

        Parameters
        ----------
        n : int
        took_s : float
            Since it came.
        alone : bool
            Whether no other was under way at any time.
        now : float, optional
            Of ``time.monotonic()``.
        """
        now = time.monotonic() if now is None else now
        sample, self._since = now - self._since, now
        if alone:
            self._n_alone += 1
            self.alone_s += max(_SMOOTH, 1 / self._n_alone) * (took_s - self.alone_s)
        elif n > 1:
            self._samples.append(sample)
