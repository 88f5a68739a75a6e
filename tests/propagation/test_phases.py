"""Phases: energy differences and transition pressures against closed forms."""

import numpy as np
import pytest
from ase.build import bulk
from scipy.optimize import brentq

from helpers.lennard_jones import EPSILON_EV, LennardJones
from mace_bounds.errors import StructureError
from mace_bounds.propagation import (
    EV_A3_IN_GPA,
    Potential,
    fit_equations_of_state,
    phase_energies,
    transition_pressures_gpa,
)
from mace_bounds.structures import Crystal, read


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


def murnaghan(v, e0, v0, b0, b1):
    b = b0 / EV_A3_IN_GPA
    return e0 + b * v / b1 * ((v0 / v) ** b1 / (b1 - 1) + 1) - v0 * b / (b1 - 1)


def test_phases_change_places_where_their_enthalpies_cross():
    """Murnaghan's equation has H(P) in closed form: H = E0 + B V0 / (B1 - 1) ((1 + B1 P / B)^(1 - 1/B1) - 1)."""

    def enthalpy(p, e0, v0, b0, b1):
        return e0 + b0 / EV_A3_IN_GPA * v0 / (b1 - 1) * ((1 + b1 * p / b0) ** (1 - 1 / b1) - 1)

    loose, dense = (0.0, 20.0, 100.0, 4.0), [(0.05, 18.5, 110.0, 4.2), (0.15, 18.0, 115.0, 4.0)]
    grids = [np.linspace(0.8, 1.05, 12) * v0 for v0 in (20.0, 18.3)]
    a = fit_equations_of_state(grids[0], [murnaghan(grids[0], *loose)] * 2)
    b = fit_equations_of_state(grids[1], [murnaghan(grids[1], *d) for d in dense])
    wanted = [brentq(lambda p, d=d: enthalpy(p, *loose) - enthalpy(p, *d), 0, 40) for d in dense]
    assert transition_pressures_gpa(a, b) == pytest.approx(wanted, rel=0.02)
    assert transition_pressures_gpa(b, a) == pytest.approx(transition_pressures_gpa(a, b), rel=1e-6)


def test_without_a_crossing_there_is_no_pressure():
    v = np.linspace(0.8, 1.05, 12) * 20
    low, high = (fit_equations_of_state(v, [murnaghan(v, e0, 20, 100, 4)]) for e0 in (0, 0.5))
    assert np.isnan(transition_pressures_gpa(low, high)).all()


def test_fcc_and_simple_cubic_of_lennard_jones():
    """Their energies are -A6² ε / (2 A12); lattice sums of J. E. Lennard-Jones and A. E. Ingham (1925)."""
    model = LennardJones()
    phases = {"fcc": crystal(bulk("Ar", "fcc", 3.9)), "sc": crystal(bulk("Ar", "sc", 2.6))}
    draws = model.theta0_ev * np.linspace(0.9, 1.1, 201)[:, None]
    difference, *rest = phase_energies(phases, Potential(model, model.theta0_ev, draws))
    wanted = 500 * EPSILON_EV * (14.45392**2 / 12.13188 - 8.40192**2 / 6.20215)
    assert difference.name == "E(sc) - E(fcc)"
    assert difference.value == pytest.approx(wanted, rel=0.03)
    assert difference.upper == pytest.approx(1.095 * difference.value, rel=1e-6)
    assert difference.lower == pytest.approx(0.905 * difference.value, rel=1e-6)
    assert not rest  # the dense one is lower too: pressure changes nothing


def test_phases_of_two_compositions_are_refused():
    potential = Potential.frozen(LennardJones())
    one = crystal(bulk("Ar", "fcc", 4.0))
    with pytest.raises(StructureError, match="two structures or more"):
        phase_energies({"fcc": one}, potential)
    with pytest.raises(StructureError, match="--reactions"):
        phase_energies({"Ar": one, "Ne": crystal(bulk("Ne", "fcc", 4.0))}, potential)
