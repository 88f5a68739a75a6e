"""Nominal coverage levels: one ordered set, one tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mace_bounds.errors import HeadError
from mace_bounds.settings import setting

LEVELS: tuple[float, ...] = (0.68, 0.90, 0.95, 0.99)
"""The levels that heads are calibrated for by default."""

ONE_SIGMA = 0.68
"""The level whose half-width is called the standard deviation."""

TOLERANCE = 1e-9
"""Two levels nearer than this are the same: 0.95 is not a binary number."""


LOWEST, HIGHEST = 0.01, 0.999
"""Levels that may be asked for."""

_DIGITS = 9  # what is nearer than TOLERANCE is one number


def parse_level(text: str | float) -> float:
    """``"0.95"``, ``"95"`` and ``"95 %"`` to 0.95; ValueError for anything else.

    Examples
    --------
    >>> [parse_level(text) for text in ("0.95", "95", "95%", " 0.9500000000000001 ")]
    [0.95, 0.95, 0.95, 0.95]
    """
    written = str(text).strip()
    bare = written.removesuffix("%").rstrip()
    try:
        number = float(bare)
    except ValueError:
        number = math.nan
    if bare != written or number > 1:
        number /= 100
    level = round(number, _DIGITS)
    if not LOWEST <= level <= HIGHEST:
        raise ValueError(f"{written!r} is no level from 1 % to 99.9 %; write 0.95, 95 or 95%, for example.")
    return level


@dataclass(frozen=True)
class Levels:
    """Nominal coverages in increasing order.

    Attributes
    ----------
    values : tuple of float
        Each between 0 and 1.

    Examples
    --------
    >>> levels = Levels.of([0.95, 0.68])
    >>> levels.index(0.95)
    1
    >>> 0.9 in levels
    False
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Levels:
        """Sort levels and drop repetitions; HeadError if one is not between 0 and 1."""
        kept: list[float] = []
        for value in sorted(round(float(v), _DIGITS) for v in values):
            if not 0.0 < value < 1.0:
                raise HeadError(f"the level {value:g} is not between 0 and 1; write 95 per cent as 0.95.")
            if not kept or value - kept[-1] > TOLERANCE:
                kept.append(value)
        return cls(tuple(kept))

    def __iter__(self) -> Iterator[float]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> float:
        return self.values[place]

    def __contains__(self, level: object) -> bool:
        return isinstance(level, (int, float, np.floating)) and bool(self._matches(float(level)).any())

    def nearest(self, level: float) -> float:
        """The level as it stands here; HeadError if it is not among them."""
        return self.values[self.index(level)]

    def index(self, level: float) -> int:
        """Place of a level; HeadError, with the levels that are there, if it is not among them."""
        found = np.flatnonzero(self._matches(level))
        if found.size == 0:
            raise HeadError(
                f"this head is calibrated for the levels {self}, not for {level:g}; choose one of these."
            )
        return int(found[0])

    def __str__(self) -> str:
        return ", ".join(f"{value:g}" for value in self.values)

    def _matches(self, level: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.abs(np.asarray(self.values) - level) < TOLERANCE


def percent(level: float) -> str:
    """``0.95`` as ``"95"``: for names of columns and for sentences."""
    return f"{100 * level:g}"


def level_setting(help: str = "Nominal coverage of the bounds, as 0.95 or 95.") -> float:
    """Declare the field ``level`` of a settings dataclass (:func:`mace_bounds.settings.setting`), 0.95 by default."""
    return setting(
        0.95, help, minimum=LOWEST, maximum=HIGHEST, metavar="LEVEL", parser=parse_level, option="--level -l"
    )
