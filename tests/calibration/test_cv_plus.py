"""CV+ against its definition, against MAPIE, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.regression import CrossConformalRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold

from mace_bounds.calibration import (
    LeftOutScores,
    conformal_quantile,
    cv_plus_bounds,
    cv_plus_level,
)
from mace_bounds.errors import HeadError

FOLDED = st.integers(2, 5).flatmap(
    lambda k: st.tuples(st.just(k), st.integers(k, 60), st.integers(0, 2**32 - 1), st.booleans())
)


def draw(n_folds, n, seed):
    """Heads of ``n_folds`` folds, n scores that they left out, and seven new rows."""
    rng = np.random.default_rng(seed)
    centre, sigma = rng.normal(size=(n_folds, 7)), rng.uniform(0.5, 2.0, (n_folds, 7))
    return centre, sigma, rng.standard_t(3, n), rng.integers(0, n_folds, n)


def by_definition(centre, sigma, scores, folds, level, signed):
    """Barber et al. (2021), equations 4 and 11: ranks among all n values, written out row by row."""
    n, tail = len(scores), (1 + level) / 2 if signed else level
    up, down = (scores, -scores) if signed else (abs(scores), abs(scores))
    rank = math.ceil((n + 1) * tail - 1e-9)
    if rank > n:
        return np.full(centre.shape[1], -np.inf), np.full(centre.shape[1], np.inf)
    high = np.sort(centre[folds] + sigma[folds] * up[:, None], axis=0)[rank - 1]
    low = np.sort(centre[folds] - sigma[folds] * down[:, None], axis=0)[::-1][rank - 1]
    return low, high


@given(FOLDED, st.sampled_from((0.3, 0.68, 0.9, 0.95)))
@settings(max_examples=60)
def test_agrees_with_the_definition(case, level):
    n_folds, n, seed, signed = case
    data = draw(n_folds, n, seed)
    np.testing.assert_allclose(
        cv_plus_bounds(*data[:2], LeftOutScores(*data[2:], signed), level),
        by_definition(*data, level, signed),
        rtol=1e-9,
        atol=1e-9,
    )


def test_agrees_with_mapie():
    rng = np.random.default_rng(3)
    x, new = rng.normal(size=(60, 2)), rng.normal(size=(5, 2))
    y = x @ [1.0, -2.0] + rng.standard_t(3, 60)
    cv = KFold(5)
    levels = [0.68, 0.9, 0.95]
    mapie = CrossConformalRegressor(LinearRegression(), confidence_level=levels, cv=cv, method="plus")
    _, theirs = mapie.fit_conformalize(x, y).predict_interval(new)
    folds, scores, centre = np.zeros(60, int), np.zeros(60), np.zeros((5, 5))
    for k, (train, held) in enumerate(cv.split(x)):
        model = LinearRegression().fit(x[train], y[train])
        folds[held], scores[held], centre[k] = k, y[held] - model.predict(x[held]), model.predict(new)
    for i, level in enumerate(levels):
        ours = cv_plus_bounds(centre, np.ones((5, 5)), LeftOutScores(scores, folds), level)
        np.testing.assert_allclose(np.array(ours).T, theirs[:, :, i], rtol=1e-8)


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=80), st.sampled_from((0.5, 0.68, 0.9, 0.99)))
def test_one_fold_is_split_conformal(scores, level):
    low, high = cv_plus_bounds([[2.0]], [[3.0]], LeftOutScores(scores), level)
    q = conformal_quantile(np.abs(scores), level)
    assert (low[0], high[0]) == (2.0 - 3.0 * q, 2.0 + 3.0 * q)


def test_weights_of_one_fold():
    rng = np.random.default_rng(1)
    z, w, zeros = rng.normal(size=50), rng.uniform(0, 2, 50), np.zeros(50, int)
    low, high = cv_plus_bounds([[0.0]], [[1.0]], LeftOutScores(z, zeros, True, w, 3.0), 0.8)
    assert high[0] == conformal_quantile(z, 0.9, w, 3.0)
    assert low[0] == -conformal_quantile(-z, 0.9, w, 3.0)


def test_whole_weights_are_repeated_rows():
    centre, sigma, z, folds = draw(3, 30, 5)
    times = np.random.default_rng(0).integers(1, 4, 30)
    ours = cv_plus_bounds(centre, sigma, LeftOutScores(z, folds, weights=times, test_weight=1.0), 0.7)
    repeated = cv_plus_bounds(centre, sigma, LeftOutScores(np.repeat(z, times), np.repeat(folds, times)), 0.7)
    np.testing.assert_allclose(ours, repeated, rtol=1e-9, atol=1e-9)


@given(FOLDED)
@settings(max_examples=30)
def test_bounds_widen_with_the_level_and_forget_the_order(case):
    n_folds, n, seed, signed = case
    centre, sigma, z, folds = draw(n_folds, n, seed)
    order = np.random.default_rng(seed).permutation(n)
    last = np.full((2, 7), np.nan)
    for level in (0.1, 0.4, 0.7, 0.9, 0.95, 0.99):
        low, high = cv_plus_bounds(centre, sigma, LeftOutScores(z, folds, signed), level)
        assert not np.any(low > last[0])
        assert not np.any(high < last[1])
        again = cv_plus_bounds(centre, sigma, LeftOutScores(z[order], folds[order], signed), level)
        np.testing.assert_array_equal(again, (low, high))
        last = np.array([low, high])


@pytest.mark.parametrize(("signed", "needed"), [(False, 19), (True, 39)])
def test_too_few_scores_say_nothing(signed, needed):
    """Rank ⌈(n + 1) 0.95⌉ <= n from n = 19 on; with 0.975 on each side from n = 39 on."""
    for n, finite in ((needed, True), (needed - 1, False)):
        data = draw(3, n, 2)
        assert np.isfinite(cv_plus_bounds(*data[:2], LeftOutScores(*data[2:], signed), 0.95)).all() == finite


@given(FOLDED, st.floats(-6, 6))
@settings(max_examples=40)
def test_the_min_covering_level_is_where_the_bounds_let_go(case, value):
    n_folds, n, seed, signed = case
    data, values = draw(n_folds, n, seed), np.full(7, value)
    least = cv_plus_level(*data[:2], LeftOutScores(*data[2:], signed), values)
    assert np.all((least >= 0) & (least < 1))
    for level in (0.05, 0.33, 0.5, 0.77, 0.93):  # no multiple of 1 / (n + 1) below n = 61 but for 0.5
        low, high = cv_plus_bounds(*data[:2], LeftOutScores(*data[2:], signed), level)
        inside = (low <= values) & (values <= high)
        apart = np.abs(least - level) > 1e-6
        np.testing.assert_array_equal(inside[apart], (least < level)[apart])


def simulate(repeats, n, n_folds, level, seed):
    """Coverage of CV+ for the mean of heavy-tailed draws, where a fit is all but stable with few rows."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(repeats)
    folds = np.arange(n) % n_folds
    for i in range(repeats):
        y = rng.standard_t(3, n + 1)
        means = np.array([y[:n][folds != k].mean() for k in range(n_folds)])
        stds = np.array([y[:n][folds != k].std() for k in range(n_folds)])
        z = (y[:n] - means[folds]) / stds[folds]
        low, high = cv_plus_bounds(means[:, None], stds[:, None], LeftOutScores(z, folds), level)
        hits[i] = low[0] <= y[n] <= high[0]
    return hits.mean()


def test_coverage_of_exchangeable_rows():
    """Theorem 4 promises 1 - 2α - min{2 (1 - 1/K) / (n/K + 1), (1 - K/n) / (K + 1)}; near 1 - α is what is found."""
    n, n_folds, level, repeats = 60, 5, 0.9, 1500
    covered = simulate(repeats, n, n_folds, level, 0)
    error = math.sqrt(0.1 * 0.9 / repeats)
    least = 1 - 2 * 0.1 - min(2 * (1 - 1 / n_folds) / (n / n_folds + 1), (1 - n_folds / n) / (n_folds + 1))
    assert covered > least
    assert (
        abs(covered - level) < 3 * error + 1 / (n + 1) + 0.01
    )  # rank steps, and folds that know less than all


def test_faults_are_named():
    centre, sigma, z, folds = draw(2, 20, 0)
    with pytest.raises(HeadError, match="shape"):
        cv_plus_bounds(centre[0], sigma[0], LeftOutScores(z, folds), 0.9)
    with pytest.raises(HeadError, match="widths must be positive, and folds from 0"):
        cv_plus_bounds(centre, sigma, LeftOutScores(z, folds + 1), 0.9)
    with pytest.raises(HeadError, match="the level 90 is not between 0 and 1"):
        cv_plus_bounds(centre, sigma, LeftOutScores(z, folds), 90)
    with pytest.raises(HeadError, match="non-negative weight"):
        cv_plus_bounds(centre, sigma, LeftOutScores(z, folds, weights=-np.ones(20)), 0.9)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("equal", [True, False])
def test_few_rows_get_the_bounds_that_many_get(signed, equal, monkeypatch):
    """Sorting, for few rows, and halving, for many, find the same quantile."""
    from mace_bounds.calibration import conformal

    rng = np.random.default_rng(6)
    z, folds = rng.standard_t(3, 400), rng.integers(0, 5, 400)
    centre, sigma = rng.normal(size=(5, 30)), rng.uniform(0.5, 2.0, (5, 30))
    weights = None if equal else rng.uniform(0.2, 2.0, 400)
    for level in (0.5, 0.9, 0.95, 0.9999):
        left_out = LeftOutScores(z, folds, signed, weights)
        few = cv_plus_bounds(centre, sigma, left_out, level)
        monkeypatch.setattr(conformal, "_FEW_VALUES", 0)
        many = cv_plus_bounds(centre, sigma, left_out, level)
        monkeypatch.undo()
        np.testing.assert_allclose(few, many, rtol=1e-11, atol=1e-11)
