"""Local kriging against scikit-learn's Gaussian process and the closed form of leaving one out."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import t
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from mace_bounds.auditing.neighbours import (
    _rough_distances,
    _squared,
    evidence,
    feature_metric,
    fit_usual_error,
    predict_from_neighbours,
)

N, SCALE = 40, 0.01


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, 3)) * [1.0, 5.0, 0.2]
    return x, 0.02 * np.sin(x[:, 0]) + 0.005 * rng.standard_normal(N)


def one_composition(n):
    fractions = np.zeros((n, 118))
    fractions[:, [2, 7]] = 0.5
    return fractions


def test_left_out_predictions_are_those_of_a_gaussian_process(points):
    x, y = points
    rows = np.array([0, 7, 39])
    said = predict_from_neighbours(feature_metric(x, one_composition(N)), y, SCALE, rows)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    unit = np.median(np.sort(cdist(z, z), axis=1)[:, 5])
    kernel = 4 * SCALE**2 * Matern(8.0 * unit, nu=0.5)
    for i, row in enumerate(rows):
        others = np.arange(N) != row
        oracle = GaussianProcessRegressor(kernel, alpha=0.25 * SCALE**2, optimizer=None)
        oracle.fit(z[others], np.clip(y[others], -5 * SCALE, 5 * SCALE))
        mean, std = oracle.predict(z[[row]], return_std=True)
        assert said.expected[i] == pytest.approx(mean[0], abs=1e-7)
        assert said.std[i] == pytest.approx(np.hypot(std[0], 0.5 * SCALE), rel=1e-5)
        distance = np.linalg.norm(z[others] - z[row], axis=1)
        assert said.nearest[i] == np.flatnonzero(others)[distance.argmin()]
        assert said.distance[i] == pytest.approx(distance.min() / unit, rel=1e-5)


def test_compositions_count_beside_features(points):
    """All rows at once by the closed form of leave-one-out (Dubrule 1983), where all are neighbours of all."""
    x, y = points
    fractions = np.zeros((N, 118))
    fractions[:, 2] = np.linspace(0, 1, N)
    fractions[:, 7] = 1 - fractions[:, 2]
    said = predict_from_neighbours(feature_metric(x, fractions), y, SCALE, np.arange(N))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    unit = np.median(np.sort(cdist(z, z), axis=1)[:, 5])
    covariance = 4 * np.exp(-cdist(z, z) / (8 * unit) - cdist(fractions, fractions) / 0.7) + 0.25 * np.eye(N)
    inverse = np.linalg.inv(covariance)
    clipped = np.clip(y, -5 * SCALE, 5 * SCALE)
    np.testing.assert_allclose(said.expected, clipped - inverse @ clipped / np.diag(inverse), atol=1e-7)
    np.testing.assert_allclose(said.std, SCALE / np.sqrt(np.diag(inverse)), rtol=1e-5)


def test_only_the_nearest_fifty_speak():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((300, 2)), 0.01 * rng.standard_normal(300)
    where, row = feature_metric(x, one_composition(300)), np.array([11])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    far = np.argsort(np.linalg.norm(z - z[11], axis=1))[51:]
    before = predict_from_neighbours(where, y, SCALE, row)
    y[far] += 0.04
    assert predict_from_neighbours(where, y, SCALE, row).expected[0] == before.expected[0]
    y[before.nearest] += 0.04
    assert predict_from_neighbours(where, y, SCALE, row).expected[0] != before.expected[0]


def test_a_row_does_not_speak_for_itself_and_one_wrong_neighbour_is_clipped(points):
    x, y = points
    where = feature_metric(x, one_composition(N))
    before = predict_from_neighbours(where, y, SCALE, np.array([5]))
    wrong = y.copy()
    wrong[5] += 3.0
    assert predict_from_neighbours(where, wrong, SCALE, np.array([5])).expected[0] == before.expected[0]
    wrong = y.copy()
    wrong[before.nearest[0]] += 3.0
    assert abs(predict_from_neighbours(where, wrong, SCALE, np.array([5])).expected[0]) <= 0.05


def test_far_from_everything_the_prior_speaks(points):
    x, y = points
    far = np.vstack([x, [1e4, 1e4, 1e4]])
    where = feature_metric(far, one_composition(N + 1))
    said = predict_from_neighbours(where, np.append(y, 0.3), SCALE, np.array([N]))
    assert said.std[0] == pytest.approx(SCALE * np.sqrt(4.25), rel=1e-6)
    assert abs(said.expected[0]) < 1e-6


def test_columns_that_never_change_and_few_rows_are_no_trouble():
    x = np.column_stack([np.arange(3.0), np.ones(3)])
    where = feature_metric(x, one_composition(3))
    said = predict_from_neighbours(where, np.array([0.0, 0.01, 0.0]), SCALE, np.array([0, 1, 2]))
    assert where.features.shape == (3, 1)
    assert where.fractions.shape == (3, 2)
    assert np.isfinite(said.expected).all()
    assert said.nearest.tolist() == [1, said.nearest[1], 1]


def test_same_features_of_another_composition_are_blind(points):
    x, y = points
    x, fractions = x.copy(), one_composition(N)
    x[[3, 4, 5]] = x[3]  # 3 and 4 are of one composition, 5 is not
    fractions[5] = 0.0
    fractions[5, 11] = 1.0
    x[6] = x[7]
    where = feature_metric(x, fractions)
    said = predict_from_neighbours(where, y, SCALE, np.arange(N))
    assert np.flatnonzero(said.blind).tolist() == [3, 4, 5]


def test_single_precision_is_good_enough_to_choose_by():
    x = np.random.default_rng(1).standard_normal((500, 145)).astype(np.float32)
    rows = np.array([0, 499])
    exact = cdist(x[rows].astype(float), x.astype(float))
    np.testing.assert_allclose(_rough_distances(x, _squared(x), rows), exact, atol=0.02)


@pytest.fixture(scope="module")
def surprises():
    rng = np.random.default_rng(4)
    covariates = rng.standard_normal((3000, 2)) * [0.6, 2.0] + [3.0, -1.0]
    scale = np.exp(-3.5 + 0.8 * (covariates[:, 0] - 3.0))  # the second has nothing to say
    return covariates, scale, scale * t.rvs(3, size=3000, random_state=rng)


def test_scales_are_recovered(surprises):
    covariates, scale, surprise = surprises
    found = fit_usual_error(surprise, covariates).scale(covariates)
    assert abs(np.log(found / scale)).max() < 0.25
    assert np.median(found / scale) == pytest.approx(1, abs=0.05)


def test_wrong_labels_among_them_are_outvoted(surprises):
    covariates, scale, surprise = surprises
    wrong = surprise.copy()
    wrong[::50] += 2.0  # two in a hundred
    found = fit_usual_error(wrong, covariates).scale(covariates)
    assert np.median(found / scale) == pytest.approx(1, abs=0.1)


def test_slopes_are_not_negative_and_a_constant_covariate_is_no_trouble(surprises):
    covariates, _, surprise = surprises
    turned = np.column_stack([-covariates[:, 0], np.ones(len(covariates))])
    fitted = fit_usual_error(surprise, turned)
    assert fitted.coefficients[1:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(fitted.scale(turned), np.exp(fitted.coefficients[0]))


def test_evidence_by_hand():
    # e = 1, s = 0.1: Cauchy 1/(pi 1.1 (1 + 1/1.1^2)); Student with 3: 2/(pi sqrt 3) / 0.1 (1 + 100/3)^-2
    shifted = 1 / (np.pi * 1.1 * (1 + 1 / 1.21))
    own = 2 / (np.pi * np.sqrt(3)) / 0.1 / (1 + 100 / 3) ** 2
    assert evidence(np.array([1.0]), np.array([0.1]))[0] == pytest.approx(np.log10(shifted / own))


def test_evidence_grows_with_the_error_and_shrinks_with_what_is_usual():
    errors = np.array([0.0, 0.1, 0.5, 2.0])
    found = evidence(errors, np.full(4, 0.05))
    assert found[0] < 0 < found[-1]
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(evidence(-errors, np.full(4, 0.05)), found)
    assert (np.diff(evidence(np.full(3, 0.5), np.array([0.02, 0.1, 1.0]))) < 0).all()


def test_a_search_that_does_not_converge_is_a_warning(surprises, monkeypatch):
    import scipy.optimize

    covariates, _, surprise = surprises
    plain = scipy.optimize.minimize
    monkeypatch.setattr(
        scipy.optimize, "minimize", lambda *args, **known: plain(*args, **known | {"options": {"maxiter": 1}})
    )
    with pytest.warns(UserWarning, match="usual errors did not converge"):
        fit_usual_error(surprise, covariates)
