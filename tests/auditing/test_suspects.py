"""Planted faults in made data, and the reason for each; numbers recomputed here."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.auditing.suspects import COLUMNS, entry_url, per_atom, suspect_table
from mace_bounds.features import FeatureRows
from mace_bounds.fitting.measured import Measured
from mace_bounds.levels import Levels

N, SIGMA = 600, 0.02
SHIFTS = {3: 0.5, 40: -0.4, 77: 1.1, 123: 0.3, 300: -2.0}
SHARED = range(200, 212)  # a corner of feature space where the model itself is wrong
LONER = 12  # of a composition whose other three entries agree


def plain_table(error, sigma):
    """What an audit says of rows of one chemistry, bounds at two and three sigma."""
    n = len(error)
    table = pd.DataFrame(
        {
            "id": [f"mp-{i}" for i in range(n)],
            "formula": [f"A{i}B" for i in range(n)],
            "chemical_system": "A-B",
            "n_atoms": 4,
            "source": "made",
            "run_type": "GGA",
            "seen_in": "unseen",
            "flags": "",
            "error_mev_per_atom": error * 1e3,
            "expected_error_mev_per_atom": 0.0,
            "sigma_mev_per_atom": sigma * 1e3,
        }
    )
    for level, half in ((95, 2.0), (99, 3.0)):
        table[f"lower_{level}_mev_per_atom"] = -half * sigma * 1e3
        table[f"upper_{level}_mev_per_atom"] = half * sigma * 1e3
    return table


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
    table = plain_table(error, np.full(N, SIGMA))
    table = table.assign(formula=formula, run_type=run_type, flags=flags)
    fractions = np.zeros((N, 118))
    fractions[:, [2, 7]] = 0.5
    return (
        Measured(
            table,
            Levels(
                (
                    0.95,
                    0.99,
                )
            ),
        ),
        features,
        fractions,
    )


@pytest.fixture(scope="module")
def listed(made):
    return suspect_table(*made)


def test_planted_labels_lead_the_list(listed):
    planted = {*SHIFTS, LONER, 16}
    assert set(listed["id"][: len(planted)]) == {f"mp-{i}" for i in planted}
    assert listed["rank"].tolist() == list(range(1, len(listed) + 1))
    assert listed["evidence"].is_monotonic_decreasing
    assert listed.columns.tolist() == list(COLUMNS)
    pages = "https://next-gen.materialsproject.org/materials/" + listed["id"]
    assert listed["url"].tolist() == pages.tolist()


def test_every_row_outside_its_99_per_cent_bounds_is_listed(listed, made):
    error = made[0].table["error_mev_per_atom"]
    outside = made[0].table["id"][error.abs() > 60]
    assert set(outside) <= set(listed["id"])
    sure = listed[listed["level"] == 0.99]
    expected = (sure["error_mev_per_atom"].abs() - 60) / 20
    np.testing.assert_allclose(sure["excess_sigmas"], expected)


def test_reasons_tell_labels_from_the_models_own_failures(listed):
    row = listed.set_index("id")
    said = row["reasons"]
    assert "alone among 4 entries of AB" in said["mp-12"]
    assert "nearly the structure of mp-17, +220 meV/atom" in said["mp-16"]
    assert "run type GGA where most of A-B is GGA+U" in said["mp-3"]
    assert "another quantity" in said["mp-300"]
    assert "extrapolates" in said["mp-40"]
    assert (row.loc[["mp-12", "mp-16", "mp-3", "mp-300", "mp-77"], "likely"] == "label").all()
    assert row.loc["mp-40", "likely"] != "label"
    shared = row.loc[[f"mp-{i}" for i in SHARED]]
    assert shared["reasons"].str.contains("off in the same way").mean() > 0.9
    assert (shared["likely"] != "label").all()
    assert shared["rank"].min() > len(SHIFTS) + 2


def test_a_fault_between_the_95_and_99_per_cent_bounds_is_found_by_its_neighbours(made):
    rows, features, fractions = made
    table = rows.table.copy()
    table["lower_99_mev_per_atom"], table["upper_99_mev_per_atom"] = -5000.0, 5000.0
    found = suspect_table(Measured(table, rows.levels), features, fractions)
    assert {f"mp-{i}" for i in SHIFTS} <= set(found["id"])
    assert (found["level"] == 0.95).all()
    assert (found["evidence"] > 0).all()


def test_nothing_outside_gives_an_empty_table(made):
    rows, features, fractions = made
    table = rows.table.assign(error_mev_per_atom=0.0)
    assert suspect_table(Measured(table, rows.levels), features, fractions).columns.tolist() == list(COLUMNS)


def test_the_same_error_counts_less_where_errors_are_large():
    """Half of the rows are scattered, with a head that knows it: their errors are ten times larger."""
    rng = np.random.default_rng(9)
    wild = np.arange(N) % 2 == 0
    features = np.where(wild[:, None], rng.uniform(-30, 30, (N, 3)), rng.uniform(-1, 1, (N, 3)))
    sigma = np.where(wild, 0.1, 0.01)
    error = sigma * rng.standard_t(3, N)
    planted = [101, 203, 305]
    error[planted] = 0.4
    error[[100, 202]] = 0.6  # larger, and 6 sigma, but of the wild ones
    table = plain_table(error, sigma)
    table["flags"] = np.where(np.arange(N) == 203, "isolated_atoms", "")
    fractions = np.zeros((N, 118))
    fractions[:, [2, 7]] = 0.5
    listed = suspect_table(
        Measured(
            table,
            Levels(
                (
                    0.95,
                    0.99,
                )
            ),
        ),
        features,
        fractions,
    )
    assert set(listed["id"][:2]) == {"mp-101", "mp-305"}
    row = listed.set_index("id")
    assert (row.loc[["mp-101", "mp-305"], "likely"] == "label").all()
    assert row.loc["mp-100", "usual_error_mev_per_atom"] > 3 * row.loc["mp-101", "usual_error_mev_per_atom"]
    assert row.loc["mp-203", "usual_error_mev_per_atom"] > 1000
    assert row.loc["mp-203", "likely"] == "model"
    assert "without neighbours" in row.loc["mp-203", "reasons"]


def test_a_small_source():
    rng = np.random.default_rng(2)
    error = 0.02 * rng.standard_normal(30)
    error[4] = -0.7
    table = plain_table(error, np.full(30, 0.02))
    fractions = np.zeros((30, 118))
    fractions[:, 2] = 1.0
    listed = suspect_table(
        Measured(table, Levels((0.95,))), rng.standard_normal((30, 5)).astype(np.float32), fractions
    )
    assert listed["id"][0] == "mp-4"
    assert listed["likely"][0] == "label"


def test_features_and_fractions_of_the_labelled_rows_are_joined_per_atom():
    def shard(start):
        table = pd.DataFrame({"n_atoms": [2, 4], "elements": [[3], [3, 8]], "counts": [[2], [1, 3]]})
        return FeatureRows(table, np.arange(start, start + 6.0).reshape(2, 3))

    features, fractions = per_atom([shard(0), shard(6)], np.array([True, False, True, True]))
    assert features.dtype == fractions.dtype == np.float32
    np.testing.assert_array_equal(features, [[0, 0.5, 1], [3, 3.5, 4], [2.25, 2.5, 2.75]])
    assert fractions.shape == (3, 118)
    np.testing.assert_array_equal(fractions[:, [2, 7]], [[1, 0], [1, 0], [0.25, 0.75]])


PAGE = "https://next-gen.materialsproject.org/materials/"


@pytest.mark.parametrize(
    "name, page",
    [
        ("mp-149", "mp-149"),
        ("mvc-5373", "mvc-5373"),
        ("mp-149-GGA+U", "mp-149"),
        ("mp-aaaaabcd", "mp-aaaaabcd"),
    ],
)
def test_ids_of_the_materials_project_lead_to_their_page(name, page):
    assert entry_url(name) == PAGE + page


@pytest.mark.parametrize(
    "name", ["wbm-1-2", "agm001", "mp-149.cif", "mp-149:3", 'mp-1"><script>', "", "xmp-149"]
)
def test_other_ids_are_no_links(name):
    assert entry_url(name) is None
