"""Every way to get error bars on the same splits, side by side."""

from mace_bounds.benchmark.baselines import BASELINES
from mace_bounds.benchmark.config import CompareConfig
from mace_bounds.benchmark.folder import CompareReport
from mace_bounds.benchmark.run import compare

__all__ = ["BASELINES", "CompareConfig", "CompareReport", "compare"]
