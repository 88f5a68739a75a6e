"""Bounds where atoms move: an ASE calculator, thresholds for runs, files for other programs."""

from mace_bounds.calculator.bounds_calculator import BoundsCalculator
from mace_bounds.calculator.region import write_lammps_region
from mace_bounds.calculator.watching import BoundsWarning, Threshold, ThresholdExceeded, Watch

__all__ = [
    "BoundsCalculator",
    "BoundsWarning",
    "Threshold",
    "ThresholdExceeded",
    "Watch",
    "write_lammps_region",
]
