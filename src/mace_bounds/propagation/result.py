"""One result for every property and method: the value, its interval, and what was assumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mace_bounds.errors import StructureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.propagation.potential import Potential

Method = Literal["curves", "implicit", "resample"]
EV_A3_IN_GPA = 160.21766339999996
MOST_FAILED = 0.5
"""Above this share of draws without the property an interval says nothing and is not given."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A number that is linear in the weights: row · θ + fixed.

    Attributes
    ----------
    row : ndarray, shape (C,)
    fixed : float
    """

    row: NDArray[np.float64]
    fixed: float

    def __sub__(self, other: Linear) -> Linear:
        return Linear(self.row - other.row, self.fixed - other.fixed)

    def __mul__(self, factor: float) -> Linear:
        return Linear(self.row * factor, self.fixed * factor)

    def values(self, theta_ev: NDArray[np.float64]) -> NDArray[np.float64]:
        """For weights (k, C), shape (k,)."""
        return np.asarray(theta_ev @ self.row + self.fixed)


@dataclass(frozen=True)
class PropertyBounds:
    """A property with its interval.

    Attributes
    ----------
    name : str
        ``"V0"``, ``"C11"``, ``"vacancy formation energy"``.
    unit : str
        Of value, bounds and standard deviation; empty for pure numbers.
    value : float
        By the mean readout weights.
    lower, upper : float or None
        Interval at the level; None where there are no draws, or too few of them have the property.
    std : float or None
        Standard deviation over draws, or of the calibration.
    level : float
        Of the interval.
    bounds : str
        What the interval is: calibrated and on what, or ``"POPS range, not calibrated"``.
    method : str
        ``"curves"``, ``"implicit"`` or ``"resample"``.
    n_draws : int
        Draws that were made.
    failed_share : float
        Share of them without the property (no minimum, an unstable lattice).
    assumed : tuple of str
        What was taken for granted.
    envelope_lower, envelope_upper : float or None
        Least and largest value over the box of all POPS corrections, in closed form, where the property, or its first
        order, is linear in the weights: independent of a number of draws.
    """

    name: str
    unit: str
    value: float
    lower: float | None
    upper: float | None
    std: float | None
    level: float
    bounds: str
    method: str
    n_draws: int
    failed_share: float
    assumed: tuple[str, ...] = ()
    envelope_lower: float | None = None
    envelope_upper: float | None = None

    def assuming(self, *sentences: str) -> PropertyBounds:
        """The same, with more that was taken for granted."""
        return replace(self, assumed=(*self.assumed, *sentences))

    def enveloped(self, linear: Linear, potential: Potential) -> PropertyBounds:
        """The same with the least and largest value of ``linear`` over the box of all POPS corrections, where known."""
        if potential.coefficients is None:
            return self
        lower, upper = potential.coefficients.envelope(linear.row[None])
        ends = float(lower[0] + linear.fixed), float(upper[0] + linear.fixed)
        return replace(self, envelope_lower=ends[0], envelope_upper=ends[1])

    def to_row(self) -> dict[str, Any]:
        """Its columns in a table, :data:`mace_bounds.columns.PROPERTIES`."""
        row = asdict(self)
        row["property"] = row.pop("name")
        row["assumed"] = "; ".join(self.assumed)
        return row


def property_bounds(
    name: str,
    unit: str,
    values: NDArray[np.float64],
    potential: Potential,
    *,
    level: float,
    method: Method,
    assumed: tuple[str, ...] = (),
) -> PropertyBounds:
    """Make the result from values of the mean (first) and of every draw; NaN for a draw that has none.

    The interval is between quantiles of the draws, widened to hold the value. Least and largest of draws are no bounds:
    they grow with the number of draws.

    Raises
    ------
    StructureError
        If the mean itself has no value.
    """
    if not np.isfinite(values[0]):
        raise StructureError(
            f"{name} does not exist for this structure by the mean head; relax or check the structure."
        )
    draws = values[1:]
    good = draws[np.isfinite(draws)]
    failed = 1.0 - len(good) / len(draws) if len(draws) else 0.0
    lower = upper = std = None
    if len(good) > 1 and failed <= MOST_FAILED:
        tail = 50.0 * (1.0 - level)
        lower, upper = (float(end) for end in np.percentile(good, [tail, 100.0 - tail]))
        lower, upper = min(lower, float(values[0])), max(upper, float(values[0]))
        std = float(np.std(good, ddof=1))
    return PropertyBounds(
        name,
        unit,
        float(values[0]),
        lower,
        upper,
        std,
        level,
        potential.bounds if len(draws) else "",
        method,
        len(draws),
        failed,
        assumed,
    )


def linear_bounds(
    name: str,
    unit: str,
    linear: Linear,
    potential: Potential,
    *,
    level: float,
    assumed: tuple[str, ...] = (),
) -> PropertyBounds:
    """Make the result of a property that is linear in the weights: draws, and the envelope in closed form."""
    values = linear.values(potential.theta_ev)
    result = property_bounds(name, unit, values, potential, level=level, method="curves", assumed=assumed)
    return result.enveloped(linear, potential)
