"""D-optimality and the learned quantile against independent calculations."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor

from helpers.baseline_rows import novel, planted, rows_of
from mace_bounds.benchmark import BASELINES
from mace_bounds.benchmark.baselines.grades import cluster_centres
from mace_bounds.benchmark.baselines.quantiles import linear_quantile, pinball
from mace_bounds.errors import HeadError


@pytest.mark.parametrize("name", ["d_optimality", "d_optimality_local"])
def test_training_rows_have_a_grade_of_at_most_one(name):
    rows = novel(500, 0)
    grade = BASELINES[name].fit(rows, 0).grade(rows)
    assert grade.max() == pytest.approx(1.0, abs=1e-8)
    assert grade.min() >= 0.0


def test_grade_is_that_of_the_largest_determinant_of_all():
    rows, new = novel(16, 1, columns=3), novel(30, 2, columns=3)
    triples = (rows.x[list(three)] for three in combinations(range(16), 3))
    best = max(triples, key=lambda a: abs(np.linalg.det(a)))
    expected = np.abs(new.x @ np.linalg.inv(best)).max(axis=1)
    assert np.allclose(BASELINES["d_optimality"].fit(rows, 0).grade(new), expected, rtol=1e-8)


def test_width_grows_with_the_grade_up_to_what_was_met():
    rows = novel(600, 3)
    fitted = BASELINES["d_optimality"].fit(rows, 0)
    direction = np.random.default_rng(4).standard_normal(5)
    ray = rows_of(np.outer(np.geomspace(0.1, 1e9, 40), direction), np.full(40, np.nan))
    sigma = fitted.predict(ray).sigma
    assert (np.diff(sigma) >= 0.0).all()
    assert sigma[-1] == sigma[-2] == pytest.approx(fitted.constant + fitted.slope * np.log1p(fitted.largest))
    assert fitted.slope > 0.0


def test_clusters_are_found_and_small_ones_dissolved():
    rng = np.random.default_rng(5)
    far = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    z = np.vstack([far[k] + rng.standard_normal((n, 2)) for k, n in enumerate((100, 80, 5))])
    centres = cluster_centres(z, 3, 0)
    label = np.argmin(np.linalg.norm(z[:, None] - centres, axis=2), axis=1)
    assert np.bincount(label, minlength=len(centres)).min() >= 20
    assert not set(label[:100]) & set(label[100:180])


def test_a_gap_between_clusters_is_novel_only_locally():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((400, 2)) + np.where(np.arange(400) % 2 == 0, 20.0, -20.0)[:, None] * [1.0, 0.0]
    rows = rows_of(np.column_stack([x, np.ones(400)]), 0.05 * rng.standard_normal(400))
    gap = rows_of([[8.0, 0.0, 1.0]], [np.nan])
    assert BASELINES["d_optimality"].fit(rows, 0).grade(gap)[0] < 1.0
    assert BASELINES["d_optimality_local"].fit(rows, 0).grade(gap)[0] > 1.5


@pytest.mark.parametrize("level", [0.68, 0.9])
def test_linear_quantile_is_that_of_scikit_learn(level):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((200, 3))
    target = 1.0 + x @ [0.5, -0.3, 0.0] + (1.0 + 0.3 * x[:, 0]) * rng.standard_normal(200)
    theirs = QuantileRegressor(quantile=level, alpha=0.0, solver="highs").fit(x, target)
    u = np.column_stack([x, np.ones(200)])
    intercept, slopes = linear_quantile(
        u, np.mean(u**2, axis=0), target, np.ones(200), level, ridge=1e-10, smoothing=1e-3
    )
    ours, best = (
        np.mean(pinball(target - said, level)) for said in (intercept + u @ slopes, theirs.predict(x))
    )
    assert best <= ours < best * 1.001  # smoothing costs at most h·log 2 = 7e-4 in loss
    assert np.allclose([*slopes[:3], intercept + slopes[3]], [*theirs.coef_, theirs.intercept_], atol=0.03)


def test_weights_of_a_quantile_are_repetitions():
    rng = np.random.default_rng(8)
    u = np.column_stack([rng.standard_normal((100, 2)), np.ones(100)])
    target, weights = u @ [0.4, 0.0, 1.0] + rng.standard_normal(100), 1 + np.arange(100) % 3
    again = np.repeat(np.arange(100), weights)
    one = linear_quantile(u, np.ones(3), target, weights.astype(float), 0.7, 0.1)
    other = linear_quantile(u[again], np.ones(3), target[again], np.ones(len(again)), 0.7, 0.1)
    assert one[0] == pytest.approx(other[0])
    assert np.allclose(one[1], other[1], atol=1e-4)


def test_quantile_finds_the_planted_size():
    rows, new = planted(3000, 9), planted(500, 10)
    sigma = BASELINES["quantile"].fit(rows, 0).predict(new).sigma
    truth = 0.05 * np.exp(new.x[:, 0]) / np.sqrt(np.mean(np.exp(2 * rows.x[:, 0])))
    inner = np.abs(new.x[:, 0]) < 1.5
    slope = np.polyfit(np.log(truth[inner]), np.log(sigma[inner]), 1)[0]
    assert 0.75 < slope < 1.05  # softening of small errors flattens it a little
    assert np.exp(np.mean(np.log(sigma[inner] / truth[inner]))) == pytest.approx(1.0, abs=0.2)


def test_quantile_of_many_rows_of_few_compositions():
    rows = planted(40_100, 11, columns=2)
    rows = replace(rows, groups=np.array([f"G{i % 6}" for i in range(len(rows))]))
    sigma = BASELINES["quantile"].fit(rows, 0).predict(rows).sigma
    assert np.corrcoef(np.log(sigma), rows.x[:, 0])[0, 1] > 0.95


def test_a_quantile_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr("mace_bounds.benchmark.baselines.quantiles._MAX_STEPS", 1)
    with pytest.raises(HeadError, match="did not converge in 1 steps"):
        BASELINES["quantile"].fit(planted(300, 12), 0)
