"""Known distances from the hull, and how they weigh draws."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry
from scipy.stats import norm

from mace_bounds.decisions.hull_prior import (
    FEWEST_COMPOSITIONS,
    FEWEST_TO_SAY,
    LIMITS_MEV,
    hull_prior,
    known_distances,
    weighted_share,
)
from mace_bounds.features import FeatureRows


def made_rows(formulas, energies):
    cells = [Composition(f) for f in formulas]
    n = [int(c.num_atoms) for c in cells]
    table = pd.DataFrame(
        {
            "structure_hash": [f"h{k}" for k in range(len(cells))],
            "id": [f"e{k}" for k in range(len(cells))],
            "formula": [c.reduced_formula for c in cells],
            "n_atoms": n,
            "elements": [np.array([e.Z for e in c.elements]) for c in cells],
            "counts": [np.array([int(c[e]) for e in c.elements]) for c in cells],
            "energy_ev": np.array(energies) * n,
            "energy_model_ev": np.array(energies) * n,
            "run_type": [None] * len(cells),
            "flags": [()] * len(cells),
        }
    )
    return FeatureRows(table, np.zeros((len(cells), 1)))


def test_distances_are_those_of_pymatgen_where_all_elements_are_there():
    # intermetallics have no MP2020 corrections
    formulas = ["Mg", "Al", "MgAl", "Mg2Al", "MgAl3", "NiTi"]
    energies = [-1.5, -3.7, -2.75, -2.2, -3.2, -7.0]
    rows = made_rows(formulas, energies)
    found = known_distances(rows, np.array([False, False, True, True, True, True]), 3)[0]
    entries = [
        ComputedEntry(f, e * Composition(f).num_atoms) for f, e in zip(formulas, energies, strict=True)
    ][:5]
    for k in (2, 3, 4):
        others = PhaseDiagram([entry for j, entry in enumerate(entries) if j != k])
        assert found[k] == pytest.approx(others.get_e_above_hull(entries[k], allow_negative=True), abs=1e-9)
    assert np.isnan(found[[0, 1, 5]]).all()  # not wanted; no nickel, no titanium
    few = known_distances(rows, np.array([False, False, True, True, True, True]))[0]
    assert np.isnan(few).all()  # three compounds make no hull to be believed


def test_given_energies_of_elements_complete_a_hull():
    formulas, energies = ["Mg", "Al", "MgAl", "Mg2Al", "MgAl3"], [-1.5, -3.7, -2.75, -2.2, -3.2]
    whole = known_distances(made_rows(formulas, energies), np.arange(5) > 1, 3)[0]
    rows = made_rows(formulas[1:], energies[1:])
    assert np.isnan(known_distances(rows, np.arange(4) > 0, 3)[0]).all()
    found = known_distances(rows, np.arange(4) > 0, 3, {"Mg": -1.5, "O": -4.9})[0]
    np.testing.assert_allclose(found, [np.nan, *whole[2:]], atol=1e-9)
    better = known_distances(made_rows(formulas, energies), np.arange(5) > 1, 3, {"Al": -3.9})[0]
    assert (better[2:] >= whole[2:] - 1e-12).all()
    assert better[4] > whole[4]


def test_a_suspect_label_makes_no_hull():
    rows = made_rows(["Mg", "Al", "MgAl", "Mg2Al"], [-1.5, -3.7, -2.75, -2.2])
    before = known_distances(rows, np.array([False, False, False, True]), 2)[0]
    planted = made_rows(["Mg", "Al", "MgAl", "Mg2Al", "Mg"], [-1.5, -3.7, -2.75, -2.2, -25.0])
    planted.table.loc[4, "energy_model_ev"] = -1.5
    after = known_distances(planted, np.array([False, False, False, True, False]), 2)[0]
    assert after[3] == pytest.approx(before[3])


def left_out(n, seed=0, std=0.05):
    random = np.random.default_rng(seed)
    formulas = np.array([f"c{k // 2}" for k in range(n)])
    distances = random.gamma(1.0, 0.1, n) - 0.02
    return formulas, distances, np.arange(n) % 4 > 1, (std * random.standard_normal(n), np.full(n, std))


def test_a_prior_needs_compositions():
    n = 2 * FEWEST_COMPOSITIONS
    formulas, distances, rivals, errors = left_out(n)
    prior = hull_prior(formulas, distances, rivals, errors)
    assert prior.n_compositions == FEWEST_COMPOSITIONS
    np.testing.assert_array_equal(prior.distances, np.sort(distances))
    distances[:2] = np.nan
    assert hull_prior(formulas, distances, rivals, errors) is None


def test_probabilities_are_reliable_where_errors_are_small_and_not_where_they_are_of_another_size():
    good = hull_prior(*left_out(400, std=0.02))
    assert all(good.is_reliable(mev) for mev in LIMITS_MEV)
    formulas, distances, rivals, (error, std) = left_out(400, std=0.02)
    wrong = hull_prior(formulas, distances, rivals, (30 * error, std))  # the widths say nothing of the errors
    assert not wrong.is_reliable(50)


def test_crystals_with_rivals_are_told_from_those_without():
    random = np.random.default_rng(3)
    rivals = np.arange(400) % 2 == 0
    distances = np.where(rivals, random.normal(0.15, 0.02, 400), random.normal(0.0, 0.02, 400))
    formulas = np.array([f"c{k}" for k in range(400)])
    error = 0.1 * random.standard_normal(400)
    prior = hull_prior(formulas, distances, rivals, (error, np.full(400, 0.1)))
    draws = 0.05 + 0.1 * random.standard_normal((4000, 2))
    without, beside = prior.probability(draws, np.array([False, True]), 50)
    assert without > 0.9
    assert beside < 0.1
    mixed = hull_prior(formulas, distances, np.zeros(400, dtype=bool), (error, np.full(400, 0.1)))
    assert (prior.brier < mixed.brier).all()


def test_a_measurement_on_few_compositions_is_not_believed():
    few = hull_prior(*left_out(2 * FEWEST_TO_SAY - 2, std=0.02))
    enough = hull_prior(*left_out(2 * FEWEST_TO_SAY, std=0.02))
    assert (few.brier < few.base_rate_brier).all()
    assert not any(few.is_reliable(mev) for mev in LIMITS_MEV)
    assert all(enough.is_reliable(mev) for mev in LIMITS_MEV)


def test_probabilities_of_draws_are_those_of_bayes():
    known = np.random.default_rng(1).normal(0.1, 0.05, 4000)
    draws = 0.0 + 0.05 * np.random.default_rng(2).standard_normal((20_000, 1))
    # normal prior (widened by the kernels) and normal likelihood: a normal posterior
    prior, likelihood = 0.05**2 + 0.02**2, 0.05**2
    mean, std = 0.1 * likelihood / (prior + likelihood), np.sqrt(prior * likelihood / (prior + likelihood))
    expected = norm.cdf((0.03 - mean) / std)
    assert weighted_share(known, draws, 0.03)[0] == pytest.approx(expected, abs=0.03)
