"""Which phase is lower, and at which pressure they change places, of every draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.propagation.eos import FIXED_SHAPE, EquationsOfState, curves
from mace_bounds.propagation.result import EV_A3_IN_GPA, PropertyBounds, property_bounds
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    from mace_bounds.propagation.potential import Potential

WIDE_STRAINS = tuple(np.linspace(-0.20, 0.08, 12))
"""Volumes of the grids, further compressed than for an equation of state alone: phases change under pressure."""
_NEWTON_STEPS = 40


def phase_energies(
    phases: Mapping[str, Crystal], potential: Potential, level: float = 0.95
) -> list[PropertyBounds]:
    """Energies of phases less that of the first, at their own volumes, and the pressures at which they cross it.

    Parameters
    ----------
    phases : mapping of str to Crystal
        By name, two or more of one composition; the first is the reference.
    potential : Potential
    level : float
        Of the intervals.

    Returns
    -------
    list of PropertyBounds
        For each other phase ``"E(name) - E(reference)"``, meV/atom, and ``"P(reference → name)"``, GPa: NaN, without
        an interval, where the mean has no transition inside of the grid.

    Raises
    ------
    StructureError
        If there are fewer than two phases, or their compositions differ.
    """
    if len(phases) < 2:
        raise StructureError("a difference of phases needs two structures or more; give them in one call.")
    if len(formulas := {crystal.formula for crystal in phases.values()}) > 1:
        raise StructureError(
            f"phases are of one composition, and these are {', '.join(sorted(formulas))}; mace-bounds differences "
            "--reactions bounds reactions."
        )
    (reference, first), *others = phases.items()
    base = per_atom(curves(first, potential, WIDE_STRAINS), len(first.numbers))
    out = []
    for name, crystal in others:
        other = per_atom(curves(crystal, potential, WIDE_STRAINS), len(crystal.numbers))
        energy = 1000.0 * (other.energy_ev - base.energy_ev)
        pressure = transition_pressures_gpa(base, other)
        out.append(
            property_bounds(f"E({name}) - E({reference})", "meV/atom", energy, potential, level=level,
                            method="curves", assumed=(FIXED_SHAPE,))
        )  # fmt: skip
        if np.isfinite(pressure[0]):
            out.append(
                property_bounds(f"P({reference} → {name})", "GPa", pressure, potential, level=level,
                                method="curves", assumed=(FIXED_SHAPE, "0 K, without vibrations"))
            )  # fmt: skip
    return out


def per_atom(state: EquationsOfState, n_atoms: int) -> EquationsOfState:
    """Equations of state of a cell, for one atom."""
    scale = n_atoms ** (2.0 / 3.0)  # x = V^(-2/3) grows by this
    return replace(
        state,
        volume_a3=state.volume_a3 / n_atoms,
        energy_ev=state.energy_ev / n_atoms,
        middle=state.middle * scale,
        spread=state.spread * scale,
        coefficients=state.coefficients / n_atoms,
        range_a3=(state.range_a3[0] / n_atoms, state.range_a3[1] / n_atoms),
    )


def transition_pressures_gpa(a: EquationsOfState, b: EquationsOfState) -> NDArray[np.float64]:
    """Pressure at which the enthalpies of two phases, both per atom, are equal, shape (k,), GPa.

    Found by Newton's method on H_b(P) - H_a(P), whose derivative is V_b - V_a. NaN where there is none between the
    volumes of both grids, or a curve has no minimum.
    """
    pressure = np.zeros(len(a.volume_a3))
    va, vb = a.volume_a3.copy(), b.volume_a3.copy()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_NEWTON_STEPS):
            va, vb = _volumes_at(a, pressure, va), _volumes_at(b, pressure, vb)
            difference = _enthalpies(b, pressure, vb) - _enthalpies(a, pressure, va)
            step = difference / (vb - va) * EV_A3_IN_GPA
            pressure = pressure - step
        settled = np.abs(step) < 1e-6 * np.maximum(1.0, np.abs(pressure))
        inside = [(v >= s.range_a3[0]) & (v <= s.range_a3[1]) for v, s in ((va, a), (vb, b))]
    return np.where(settled & inside[0] & inside[1], pressure, np.nan)


def _volumes_at(
    state: EquationsOfState, pressure_gpa: NDArray[np.float64], start_a3: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Volumes at which curves have given pressures, by bisection between the ends of the grid."""
    low, high = (np.full(len(start_a3), end) for end in (0.98 * state.range_a3[0], 1.02 * state.range_a3[1]))
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = state.pressure_gpa(middle[:, None])[:, 0] > pressure_gpa
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(0.5 * (low + high))


def _enthalpies(
    state: EquationsOfState, pressure_gpa: NDArray[np.float64], volumes_a3: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(state.at_ev(volumes_a3[:, None])[:, 0] + pressure_gpa / EV_A3_IN_GPA * volumes_a3)
