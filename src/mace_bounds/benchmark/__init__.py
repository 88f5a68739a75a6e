"""Every way to get error bars on the same splits, side by side."""

from mace_bounds.benchmark.baselines import (
    ALL,
)
from mace_bounds.benchmark.folder import (
    rows_of,
)
from mace_bounds.benchmark.run import (
    CompareReport,
    compare,
)

__all__ = [
    "ALL",
    "CompareReport",
    "compare",
    "rows_of",
]
