"""Known distances from the hull, and how they weigh draws."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from mace_bounds.decisions.hull_prior import FEWEST_COMPOSITIONS, HullPrior, hull_prior, known_distances
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
    found = known_distances(rows, np.array([False, False, True, True, True, True]), 3)
    entries = [
        ComputedEntry(f, e * Composition(f).num_atoms) for f, e in zip(formulas, energies, strict=True)
    ][:5]
    for k in (2, 3, 4):
        others = PhaseDiagram([entry for j, entry in enumerate(entries) if j != k])
        assert found[k] == pytest.approx(others.get_e_above_hull(entries[k], allow_negative=True), abs=1e-9)
    assert np.isnan(found[[0, 1, 5]]).all()  # not wanted; no nickel, no titanium
    few = known_distances(rows, np.array([False, False, True, True, True, True]))
    assert np.isnan(few).all()  # three compounds make no hull to be believed


def test_a_suspect_label_makes_no_hull():
    rows = made_rows(["Mg", "Al", "MgAl", "Mg2Al"], [-1.5, -3.7, -2.75, -2.2])
    before = known_distances(rows, np.array([False, False, False, True]), 2)
    planted = made_rows(["Mg", "Al", "MgAl", "Mg2Al", "Mg"], [-1.5, -3.7, -2.75, -2.2, -25.0])
    planted.table.loc[4, "energy_model_ev"] = -1.5
    after = known_distances(planted, np.array([False, False, False, True, False]), 2)
    assert after[3] == pytest.approx(before[3])


def test_a_prior_needs_compositions_and_counts_each_once():
    formulas = np.array([f"c{k // 2}" for k in range(2 * FEWEST_COMPOSITIONS)])
    distances = np.linspace(0, 0.4, len(formulas))
    prior = hull_prior(formulas, distances)
    assert prior.n_compositions == FEWEST_COMPOSITIONS
    assert prior.weights.sum() == pytest.approx(FEWEST_COMPOSITIONS)
    assert hull_prior(formulas[2:], distances[2:]) is None
    distances[:2] = np.nan
    assert hull_prior(formulas, distances) is None


def test_the_density_is_where_the_distances_are():
    prior = HullPrior(np.full(30, 0.1), np.ones(30), 30)
    at = prior.density(np.array([0.1, 0.13, 0.2, -3.0, 9.0]))
    assert at[0] > at[1] > at[2] > 0
    assert at[1] / at[0] == pytest.approx(np.exp(-0.5), rel=0.02)
    assert (at[3:] > 0).all()
