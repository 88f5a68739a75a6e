"""Bayesian ridge, committee, LLPR, constant and the peer against independent calculations."""

import numpy as np
import pytest
from sklearn import linear_model

from helpers.baseline_rows import planted, rows_of
from mace_bounds.benchmark import BASELINES
from mace_bounds.benchmark.baselines.interface import composition_folds, nll_scale, training_rows
from mace_bounds.benchmark.baselines.regressions import N_MEMBERS, composition_bootstrap
from mace_bounds.benchmark.baselines.widths import REGULARISERS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 5)) @ RNG.standard_normal((5, 5)) + 2.0
Y = X @ np.array([0.03, -0.02, 0.0, 0.01, 0.05]) + 0.04 * RNG.standard_normal(120)
ROWS = rows_of(X, Y)
NEW = rows_of(RNG.standard_normal((40, 5)) * 3.0, np.full(40, np.nan))


def standardised(x, weights=None):
    """Columns as the head has them, by hand: centred, scaled, with a constant."""
    w = np.ones(len(X)) if weights is None else weights
    mean = np.average(X, axis=0, weights=w)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
    return np.column_stack([(x - mean) / scale, np.ones(len(x))])


@pytest.mark.parametrize("weights", [None, 0.5 + np.arange(120) % 5])
def test_bayesian_ridge_is_that_of_scikit_learn(weights):
    rows = rows_of(X, Y, weights=weights)
    w = np.ones(120) if weights is None else weights / weights.mean()
    unit = np.sqrt(np.average(Y**2, weights=w))
    theirs = linear_model.BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=5000)
    theirs.fit(standardised(X, w), Y / unit, sample_weight=w)
    mean, std = theirs.predict(standardised(NEW.x, w), return_std=True)
    ours = BASELINES["bayesian_ridge_noise"].fit(rows, 0).predict(NEW)
    epistemic = BASELINES["bayesian_ridge"].fit(rows, 0).predict(NEW)
    assert np.allclose(ours.centre, mean * unit, rtol=1e-8, atol=1e-10)
    assert np.allclose(ours.sigma, std * unit, rtol=1e-8)
    assert np.allclose(epistemic.sigma, np.sqrt(std**2 - 1.0 / theirs.alpha_) * unit, rtol=1e-7)


def test_constant_is_the_root_mean_square():
    weights = 1.0 + np.arange(120.0)
    rows = rows_of(X, Y, weights=weights, centre=np.full(120, 0.02))
    expected = np.sqrt(np.sum(weights * (Y - 0.02) ** 2) / weights.sum())
    assert np.allclose(BASELINES["constant"].fit(rows, 0).predict(NEW).sigma, expected, rtol=1e-12)


def test_llpr_is_the_dense_formula_with_its_own_settings():
    fitted = BASELINES["llpr"].fit(ROWS, 0)
    z, new = standardised(X), standardised(NEW.x)
    inverse = np.linalg.inv(z.T @ z / 120 + fitted.regulariser * np.eye(6))
    expected = fitted.alpha * np.sqrt(np.einsum("ij,jk,ik->i", new, inverse, new))
    assert np.allclose(fitted.predict(NEW).sigma, expected, rtol=1e-9)


def test_llpr_settings_minimise_the_likelihood_of_left_out_rows():
    fitted = BASELINES["llpr"].fit(ROWS, 0)
    kept = training_rows(ROWS)
    folds = composition_folds(kept.groups, 0)
    shapes = np.empty((120, len(REGULARISERS)))
    for fold in range(5):
        x, test = kept.x[folds != fold], folds == fold
        mean, scale = x.mean(axis=0), x.std(axis=0)
        z = np.column_stack([(x - mean) / scale, np.ones(len(x))])
        new = np.column_stack([(kept.x[test] - mean) / scale, np.ones(test.sum())])
        for k, ridge in enumerate(REGULARISERS):
            inverse = np.linalg.inv(z.T @ z / len(z) + ridge * np.eye(6))
            shapes[test, k] = np.sqrt(np.einsum("ij,jk,ik->i", new, inverse, new))
    alpha = np.sqrt(np.mean((kept.y[:, None] / shapes) ** 2, axis=0))
    nll = np.mean(np.log(alpha * shapes) + 0.5 * (kept.y[:, None] / (alpha * shapes)) ** 2, axis=0)
    best = int(np.argmin(nll))
    at = int(np.argmin(np.abs(REGULARISERS - fitted.regulariser)))
    assert nll[at] == pytest.approx(nll[best], abs=1e-9)
    assert fitted.alpha == pytest.approx(alpha[at], rel=1e-9)


def test_the_scale_in_closed_form_is_the_minimum():
    error, shape = 0.1 * RNG.standard_normal(300), RNG.gamma(3.0, size=300)
    weights = RNG.gamma(2.0, size=300)
    _, alpha = nll_scale(error, shape[:, None], weights)

    def nll(a):
        return np.average(np.log(a * shape) + 0.5 * (error / (a * shape)) ** 2, weights=weights)

    assert nll(alpha) < min(nll(alpha * 1.001), nll(alpha / 1.001))


def test_the_better_shape_is_chosen():
    shape = RNG.gamma(3.0, size=2000)
    error = 0.1 * shape * RNG.standard_normal(2000)
    index, alpha = nll_scale(error, np.column_stack([np.ones(2000), 5.0 * shape, 1 / shape]), np.ones(2000))
    assert index == 1
    assert alpha == pytest.approx(0.02, rel=0.05)  # 2,000 draws: 1.6 % standard error


def test_committee_is_a_loop_over_ridge_fits():
    weights = 0.5 + np.arange(120) % 3
    rows = rows_of(X, Y, weights=weights)
    fitted, kept = BASELINES["committee"].fit(rows, 4), training_rows(rows)
    w = kept.weights
    unit = np.sqrt(np.average(kept.y**2, weights=w))
    evidence = linear_model.BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=5000)
    mean = np.average(kept.x, axis=0, weights=w)
    scale = np.sqrt(np.average((kept.x - mean) ** 2, axis=0, weights=w))
    z, new = (np.column_stack([(x - mean) / scale, np.ones(len(x))]) for x in (kept.x, NEW.x))
    evidence.fit(z, kept.y / unit, sample_weight=w)
    strength = evidence.lambda_ / evidence.alpha_
    counts = composition_bootstrap(kept.groups, N_MEMBERS, 4)
    coefficients = []
    for b in range(N_MEMBERS):
        repeated = np.repeat(np.arange(120), counts[:, b].astype(int))
        ridge = linear_model.Ridge(alpha=strength, fit_intercept=False, solver="cholesky")
        coefficients.append(ridge.fit(z[repeated], kept.y[repeated], sample_weight=w[repeated]).coef_)
    said = new @ np.array(coefficients).T
    ours = fitted.predict(NEW)
    assert np.allclose(ours.centre, said.mean(axis=1), rtol=1e-7, atol=1e-10)
    assert np.allclose(ours.sigma / fitted.alpha, np.std(said, axis=1, ddof=1), rtol=1e-6)
    members = z @ np.array(coefficients).T
    ratios = []
    for i in range(120):
        out = members[i][counts[i] == 0]
        few = (len(out) - 3) / (len(out) - 1)
        ratios.append(few * (kept.y[i] - out.mean()) ** 2 / out.var(ddof=1) - 1 / len(out))
    assert fitted.alpha == pytest.approx(np.sqrt(np.average(ratios, weights=w)), rel=1e-6)


def test_bootstrap_draws_whole_compositions():
    groups = np.array(["A", "B", "A", "C", "B", "A"])
    counts = composition_bootstrap(groups, 200, 1)
    assert np.array_equal(counts[0], counts[2])
    assert np.array_equal(counts[1], counts[4])
    assert (counts[[0, 1, 3]].sum(axis=0) == 3).all()
    assert (counts[3] == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.1)  # 200 draws: 0.03 standard error


def test_committee_width_is_the_size_of_the_error_out_of_bag_on_linear_data():
    rows = planted(2000, 40, spread=0.0, bias=0.1)
    fitted = BASELINES["committee"].fit(rows, 0)
    test = planted(2000, 41, spread=0.0, bias=0.1)
    said = fitted.predict(test)
    assert np.abs(said.centre - 0.1 * test.x[:, 1]).max() < 0.01
    share = np.mean(np.abs(test.y - said.centre) < 2.0 * said.sigma)
    assert 0.85 < share < 0.99  # the shape is wrong (noise is constant), the scale is right on average


def test_folds_hold_whole_compositions_and_none_is_empty():
    groups = np.array([f"g{i % 7}" for i in range(50)])
    folds = composition_folds(groups, 3)
    assert set(folds) == set(range(5))
    assert all(len(set(folds[groups == g])) == 1 for g in set(groups))


def test_peer_is_the_direct_call():
    pops = pytest.importorskip("popsregression")
    said = BASELINES["popsregression"].fit(ROWS, 11).predict(NEW)
    kept = training_rows(ROWS)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    direct = pops.POPSRegression(fit_intercept=True).fit(kept.x, kept.y, sample_weight=np.ones(120))
    np.random.set_state(state)  # noqa: NPY002
    mean, std = direct.predict(NEW.x, return_std=True)
    assert np.array_equal(said.centre, mean)
    assert np.array_equal(said.sigma, std)
