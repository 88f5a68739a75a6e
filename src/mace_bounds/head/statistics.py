"""Two robust statistics that the fits of heads share."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from mace_bounds.head.chunks import Array

MAD_TO_STD = float(1.0 / ndtri(0.75))
"""From a median absolute deviation to a standard deviation, for Gaussian noise."""


def weighted_quantile(values: Array, weights: Array, mass: float) -> float:
    """Smallest value up to which the weights sum to ``mass``; the largest value where they never do."""
    order = np.argsort(values, kind="stable")
    position = int(np.searchsorted(np.cumsum(weights[order]), mass))
    return float(values[order[min(position, len(values) - 1)]])
