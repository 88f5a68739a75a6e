"""The atlas: groups, significance and bias, against plain recomputation, scipy and planted truth."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from mace_bounds.auditing.atlas import (
    _bias,
    atlas_table,
    element_bias,
    groupings,
    range_bins,
    worst_slab,
)
from mace_bounds.fitting.measured import Measured
from mace_bounds.levels import Levels
from mace_bounds.plots.periodic_table import plot_periodic_map

N, WIDTH = 2000, 0.0329  # 90 % of a Gaussian of 0.02 lies within
SYSTEMS = ("Li-O", "Fe-O", "Fe-Li-O", "Cl-Na", "Ni-Ti", "Cl-Li")


@pytest.fixture(scope="module")
def made():
    """Gaussian errors of 20 meV/atom, but Ti-Ni's are twice as large and chlorides are shifted by 15."""
    rng = np.random.default_rng(11)
    system = rng.choice(SYSTEMS, N)
    scale = np.where(system == "Ni-Ti", 2.0, 1.0)
    error = 0.02 * scale * rng.standard_normal(N) + 0.015 * (system == "Cl-Na")
    table = pd.DataFrame(
        {
            "formula": [f"{s.replace('-', '')}{i}" for i, s in enumerate(system)],
            "chemical_system": system,
            "chemistry": np.where(system == "Ni-Ti", "intermetallic", "other"),
            "n_atoms": rng.integers(1, 60, N),
            "run_type": np.where(rng.random(N) < 0.5, "GGA", None),
            "crystal_system": "cubic",
            "space_group": rng.choice(["225 Fm-3m", "221 Pm-3m"], N),
            "density_g_per_cm3": np.where(np.arange(N) < 10, np.nan, rng.uniform(1, 9, N)),
            "extrapolation_grade": rng.random(N),
            "error_mev_per_atom": 1e3 * error,
            "expected_error_mev_per_atom": 0.0,
            "sigma_mev_per_atom": 20.0,
            "lower_90_mev_per_atom": -1e3 * WIDTH,
            "upper_90_mev_per_atom": 1e3 * WIDTH,
        }
    )
    return Measured(table, Levels((0.9,)))


@pytest.fixture(scope="module")
def atlas(made):
    return atlas_table(made).set_index(["by", "group"])


def test_what_was_planted_is_found_and_good_groups_are_left_alone(atlas):
    found = set(atlas.index[atlas["significant"]])
    planted = {
        ("element", "Ni"),
        ("element", "Ti"),
        ("chemistry", "intermetallic"),
        ("chemical_system", "Ni-Ti"),
    }
    assert planted <= found
    assert not found & {("chemical_system", x) for x in ("Li-O", "Fe-O", "Fe-Li-O", "Cl-Li")}
    assert not found & {("element", x) for x in ("Li", "O", "Fe")}
    biased = set(atlas.index[atlas["bias_significant"]])
    assert {("chemical_system", "Cl-Na"), ("element", "Na"), ("element", "Cl")} <= biased
    assert ("chemical_system", "Li-O") not in biased


def test_numbers_are_those_of_plain_pandas(atlas, made):
    rows = made.table[made.table["chemical_system"] == "Ni-Ti"]
    told = atlas.loc[("chemical_system", "Ni-Ti")]
    assert told["n"] == told["n_compositions"] == len(rows)
    assert told["coverage"] == pytest.approx((rows["error_mev_per_atom"].abs() <= 1e3 * WIDTH).mean())
    assert told["bias_mev_per_atom"] == pytest.approx(rows["error_mev_per_atom"].mean())
    assert told["bias_standard_error_mev_per_atom"] == pytest.approx(
        rows["error_mev_per_atom"].sem(), rel=1e-9
    )
    assert told["mean_width_mev_per_atom"] == pytest.approx(2e3 * WIDTH)


def test_one_large_composition_makes_no_bias_significant():
    """Compositions of 60, 3 and 2 rows with errors of their own: a true mean of zero is rarely refused."""
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(3), (60, 3, 2))
    p_values, naive = [], []
    for _ in range(400):
        error = rng.standard_normal(3)[clusters] + 0.1 * rng.standard_normal(len(clusters))
        p_values.append(_bias(error, clusters)["bias_p_value"])
        sums = np.bincount(clusters, weights=error - error.mean())
        naive.append(2 * t.sf(abs(error.mean()) / (np.sqrt(1.5 * sums @ sums) / len(error)), 2))
    assert np.mean(np.array(p_values) < 0.05) < 0.12
    assert np.mean(np.array(naive) < 0.05) > 0.3  # what it is there against
    left_out = np.array([error[clusters != c].mean() for c in range(3)])
    told = _bias(error, clusters)["bias_standard_error_mev_per_atom"]
    assert told == pytest.approx(1e3 * np.sqrt(2 / 3 * ((left_out - error.mean()) ** 2).sum()))


def test_by_chance_alone_nearly_nothing_is_significant():
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {
            "formula": np.arange(N).astype(str),
            "chemical_system": rng.choice(
                [f"{a}-O" for a in ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Al")], N
            ),
            "chemistry": "oxide",
            "n_atoms": 4,
            "run_type": "GGA",
            "error_mev_per_atom": 20 * rng.standard_normal(N),
            "expected_error_mev_per_atom": 0.0,
            "sigma_mev_per_atom": 20.0,
            "lower_90_mev_per_atom": -1e3 * WIDTH,
            "upper_90_mev_per_atom": 1e3 * WIDTH,
        }
    )
    found = atlas_table(Measured(table, Levels((0.9,))))
    assert found["significant"].sum() == 0


def test_bins_hold_equal_counts_and_name_their_range(made):
    bins = groupings(made.table)["density"]
    assert len(bins.names) == 5
    assert bins.rows[bins.names.index("unknown")].tolist() == list(range(10))
    assert sorted(map(len, bins.rows))[1:] == pytest.approx([497.5] * 4, abs=1.5)
    told = range_bins(np.array([1.0, 1.2, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0, np.nan]), "x")
    assert told[::2] == ["1/4: 1 to 1.2 x", "2/4: 2 to 3 x", "3/4: 4 x", "4/4: 5 to 6 x", None]


def test_a_frequent_value_has_a_bin_of_its_own():
    hull = np.concatenate([np.zeros(60), np.linspace(0.001, 0.04, 40)])
    assert Counter(range_bins(hull, "eV/atom")) == {
        "1/3: 0 eV/atom": 60,
        "2/3: 0.001 to 0.015 eV/atom": 15,
        "3/3: 0.016 to 0.04 eV/atom": 25,
    }
    assert sorted(Counter(range_bins(hull[30:], "eV")).values()) == [5, 17, 18, 30]  # one in the middle too
    assert range_bins(np.zeros(3), "eV") == ["1/1: 0 eV"] * 3


def test_the_worst_slab_is_where_bounds_fail(made):
    assert worst_slab(made, 0.9) < 0.75
    assert worst_slab(Measured(made.table[:50], made.levels), 0.9) is None


def test_biases_of_elements_are_recovered():
    rng = np.random.default_rng(4)
    truth = {"Li": 0.03, "O": -0.02, "Fe": 0.0, "Cl": 0.0, "S": 0.05}
    formulas, error = [], []
    for _ in range(600):
        chosen = rng.choice(list(truth), 2, replace=False)
        counts = rng.integers(1, 5, 2)
        formulas.append("".join(f"{e}{n}" for e, n in zip(chosen, counts, strict=True)))
        error.append(np.average([truth[e] for e in chosen], weights=counts) + 0.01 * rng.standard_normal())
    told = element_bias(formulas, np.array(error)).set_index("element")
    for symbol, bias in truth.items():
        row = told.loc[symbol]
        assert row["bias_mev_per_atom"] == pytest.approx(
            1e3 * bias, abs=4 * row["standard_error_mev_per_atom"]
        )
        assert row["standard_error_mev_per_atom"] < 3
        assert row["n"] == sum(
            symbol in f.replace("Cl", "X") or (symbol == "Cl" and "Cl" in f) for f in formulas
        )
    assert set(told.index[told["significant"]]) >= {"Li", "O", "S"}


def test_the_map_writes_every_element_once_and_colours_what_is_beyond_chance(tmp_path):
    from ase.data import chemical_symbols
    from matplotlib.colors import to_rgb

    ax = plot_periodic_map({"Fe": 90.0, "O": 10.0}, label="x", limits=(0, 50, 100), beyond_chance={"O"})
    texts = [text.get_text() for text in ax.texts]
    assert {*chemical_symbols[1:104]} == {t for t in texts if not t.isdigit()}
    assert texts.count("90") == texts.count("10") == 1
    assert [patch.get_linewidth() for patch in ax.patches].count(2.0) == 1
    colours = [to_rgb(patch.get_facecolor()) for patch in ax.patches]
    assert len({patch.get_xy() for patch in ax.patches}) == 103  # no two elements in one place
    assert sum(max(rgb) - min(rgb) > 0.05 for rgb in colours) == 1  # all others are white or grey
    ax.get_figure().savefig(tmp_path / "map.svg")
