import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.regression import SplitConformalRegressor
from sklearn.dummy import DummyRegressor

from mace_bounds.calibration import (
    LeftOutScores,
    conformal_layer,
    conformal_quantile,
    conformal_scores,
)
from mace_bounds.errors import HeadError
from mace_bounds.levels import LEVELS

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=300)


def test_rank_by_hand():
    scores = np.arange(1.0, 20.0)[::-1]  # 19 scores: rank ceil(20 * 0.95) = 19, ceil(20 * 0.68) = 14
    assert conformal_quantile(scores, 0.95) == 19.0
    assert conformal_quantile(scores, 0.68) == 14.0
    assert conformal_quantile(scores, 0.96) == math.inf


@pytest.mark.parametrize(("level", "needed"), [(0.68, 3), (0.90, 9), (0.95, 19), (0.99, 99)])
def test_rows_a_level_needs(level, needed):
    assert conformal_quantile(np.ones(needed), level) == 1.0
    assert conformal_quantile(np.ones(needed - 1), level) == math.inf


@pytest.mark.parametrize("n", [37, 100, 333])
def test_agrees_with_mapie(n):
    rng = np.random.default_rng(n)
    x, y = np.zeros((n, 1)), rng.standard_t(3, n)
    model = DummyRegressor(strategy="constant", constant=0.0).fit(x, y)
    levels = [0.68, 0.9, 0.95]
    mapie = SplitConformalRegressor(model, confidence_level=levels, prefit=True).conformalize(x, y)
    _, intervals = mapie.predict_interval(np.zeros((1, 1)))
    ours = [conformal_quantile(np.abs(y), level) for level in levels]
    np.testing.assert_allclose(ours, intervals[0, 1, :], rtol=1e-12)


def test_marginal_coverage_of_exchangeable_rows():
    # coverage given calibration is Beta(k, n + 1 - k); its mean over calibrations is k / (n + 1) exactly
    rng = np.random.default_rng(5)
    n, repeats, level = 59, 4000, 0.90
    data = np.abs(rng.standard_t(2, (repeats, n + 1)))
    hits = [row[-1] <= conformal_quantile(row[:-1], level) for row in data]
    expected = math.ceil((n + 1) * level) / (n + 1)
    assert abs(np.mean(hits) - expected) < 4 * math.sqrt(expected * (1 - expected) / repeats)


@given(SCORES)
def test_quantiles_do_not_decrease_with_the_level(scores):
    values = [conformal_quantile(scores, level) for level in np.linspace(0.01, 0.99, 25)]
    assert values == sorted(values)


@given(SCORES, st.sampled_from(LEVELS), st.floats(0.01, 100))
def test_equal_weights_change_nothing(scores, level, weight):
    weighted = conformal_quantile(scores, level, np.full(len(scores), weight))
    assert weighted == conformal_quantile(scores, level)


def test_weights_by_hand():
    # cumulated (1, 3, 4) of 4 + 1: 0.2, 0.6, 0.8
    assert conformal_quantile([3.0, 1.0, 2.0], 0.5, [1.0, 1.0, 2.0], test_weight=1.0) == 2.0
    assert conformal_quantile([3.0, 1.0, 2.0], 0.7, [1.0, 1.0, 2.0], test_weight=1.0) == 3.0
    assert conformal_quantile([3.0, 1.0, 2.0], 0.9, [1.0, 1.0, 2.0], test_weight=1.0) == math.inf


def test_faults_are_named():
    with pytest.raises(HeadError, match="without NaN"):
        conformal_quantile([1.0, math.nan], 0.9)
    with pytest.raises(HeadError, match="the level 95 is not between 0 and 1"):
        conformal_quantile([1.0], 95)
    with pytest.raises(HeadError, match="widths must be positive"):
        conformal_scores([1.0], [0.0])
    with pytest.raises(HeadError, match="one length"):
        conformal_scores([1.0], [1.0, 2.0])
    with pytest.raises(HeadError, match="non-negative weight"):
        conformal_quantile([1.0], 0.9, [-1.0])


def test_scores_are_residuals_in_units_of_width():
    np.testing.assert_allclose(conformal_scores([-0.02, 0.03], [0.01, 0.02]), [2.0, 1.5])


def test_clusters_keep_room_for_one_more_of_them():
    """By hand: 4 rows in 2 clusters leave room for 2 more rows; 0.6 · 6 = 3.6 needs all four, 0.6 · 5 = 3 three."""
    scores, clusters = [1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"]
    assert conformal_layer(LeftOutScores(scores), clusters=clusters).half_width(0.6) == 4.0
    assert conformal_layer(LeftOutScores(scores)).half_width(0.6) == 3.0
    assert np.isinf(conformal_layer(LeftOutScores(scores), clusters=clusters).half_width(0.7))


def test_clustered_quantiles_cover_new_clusters_where_plain_ones_fall_short():
    """20 clusters of 10 equal rows at 89 %: the plain rank forgets that only 20 things were drawn.

    Plain: the ⌈0.89 · 201⌉ = 179th row is of the 18th cluster, which covers 18/21; clustered: 0.89 · 21 needs
    the 19th, which covers 19/21.
    """
    rng = np.random.default_rng(0)
    plain, clustered = [], []
    for _ in range(2000):
        draws = rng.random(21)
        scores, clusters = np.repeat(draws[:20], 10), np.repeat(np.arange(20), 10).astype(str)
        plain.append(draws[20] <= conformal_layer(LeftOutScores(scores), levels=()).half_width(0.89))
        clustered.append(
            draws[20] <= conformal_layer(LeftOutScores(scores), levels=(), clusters=clusters).half_width(0.89)
        )
    error = np.sqrt(0.1 / 2000)
    assert np.mean(clustered) == pytest.approx(19 / 21, abs=3 * error)
    assert np.mean(plain) == pytest.approx(18 / 21, abs=3 * error)
