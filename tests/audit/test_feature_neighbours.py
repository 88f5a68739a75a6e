"""Local kriging against scikit-learn's Gaussian process, leaving the row out by hand."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from mace_bounds.audit._neighbours import _typical_distance, neighbourly


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 3)) * [1.0, 5.0, 0.2]
    return x, 0.02 * np.sin(x[:, 0]) + 0.005 * rng.standard_normal(40)


def test_left_out_predictions_are_those_of_a_gaussian_process(points):
    x, y = points
    rows, scale = np.array([0, 7, 39]), 0.01
    said = neighbourly(x, y, scale, rows)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    kernel = 4 * scale**2 * Matern(4.0 * _typical_distance(z, 0), nu=0.5)
    for i, row in enumerate(rows):
        others = np.arange(len(x)) != row
        oracle = GaussianProcessRegressor(kernel, alpha=0.25 * scale**2, optimizer=None)
        oracle.fit(z[others], np.clip(y[others], -5 * scale, 5 * scale))
        mean, std = oracle.predict(z[[row]], return_std=True)
        assert said.expected[i] == pytest.approx(mean[0], abs=1e-12)
        assert said.std[i] == pytest.approx(np.hypot(std[0], 0.5 * scale), rel=1e-9)
        distance = np.linalg.norm(z[others] - z[row], axis=1)
        assert said.nearest[i] == np.flatnonzero(others)[distance.argmin()]


def test_a_row_does_not_speak_for_itself_and_one_wrong_neighbour_is_clipped(points):
    x, y = points
    before = neighbourly(x, y, 0.01, np.array([5]))
    wrong = y.copy()
    wrong[5] += 3.0
    assert neighbourly(x, wrong, 0.01, np.array([5])).expected[0] == before.expected[0]
    wrong = y.copy()
    wrong[before.nearest[0]] += 3.0
    assert abs(neighbourly(x, wrong, 0.01, np.array([5])).expected[0]) <= 0.05


def test_far_from_everything_the_prior_speaks(points):
    x, y = points
    far = np.vstack([x, [1e4, 1e4, 1e4]])
    said = neighbourly(far, np.append(y, 0.3), 0.01, np.array([40]))
    assert said.std[0] == pytest.approx(0.01 * np.sqrt(4.25), rel=1e-6)
    assert abs(said.expected[0]) < 1e-6


def test_columns_that_never_change_and_few_rows_are_no_trouble():
    x = np.column_stack([np.arange(3.0), np.ones(3)])
    said = neighbourly(x, np.array([0.0, 0.01, 0.0]), 0.01, np.array([0, 1, 2]))
    assert np.isfinite(said.expected).all()
    assert said.nearest.tolist() == [1, said.nearest[1], 1]
