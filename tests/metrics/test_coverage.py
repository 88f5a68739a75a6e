import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.metrics.regression import regression_coverage_score
from scipy.stats import binomtest

from mace_bounds.errors import HeadError
from mace_bounds.metrics import (
    clopper_pearson,
    clustered_interval,
    coverage_p_value,
    coverage_table,
    discoveries,
    interval_score,
    violations,
)


@given(st.integers(1, 500), st.data())
def test_clopper_pearson_agrees_with_binomtest(n, data):
    k = data.draw(st.integers(0, n))
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    low, high = clopper_pearson(k, n)
    assert low == pytest.approx(exact.low, abs=1e-12)
    assert high == pytest.approx(exact.high, abs=1e-12)


def test_clopper_pearson_of_nothing_knows_nothing():
    low, high = clopper_pearson([0, 0], [0, 3])
    assert low.tolist() == [0.0, 0.0]
    assert high[0] == 1.0
    assert high[1] == pytest.approx(1 - 0.025 ** (1 / 3))  # closed form for no hit


def test_clusters_of_identical_rows_count_once():
    rng = np.random.default_rng(0)
    hit = rng.random(200) < 0.9
    single = clustered_interval(hit, np.arange(200))
    repeated = clustered_interval(np.repeat(hit, 5), np.repeat(np.arange(200), 5))
    np.testing.assert_allclose(repeated, single, atol=0.003)
    plain = clopper_pearson(hit.sum() * 5, 1000)
    assert repeated[1] - repeated[0] > 1.9 * (plain[1] - plain[0])  # about sqrt(5)


def test_clustered_interval_of_one_sided_hits_uses_the_clusters():
    low, high = clustered_interval(np.ones(50), np.repeat(np.arange(10), 5))
    exact = binomtest(10, 10).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, 1.0))


def test_interval_score_by_hand():
    # width 2; 1 above at 95 %: 2 + 2/0.05 * 1 = 42; below by 0.5: 2 + 40 * 0.5 = 22
    score = interval_score([0.0, 2.0, -1.5], [-1.0] * 3, [1.0] * 3, 0.95)
    np.testing.assert_allclose(score, [2.0, 42.0, 22.0])
    assert interval_score([0.0], [-np.inf], [np.inf], 0.95).tolist() == [np.inf]


def test_table_by_hand():
    residual = np.array([0.0, 0.010, -0.020, 0.050])
    half = np.array([0.010, 0.010, 0.010, 0.040])
    table = coverage_table(
        residual, -half, half, 0.9, by={"element": [("Li", "O"), ("O",), ("Li",), ("O",)]}
    ).set_index("group")
    assert table.loc["all", "coverage"] == 0.5  # 10 meV on the edge is inside
    assert table.loc["all", "n"] == 4
    assert table.loc["all", "mean_width_mev_per_atom"] == pytest.approx(35.0)
    assert table.loc["all", "median_width_mev_per_atom"] == pytest.approx(20.0)
    assert table.loc["Li", "coverage"] == 0.5
    assert table.loc["O", "coverage"] == pytest.approx(2 / 3)
    # O: widths 20, 20, 80 and an excess of 10 at 2/0.1: (20 + 20 + 80 + 200) / 3
    assert table.loc["O", "interval_score_mev_per_atom"] == pytest.approx(320 / 3)
    exact = binomtest(2, 3).proportion_ci(0.95, method="exact")
    assert table.loc["O", "coverage_low"] == pytest.approx(exact.low)
    assert table.loc["O", "coverage_high"] == pytest.approx(exact.high)


def test_several_levels_agree_with_mapie():
    rng = np.random.default_rng(2)
    residual = rng.normal(size=500)
    half = np.outer(rng.uniform(0.5, 1.5, 500), [1.0, 1.64, 1.96])
    table = coverage_table(residual, -half, half, [0.68, 0.9, 0.95])
    mapie = regression_coverage_score(residual, np.stack([-half, half], axis=1))
    np.testing.assert_allclose(table["coverage"], mapie)
    assert table["level"].tolist() == [0.68, 0.9, 0.95]


def test_missing_labels_and_small_groups():
    by = {"run_type": ["GGA", None, "GGA", float("nan")], "source": ["mp", "mp", "wbm", "mp"]}
    table = coverage_table(np.zeros(4), -np.ones(4), np.ones(4), 0.9, by=by, minimum=2)
    assert table[["by", "group", "n"]].values.tolist() == [
        ["all", "all", 4],
        ["run_type", "GGA", 2],
        ["run_type", "unknown", 2],
        ["source", "mp", 3],
    ]


def test_clusters_widen_the_table():
    rng = np.random.default_rng(1)
    residual = np.repeat(rng.normal(size=100), 4)
    half = np.full(400, 1.5)
    plain = coverage_table(residual, -half, half, 0.9).iloc[0]
    wide = coverage_table(residual, -half, half, 0.9, clusters=np.repeat(np.arange(100), 4)).iloc[0]
    assert wide["coverage_low"] < plain["coverage_low"]
    assert wide["coverage_high"] > plain["coverage_high"]


def test_compositions_are_counted_beside_rows():
    by = {"source": ["a"] * 4 + ["b"] * 2}
    table = coverage_table(np.zeros(6), -np.ones(6), np.ones(6), 0.9, by=by, clusters=[0, 0, 0, 1, 1, 1])
    assert table[["group", "n", "n_compositions"]].values.tolist() == [
        ["all", 6, 2],
        ["a", 4, 2],
        ["b", 2, 1],
    ]


def test_only_what_is_beyond_chance_is_significant():
    """Of 40 rows at the level 0.9: 36 inside is the level, 33 is chance, 20 has p = 1e-9, and so has no chance."""
    inside = np.concatenate([np.arange(40) < hits for hits in (36, 33, 20)])
    by = {"element": ["Fe"] * 40 + ["Mn"] * 40 + ["Si"] * 40}
    table = coverage_table(np.where(inside, 0.0, 2.0), -np.ones(120), np.ones(120), 0.9, by=by)
    groups = table.set_index("group")
    assert groups["significant"].to_dict() == {"all": True, "Fe": False, "Mn": False, "Si": True}
    for group, hits in (("Fe", 36), ("Mn", 33), ("Si", 20)):
        less = binomtest(hits, 40, 0.9, alternative="less").pvalue
        more = binomtest(hits, 40, 0.9, alternative="greater").pvalue
        assert groups.loc[group, "p_value"] == pytest.approx(min(1.0, 2 * min(less, more)))


def test_p_values_are_those_of_the_exact_binomial_test_where_rows_are_independent():
    inside = np.arange(50) < 38
    single = coverage_p_value(inside, np.arange(50).astype(str), 0.9)
    less = binomtest(38, 50, 0.9, alternative="less").pvalue
    # clusters of one: n / (n - 1) in the variance makes 49 effective rows of 50
    assert single == pytest.approx(2 * less, rel=0.15)
    copied = coverage_p_value(np.repeat(inside, 4), np.repeat(np.arange(50), 4).astype(str), 0.9)
    assert copied == pytest.approx(single, rel=1e-9)
    assert coverage_p_value(np.ones(50, dtype=bool), np.arange(50).astype(str), 0.9) == pytest.approx(
        2 * binomtest(50, 50, 0.9, alternative="greater").pvalue
    )


def test_discoveries_are_benjamini_and_hochbergs():
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216])
    assert discoveries(p).tolist() == [True, True] + [False] * 8  # the worked example of many textbooks
    assert discoveries(np.empty(0)).tolist() == []


def test_violations_are_sorted_by_excess_in_half_widths():
    table = violations(
        ["a", "b", "c", "d"],
        [0.0, 0.030, -0.100, 0.02],
        [-0.01, -0.01, -0.08, -0.02],
        [0.01, 0.01, 0.08, 0.02],
    )
    assert table["id"].tolist() == ["b", "c"]
    assert table.index.tolist() == [1, 2]
    np.testing.assert_allclose(table["excess_mev_per_atom"], [20.0, 20.0])
    np.testing.assert_allclose(table["excess_half_widths"], [2.0, 0.25])


def test_faults_are_named():
    with pytest.raises(HeadError, match=r"not \(2, 2\)"):
        coverage_table([0.0, 0.0], [-1.0, -1.0], [1.0, 1.0], [0.9, 0.95])
    with pytest.raises(HeadError, match="lower bounds below upper ones"):
        coverage_table([0.0], [1.0], [-1.0], 0.9)
    with pytest.raises(HeadError, match="labels of source for 2 rows"):
        coverage_table([0.0, 0.0], [-1.0, -1.0], [1.0, 1.0], 0.9, by={"source": ["mp"]})
    with pytest.raises(HeadError, match="above the total"):
        clopper_pearson(4, 3)
