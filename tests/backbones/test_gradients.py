"""Derivatives of features and energies, against mace's own calculator and finite differences."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

from helpers.mace_builds import MPA_0, TINY, build, calculator_results, real_crystals
from helpers.pair_backbone import PairBackbone
from mace_bounds.backbones import DifferentiableBackbone, load_model, require_gradients
from mace_bounds.errors import ModelError
from mace_bounds.structures import Crystal

STEP = 1e-4  # Å, or of strain


def strained(crystal, strain):
    return Crystal(
        crystal.numbers, crystal.positions @ (np.eye(3) + strain), crystal.cell @ (np.eye(3) + strain)
    )


def moved(crystal, atom, axis, by):
    positions = crystal.positions.copy()
    positions[atom, axis] += by
    return Crystal(crystal.numbers, positions, crystal.cell)


@pytest.fixture(scope="module")
def mini():
    return load_model("mini", dtype="float64", device="cpu")


@pytest.fixture(scope="module")
def crystals():
    """Rattled and sheared crystals of one to four atoms, atoms out of the cell, one cell skewed."""
    shear = np.array([[0.02, 0.03, 0.0], [0.03, -0.01, 0.01], [0.0, 0.01, 0.0]])
    made = [strained(c, shear) for c in real_crystals(12)[3:]]
    skewed = made[-1]
    cell = skewed.cell + np.array([0 * skewed.cell[0], 3 * skewed.cell[0], -2 * skewed.cell[1]])
    return [*made, Crystal(skewed.numbers, skewed.positions + skewed.cell[0] * 4, cell)]


@pytest.fixture(scope="module")
def columns(mini, crystals):
    """Derivatives of all columns of all crystals."""
    return list(mini.feature_gradients(crystals))


@pytest.mark.parametrize(
    ("options", "heads"),
    [(MPA_0, None), (TINY, ["Default", "other"]), (TINY | {"pair_repulsion": False}, ["a", "b", "c"])],
)
def test_forces_and_stress_are_those_of_the_calculator(options, heads, crystals):
    """Issue 15: 1e-8 eV/Å and 1e-8 eV/Å³ in float64, one and several heads."""
    module, head = build(options, heads), heads[-1] if heads else None
    some = [min(crystals, key=lambda c: len(c.numbers))] if options is MPA_0 else crystals[::3]
    model = load_model(copy.deepcopy(module), head=head, dtype="float64", device="cpu")
    for crystal, (energy, forces, stress) in zip(some, calculator_results(module, some, head), strict=True):
        got = model.evaluate(crystal)
        own = got.derivatives()
        assert got.energy_ev == own.energy_ev[0] == pytest.approx(energy, rel=1e-12, abs=1e-9)
        assert np.abs(own.forces_ev_a[0] - forces).max() <= 1e-8
        assert np.abs(own.stress_ev_a3[0] - stress).max() <= 1e-8


def test_all_columns_give_the_forces_of_mini(mini, crystals, columns):
    calculated = calculator_results(mini.module, crystals)
    block = mini.extract(crystals)
    theta0 = mini.theta0_ev[:-1]
    for k, (got, (energy, forces, stress)) in enumerate(zip(columns, calculated, strict=True)):
        assert np.allclose(got.features, block.features[k], rtol=1e-11, atol=1e-12)
        assert got.fixed_energy_ev == pytest.approx(block.fixed_energy_ev[k], rel=1e-12)
        assert got.energy_ev == pytest.approx(energy, abs=1e-8)
        assert np.abs(got.forces_ev_a - forces).max() <= 1e-8
        assert np.abs(got.stress_ev_a3 - stress).max() <= 1e-8
        by_hand = got.fixed_forces_ev_a - got.d_positions @ theta0
        assert np.abs(by_hand - forces).max() <= 1e-8
        by_hand = got.fixed_stress_ev_a3 + got.d_strain @ theta0 / crystals[k].volume
        assert np.abs(by_hand - stress).max() <= 1e-8


@pytest.mark.parametrize("kind", ["readout", "descriptors"])
def test_columns_against_finite_differences(mini, crystals, kind):
    crystal = crystals[-1]
    (got,) = mini.feature_gradients([crystal], kind)

    def features(changed):
        return mini.extract(changed, kind).features

    assert got.d_positions.shape == (len(crystal.numbers), 3, len(mini.columns(kind)))
    for atom, axis in itertools.product(range(len(crystal.numbers)), range(3)):
        plus, minus = features([moved(crystal, atom, axis, s * STEP) for s in (1, -1)])
        wanted = (plus - minus) / (2 * STEP)
        assert np.allclose(got.d_positions[atom, axis], wanted, rtol=1e-5, atol=1e-6)
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        strain = np.zeros((3, 3))
        strain[i, j] += STEP / 2
        strain[j, i] += STEP / 2
        plus, minus = features([strained(crystal, s * strain) for s in (1, -1)])
        wanted = (plus - minus) / (2 * STEP)
        assert np.allclose(got.d_strain[i, j], wanted, rtol=1e-5, atol=1e-5)
    assert np.array_equal(got.d_strain, got.d_strain.transpose(1, 0, 2))


def test_heads_without_a_second_call_of_the_model(mini, crystals):
    crystal = crystals[0]
    weights = np.random.default_rng(0).normal(0, 0.1, (3, len(mini.columns())))
    (table,) = mini.feature_gradients([crystal])
    by_products, by_passes = table.derivatives(weights), mini.evaluate(crystal).derivatives(weights)
    assert by_products.forces_ev_a.shape == (3, len(crystal.numbers), 3)
    assert np.allclose(by_products.energy_ev, by_passes.energy_ev, rtol=1e-12)
    assert np.allclose(by_products.forces_ev_a, by_passes.forces_ev_a, atol=1e-11)
    assert np.allclose(by_products.stress_ev_a3, by_passes.stress_ev_a3, atol=1e-12)
    assert np.allclose(by_products.energy_ev, table.energy_ev + weights @ table.features)
    with pytest.raises(ModelError, match=r"\(n_heads, 48\)"):
        table.derivatives(np.zeros(47))


def test_batches_do_not_change_numbers(mini, crystals, columns):
    alone = [next(mini.feature_gradients([c])) for c in crystals[::3]]
    for a, b in zip(columns[::3], alone, strict=True):
        assert np.allclose(a.d_positions, b.d_positions, rtol=1e-10, atol=1e-12)
        assert np.allclose(a.d_strain, b.d_strain, rtol=1e-10, atol=1e-11)
        assert np.allclose(a.fixed_forces_ev_a, b.fixed_forces_ev_a, atol=1e-12)


def test_float32_is_close(crystals, columns):
    model = load_model("mini", dtype="float32", device="cpu")
    for a, b in zip(model.feature_gradients(crystals[::3]), columns[::3], strict=True):
        assert a.d_positions.dtype == np.float64
        assert np.abs(a.forces_ev_a - b.forces_ev_a).max() < 1e-4


def test_other_backbones_say_that_they_have_none(mini):
    assert isinstance(mini, DifferentiableBackbone)
    assert require_gradients(mini) is mini
    with pytest.raises(ModelError, match="the backbone pair gives no derivatives"):
        require_gradients(PairBackbone())
