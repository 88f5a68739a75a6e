"""Thresholds for runs that leave what the head knows, and an observer that keeps the bounds of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mace_bounds.bounds import Bounds
from mace_bounds.errors import HeadError, MaceBoundsError
from mace_bounds.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.calculator.bounds_calculator import BoundsCalculator


class ThresholdExceeded(MaceBoundsError):
    """A structure is beyond the threshold of a calculator that was told to raise."""


class BoundsWarning(UserWarning):
    """A structure is beyond the threshold of a calculator that was told to warn."""


@dataclass(frozen=True)
class Threshold:
    """When a run has gone too far, and what is done then.

    Attributes
    ----------
    std_mev_per_atom : float or None
        Largest calibrated standard deviation of the energy, meV/atom.
    novelty : float or None
        Largest novelty; 1 is where the flag ``extrapolates`` is raised.
    then : {"warn", "raise", "stop"}
        Give a :class:`BoundsWarning` when it is crossed; raise :class:`ThresholdExceeded`; or end a run that is watched
        (:meth:`BoundsCalculator.watch`) after the step, as if it had been asked for so many steps.
    """

    std_mev_per_atom: float | None = None
    novelty: float | None = None
    then: Literal["warn", "raise", "stop"] = "warn"

    def __post_init__(self) -> None:
        limits = (self.std_mev_per_atom, self.novelty)
        if self.then not in ("warn", "raise", "stop"):
            raise HeadError(f"{self.then!r} is not what a threshold can do; choose warn, raise or stop.")
        if all(limit is None for limit in limits) or any(
            limit is not None and not limit > 0 for limit in limits
        ):
            raise HeadError("a threshold needs a positive std_mev_per_atom, a positive novelty, or both.")

    def exceeded(self, bounds: Bounds | None) -> str:
        """How a structure exceeds it, in one sentence; empty where it does not. One without bounds always does."""
        if bounds is None:
            return "the structure has no bounds; see its reason."
        values = (
            ("standard deviation of the energy", bounds.std_mev_per_atom, self.std_mev_per_atom, " meV/atom"),
            ("novelty", bounds.novelty, self.novelty, ""),
        )
        over = [
            f"the {name} is {value:.3g}{unit}, above the threshold of {limit:g}"
            for name, value, limit, unit in values
            if value is not None and limit is not None and value > limit
        ]
        return (
            f"{' and '.join(over)}; label this structure, or fit a head that knows such ones." if over else ""
        )


class Watch:
    """Observer of a dynamics or an optimiser of ase: keeps the bounds of every step, and stops where it should.

    Made and attached by :meth:`BoundsCalculator.watch`.
    """

    def __init__(self, calculator: BoundsCalculator, dynamics: Any) -> None:
        self.calculator, self.dynamics = calculator, dynamics
        self.rows: list[dict[str, Any]] = []

    def __call__(self) -> None:
        """Note the present step."""
        results, step = self.calculator.results, int(self.dynamics.nsteps)
        names = ("energy", "energy_expected", "energy_lower", "energy_upper", "energy_uncertainty")
        row = {"step": step} | {f"{name}_ev": results[name] for name in names}
        row |= {
            "novelty": results["novelty"],
            "flags": ";".join(results["flags"]),
            "reason": results["reason"],
        }
        self.rows.append(row)
        threshold = self.calculator.threshold
        if threshold is not None and threshold.then == "stop" and self.calculator.exceeded:
            self.dynamics.max_steps = step

    @property
    def table(self) -> pd.DataFrame:
        """A row for each step that was noted: energies and bounds in eV, novelty, flags, reason."""
        return frame({name: [row[name] for row in self.rows] for name in self.rows[0]} if self.rows else {})
