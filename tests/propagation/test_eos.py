"""Equations of state of many draws: closed forms, ase's fit, and one fit a draw."""

import time

import numpy as np
import pytest
from ase.build import bulk
from ase.eos import EquationOfState
from ase.units import GPa
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.lennard_jones import EPSILON_EV, SIGMA_A, LennardJones
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.propagation import (
    EV_A3_IN_GPA,
    Potential,
    at_volumes,
    curves,
    equation_of_state,
    equilibrium_response,
    fit_equations_of_state,
)
from mace_bounds.structures import Crystal, read


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


def birch_murnaghan(v, e0, v0, b0_gpa, b1):
    """As in every textbook; eV and Å³."""
    x = (v0 / v) ** (2 / 3)
    return e0 + 9 * v0 * b0_gpa * GPa / 16 * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))


@given(st.floats(-9, 5), st.floats(8, 200), st.floats(5, 500), st.floats(2, 7), st.floats(-0.02, 0.02))
@settings(max_examples=50, deadline=None)
def test_a_birch_murnaghan_curve_gives_its_own_constants(e0, v0, b0, b1, off):
    v = v0 * (1 + off) * np.linspace(0.94, 1.06, 7)
    found = fit_equations_of_state(v, [birch_murnaghan(v, e0, v0, b0, b1)])
    wanted = [[v0], [e0], [b0], [b1]]
    got = [found.volume_a3, found.energy_ev, found.bulk_modulus_gpa, found.bulk_derivative]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-9)
    inner = v[2:5]
    np.testing.assert_allclose(
        found.at_ev(inner)[0], birch_murnaghan(inner, e0, v0, b0, b1), rtol=1e-8, atol=1e-12
    )
    step = 1e-4 * v0
    slope = birch_murnaghan(inner + step, e0, v0, b0, b1) - birch_murnaghan(inner - step, e0, v0, b0, b1)
    np.testing.assert_allclose(
        found.pressure_gpa(inner)[0], -slope / (2 * step) * EV_A3_IN_GPA, rtol=1e-3, atol=1e-4 * b0
    )


def test_the_unit_is_that_of_ase():
    assert pytest.approx(1 / GPa, rel=1e-7) == EV_A3_IN_GPA


def test_noisy_energies_are_fitted_as_by_ase():
    rng = np.random.default_rng(0)
    v = np.linspace(15, 18, 9)
    energies = np.array(
        [birch_murnaghan(v, -9, 16.2, b, 4.2) + 2e-3 * rng.standard_normal(9) for b in (80, 300)]
    )
    found = fit_equations_of_state(v, energies)
    for k in range(2):
        v0, e0, b0 = EquationOfState(v, energies[k], eos="birchmurnaghan").fit()
        np.testing.assert_allclose(found.volume_a3[k], v0, rtol=1e-5)
        np.testing.assert_allclose(found.energy_ev[k], e0, rtol=1e-7)
        np.testing.assert_allclose(found.bulk_modulus_gpa[k], b0 / GPa, rtol=1e-3)


def test_a_curve_without_a_minimum_on_the_grid_is_no_number():
    v = np.linspace(15, 18, 7)
    found = fit_equations_of_state(v, [0.1 * v, birch_murnaghan(v, 0, 20, 100, 4), -((v - 16.5) ** 2)])
    assert np.isnan(found.volume_a3).all()
    assert np.isnan(found.bulk_modulus_gpa).all()
    with pytest.raises(StructureError, match="four volumes"):
        fit_equations_of_state([1, 2, 2], [[0, 0, 0]])


@pytest.fixture(scope="module")
def fcc():
    return crystal(bulk("Ar", "fcc", 4.0))


def drawn(n=200, relative=0.03, seed=0):
    model = LennardJones()
    rng = np.random.default_rng(seed)
    return Potential(model, model.theta0_ev, model.theta0_ev * (1 + relative * rng.standard_normal((n, 3))))


def test_every_draw_has_the_minimum_of_its_own_potential(fcc):
    """A Lennard-Jones crystal of a r^-12 - b r^-6 has its minimum at (2 a A12 / b A6)^(1/6), whatever the lattice."""
    model = LennardJones(inner_a=11.0, cutoff_a=12.0)
    theta = model.theta0_ev * np.column_stack([np.linspace(0.9, 1.1, 41), np.ones(41), np.ones(41)])
    found = curves(fcc, Potential(model, model.theta0_ev, theta))
    a12, a6 = (
        12.13188,
        14.45392,
    )  # lattice sums of fcc; C. Kittel, "Introduction to Solid State Physics", table 3.4
    distance = SIGMA_A * (2 * theta[:, 0] * a12 / (-theta[:, 1] * a6)) ** (1 / 6)
    wanted = distance**3 / np.sqrt(2)
    np.testing.assert_allclose(found.volume_a3[1:], wanted, rtol=2e-3)
    energy = (
        0.5 * 4 * EPSILON_EV * (a12 * (SIGMA_A / distance[20]) ** 12 - a6 * (SIGMA_A / distance[20]) ** 6)
    )
    np.testing.assert_allclose(found.energy_ev[0], energy, rtol=2e-2)


def test_bounds_are_quantiles_and_failures_are_counted(fcc):
    results = {r.name: r for r in equation_of_state(fcc, drawn(2000), level=0.9)}
    v0 = results["V0"]
    values = curves(fcc, drawn(2000)).volume_a3[1:]
    good = values[np.isfinite(values)]
    assert v0.failed_share == 1 - len(good) / 2000
    assert [v0.lower, v0.upper] == pytest.approx(np.quantile(good, [0.05, 0.95]))
    assert v0.std == pytest.approx(good.std(ddof=1))
    assert v0.lower > good.min()  # the least draw is no bound
    assert v0.bounds == "POPS range, not calibrated"
    assert set(results) == {"V0", "E0", "B0", "B0'"}


def test_too_many_failed_draws_leave_no_interval(fcc):
    wild = equation_of_state(fcc, drawn(300, relative=0.6))[0]
    assert wild.failed_share > 0.5
    assert wild.lower is None
    assert wild.std is None
    assert np.isfinite(wild.value)


def test_without_draws_there_is_a_value_alone(fcc):
    value = equation_of_state(fcc, Potential.frozen(LennardJones()))[0]
    assert value.value == pytest.approx(equation_of_state(fcc, drawn(3))[0].value)
    assert value.lower is None
    assert value.failed_share == 0


def test_the_grid_finds_the_minimum_from_far_away(fcc):
    far = at_volumes(fcc, [fcc.volume * 1.6])[0]
    potential = Potential.frozen(LennardJones())
    np.testing.assert_allclose(curves(far, potential).volume_a3, curves(fcc, potential).volume_a3, rtol=1e-4)


def test_the_response_of_volume_and_modulus_is_that_of_the_curves(fcc):
    model = LennardJones()
    potential = Potential.frozen(model)
    volumes = curves(fcc, potential).volume_a3[0] * np.linspace(0.94, 1.06, 9)
    rows, theta, h = potential.rows(at_volumes(fcc, volumes)), model.theta0_ev, 1e-5
    by_volume, by_modulus = equilibrium_response(volumes, rows, theta)
    for k in range(2):
        moved = np.array([theta, theta])
        moved[:, k] += [h, -h]
        found = fit_equations_of_state(volumes, rows.energies_ev(moved))
        assert by_volume[k] == pytest.approx(-np.diff(found.volume_a3)[0] / (2 * h), rel=1e-5)
        assert by_modulus[k] == pytest.approx(-np.diff(found.bulk_modulus_gpa)[0] / (2 * h), rel=1e-5)
    draws = drawn(1000, relative=1e-3).draws_ev
    every = fit_equations_of_state(volumes, rows.energies_ev(draws))
    for slope, values in ((by_volume, every.volume_a3), (by_modulus, every.bulk_modulus_gpa)):
        assert (draws @ slope).std() == pytest.approx(values.std(), rel=0.02)


def test_what_has_no_minimum_is_refused(fcc):
    model = LennardJones()
    with pytest.raises(StructureError, match="no minimum as a function of volume"):
        equation_of_state(fcc, Potential.frozen(LennardJones(weights_ev=np.array([1.0, 1.0]))))
    with pytest.raises(HeadError, match="use a head of this model"):
        Potential(model, np.zeros(4), np.zeros((2, 4)))


@pytest.mark.slow
def test_a_thousand_draws_cost_what_one_costs(fcc):
    began = time.perf_counter()
    curves(fcc, drawn(10))
    few = time.perf_counter() - began
    began = time.perf_counter()
    curves(fcc, drawn(1000))
    assert time.perf_counter() - began < few + 0.5
