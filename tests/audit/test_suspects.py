"""Planted faults in made data, and the reason for each; numbers recomputed here."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.audit._measured import Measured
from mace_bounds.audit._suspects import COLUMNS, suspect_table

N, SIGMA = 600, 0.02
SHIFTS = {3: 0.5, 40: -0.4, 77: 1.1, 123: 0.3, 300: -2.0}
SHARED = range(200, 212)  # a corner of feature space where the model itself is wrong
LONER = 12  # of a composition whose other three entries agree


@pytest.fixture(scope="module")
def made():
    """Deviations that are a smooth function and noise; some labels shifted; one region off as a whole."""
    rng = np.random.default_rng(5)
    features = rng.uniform(-1, 1, (N, 3))
    features[SHARED] = [4.0, 4.0, 4.0] + 0.05 * rng.standard_normal((len(SHARED), 3))
    error = 0.01 * np.sin(2 * features[:, 0]) + 0.01 * rng.standard_normal(N)
    error[SHARED] += 0.12
    for row, shift in SHIFTS.items():
        error[row] += shift
    formula = np.array([f"A{i}B" for i in range(N)], dtype=object)
    formula[[LONER, 13, 14, 15]] = "AB"
    error[[13, 14, 15]] = [0.001, 0.003, -0.002]
    error[LONER] = 0.25
    features[16] = features[17] + 1e-4
    formula[[16, 17]] = "TiO2"
    error[[16, 17]] = [0.22, 0.0]
    run_type = np.array(["GGA+U"] * N, dtype=object)
    run_type[3] = "GGA"
    flags = np.array([""] * N, dtype=object)
    flags[300] = "suspect_label"
    flags[40] = "extrapolates"
    table = pd.DataFrame(
        {
            "id": [f"row-{i}" for i in range(N)],
            "formula": formula,
            "chemical_system": "A-B",
            "n_atoms": 4,
            "source": "made",
            "run_type": run_type,
            "seen_in": "unseen",
            "flags": flags,
            "error_mev_per_atom": error * 1e3,
            "centre_mev_per_atom": 0.0,
            "sigma_mev_per_atom": SIGMA * 1e3,
        }
    )
    for level, half in ((95, 2.0), (99, 3.0)):
        table[f"lower_{level}_mev_per_atom"] = -half * SIGMA * 1e3
        table[f"upper_{level}_mev_per_atom"] = half * SIGMA * 1e3
    return Measured(table, (0.95, 0.99)), features


@pytest.fixture(scope="module")
def listed(made):
    return suspect_table(*made)


def test_planted_labels_lead_the_list(listed):
    planted = {*SHIFTS, LONER, 16}
    assert set(listed["id"][: len(planted)]) == {f"row-{i}" for i in planted}
    assert listed["rank"].tolist() == list(range(1, len(listed) + 1))
    assert listed["neighbour_sigmas"].is_monotonic_decreasing
    assert listed.columns.tolist() == list(COLUMNS)


def test_every_row_outside_its_99_per_cent_bounds_is_listed(listed, made):
    error = made[0].table["error_mev_per_atom"]
    outside = made[0].table["id"][error.abs() > 60]
    assert set(outside) <= set(listed["id"])
    sure = listed[listed["outside"] == 0.99]
    expected = (sure["error_mev_per_atom"].abs() - 60) / 20
    np.testing.assert_allclose(sure["excess_sigmas"], expected)


def test_reasons_tell_labels_from_the_models_own_failures(listed):
    row = listed.set_index("id")
    said = row["reasons"]
    assert "alone among 4 entries of AB" in said["row-12"]
    assert "nearly the structure of row-17, +220 meV/atom" in said["row-16"]
    assert "run type GGA where most of A-B is GGA+U" in said["row-3"]
    assert "another quantity" in said["row-300"]
    assert "extrapolates" in said["row-40"]
    assert (row.loc[["row-12", "row-16", "row-3", "row-300", "row-77"], "likely"] == "label").all()
    assert row.loc["row-40", "likely"] != "label"
    shared = row.loc[[f"row-{i}" for i in SHARED]]
    assert shared["reasons"].str.contains("off in the same way").mean() > 0.9
    assert (shared["likely"] != "label").all()
    assert shared["rank"].min() > len(SHIFTS) + 2


def test_a_fault_between_the_95_and_99_per_cent_bounds_is_found_by_its_neighbours(made):
    rows, features = made
    table = rows.table.copy()
    table["lower_99_mev_per_atom"], table["upper_99_mev_per_atom"] = -5000.0, 5000.0
    found = suspect_table(Measured(table, rows.levels), features)
    assert {f"row-{i}" for i in SHIFTS} <= set(found["id"])
    assert (found["outside"] == 0.95).all()
    assert (found["neighbour_sigmas"] >= 5).all()


def test_nothing_outside_gives_an_empty_table(made):
    rows, features = made
    table = rows.table.assign(error_mev_per_atom=0.0)
    assert suspect_table(Measured(table, rows.levels), features).columns.tolist() == list(COLUMNS)
