"""Every draw relaxed by its own weights: slower than a linear response, and right where that is not.

The Hessian of the mean makes the steps of all draws, so that a draw near the mean takes a few gradients; the first step
of all draws comes from one pass of the network, as their forces there are linear in the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.propagation.implicit import Minimum

FORCE_EV_A = 1e-3
MOST_STEPS = 60
LONGEST_STEP_A = 0.1
_LEAST_CURVATURE_EV_A2 = 1.0  # softer modes of the mean are stepped along as if they had it


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Minima of k draws; NaN for those that did not settle."""

    q: NDArray[np.float64]  # shape (k, d)
    energy_ev: NDArray[np.float64]  # shape (k,)


def resample(mean: Minimum, theta_ev: NDArray[np.float64]) -> Relaxed:
    """Relax with each of the weights (k, C), from the minimum of the mean.

    A draw has failed where its energy goes up, or forces of more than 1e-3 eV/Å are left after 60 steps.
    """
    surface = mean.surface
    values, vectors = np.linalg.eigh(mean.hessian + surface.held.T @ surface.held)
    inverse = vectors / np.maximum(values, _LEAST_CURVATURE_EV_A2) @ vectors.T
    q = np.full((len(theta_ev), surface.size), np.nan)
    energy = np.full(len(theta_ev), np.nan)
    first = (theta_ev - surface.theta_ev) @ mean.gradient_features.T
    before = theta_ev @ mean.features + mean.fixed_ev
    for k, theta in enumerate(theta_ev):
        own, place, gradient = replace(surface, theta_ev=theta), mean.q, first[k]
        found = before[k]
        for _ in range(MOST_STEPS):
            if np.abs(gradient).max() <= FORCE_EV_A:
                break
            step = inverse @ gradient
            place = place - step * min(1.0, LONGEST_STEP_A / float(np.abs(step).max()))
            found, gradient = own.energy_and_gradient(place)
            gradient = surface.free(gradient)
        if np.abs(gradient).max() <= FORCE_EV_A and found <= before[k] + 1e-6:
            # half a Newton step's gain of what is left: the energy is then right to second order in the forces
            q[k], energy[k] = place, found - 0.5 * gradient @ inverse @ gradient
    return Relaxed(q, energy)
