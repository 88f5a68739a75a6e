"""Implicit derivatives: finite differences, true minimisation again, adjoint against forward."""

import numpy as np
import pytest
from ase.build import bulk
from scipy.optimize import minimize

from helpers.lennard_jones import LennardJones
from mace_bounds.errors import ModelError, StructureError
from mace_bounds.propagation import EnergySurface, Potential, minimum
from mace_bounds.structures import Crystal

MODEL = LennardJones(inner_a=4.0, cutoff_a=5.5)


def vacancy(distance=2.8) -> Crystal:
    """Eleven atoms of fcc and a hole."""
    atoms = bulk("Ar", "fcc", distance * np.sqrt(2)).repeat((3, 2, 2))[1:]
    return Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)


@pytest.fixture(scope="module", params=["fixed", "full"])
def found(request):
    potential = Potential.frozen(MODEL)
    return minimum(potential, EnergySurface.of(vacancy(), potential, request.param), points=4)


def other(found, theta) -> EnergySurface:
    return EnergySurface(MODEL, found.surface.start, theta, found.surface.cell)


def minimised(found, theta):
    """Coordinates and energy of the minimum by other weights: a fresh, tight minimisation."""
    surface = other(found, theta)
    q = found.q
    stiff = found.hessian + surface.held.T @ surface.held
    for _ in range(
        25
    ):  # the Hessian of the mean is good enough to get there, at a tenth of the distance a step
        q = q - np.linalg.solve(stiff, surface.free(surface.gradient(q)))
    assert np.abs(surface.gradient(q)).max() < 1e-10
    return q, surface.energy_and_gradient(q)[0]


def test_gradients_are_finite_differences(found):
    surface = found.surface
    q = found.q + 0.02 * np.random.default_rng(0).standard_normal(surface.size)
    features, fixed, slopes = surface.feature_gradients(q)
    energy, gradient = surface.energy_and_gradient(q)
    assert energy == pytest.approx(surface.theta_ev @ features + fixed)
    np.testing.assert_allclose(slopes @ surface.theta_ev, gradient, atol=1e-10)
    h = 1e-5
    for k in (0, 4, surface.size - 5, surface.size - 1):
        move = np.zeros(surface.size)
        move[k] = h
        up, down = (surface.energy_and_gradient(q + s * move)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((up - down) / (2 * h), abs=1e-7)


def test_the_minimum_is_one(found):
    assert found.residual_ev_a < 1e-6
    assert found.lowest_ev_a2 > 0.05
    start = other(found, MODEL.theta0_ev)
    free = minimize(
        start.energy_and_gradient, np.zeros(start.size), jac=True, method="BFGS", options={"gtol": 1e-6}
    )
    assert found.energy_ev == pytest.approx(free.fun, abs=1e-7)


def test_errors_fall_as_the_square_over_three_decades(found):
    """θ + λ δ: the first-order minimum is wrong by λ², the second-order energy by λ³ (Maliyov and others, figure 2)."""
    delta = MODEL.theta0_ev * [0.1, -0.1, 0]
    lambdas = np.array([1.0, 0.1, 0.01, 0.001])
    response = found.response()
    errors, energy_errors = [], []
    for scale in lambdas:
        theta = MODEL.theta0_ev + scale * delta
        q, energy = minimised(found, theta)
        errors.append(np.abs(q - found.q - response @ (scale * delta)).max())
        energy_errors.append(abs(energy - found.energies_ev(theta[None])[0]))
    slopes = np.diff(np.log10(errors)) / np.diff(np.log10(lambdas))
    assert slopes == pytest.approx([2, 2, 2], abs=0.15)
    assert np.diff(np.log10(energy_errors[:3])) == pytest.approx([-3, -3], abs=0.3)


def test_first_order_is_an_upper_limit(found):
    theta = MODEL.theta0_ev * [[1.1, 0.95, 1], [0.9, 1.02, 1]]
    first, second = found.energies_ev(theta, order=1), found.energies_ev(theta)
    for k in range(2):
        true = minimised(found, theta[k])[1]
        assert true < first[k]
        assert abs(true - second[k]) < 0.5 * (first[k] - true)


def test_the_adjoint_is_the_forward_derivative(found):
    slope = np.random.default_rng(1).standard_normal(found.surface.size)
    forward = slope @ found.response()
    np.testing.assert_allclose(found.adjoint(slope), forward, rtol=1e-8, atol=1e-8 * np.abs(forward).max())


def test_a_soft_mode_refuses():
    """Atoms far apart hardly hold each other."""
    potential = Potential.frozen(MODEL)
    loose = vacancy(5.2)
    surface = EnergySurface.of(loose, potential)
    with pytest.raises(StructureError, match=r"resample instead|did not relax"):
        minimum(potential, surface).response()


def test_a_backbone_without_derivatives_is_refused():
    from helpers.pair_backbone import PairBackbone

    with pytest.raises(ModelError, match="no derivatives"):
        EnergySurface.of(vacancy(), Potential.frozen(PairBackbone()))


def test_a_mace_model_responds_as_it_minimises_again():
    """Positions and cell of wurtzite ZnS by mini: λ² over three decades, λ³ of energies, adjoint = forward to 1e-8."""
    from mace_bounds.backbones import load_model

    model = load_model("mini", dtype="float64")
    atoms = bulk("ZnS", "wurtzite", a=3.82, c=6.26, u=0.37)
    cell = Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)
    potential = Potential.frozen(model)
    found = minimum(potential, EnergySurface.of(cell, potential, "full"), points=4)
    surface, response = found.surface, found.response()
    stiff = found.hessian + surface.held.T @ surface.held
    delta = 0.1 * model.theta0_ev * np.random.default_rng(3).standard_normal(len(model.theta0_ev))

    def settled(theta, q):
        other = EnergySurface(model, cell, theta, "full")
        for _ in range(40):
            energy, gradient = other.energy_and_gradient(q)
            if np.abs(other.free(gradient)).max() < 1e-10:
                return q, energy
            q = q - np.linalg.solve(stiff, other.free(gradient))
        raise AssertionError(np.abs(gradient).max())

    lambdas = np.array([1.0, 0.1, 0.01, 0.001])
    start = settled(model.theta0_ev, found.q)[0]
    errors, energy_errors = [], []
    for scale in lambdas:
        theta = model.theta0_ev + scale * delta
        first = response @ (scale * delta)
        q, energy = settled(theta, start + first)
        errors.append(np.abs(q - start - first).max())
        energy_errors.append(abs(energy - found.energies_ev(theta[None])[0]))
    assert errors[0] < 0.1  # Å: small enough for a series, large enough to be seen
    slopes = np.diff(np.log10(errors)) / np.diff(np.log10(lambdas))
    assert slopes == pytest.approx([2, 2, 2], abs=0.15)
    assert np.diff(np.log10(energy_errors[:3])) == pytest.approx([-3, -3], abs=0.3)
    slope = np.random.default_rng(1).standard_normal(surface.size)
    forward = slope @ response
    np.testing.assert_allclose(found.adjoint(slope), forward, rtol=1e-8, atol=1e-8 * np.abs(forward).max())
