import numpy as np
import pytest
from sklearn.linear_model import BayesianRidge

from helpers.head_rows import correlated
from mace_bounds.head import FitWarning, PopsConfig
from mace_bounds.head.linear import maximise_evidence


def test_fixed_point_is_that_of_scikit_learn_run_to_convergence():
    x, y = correlated(400, 8, 30.0, 3)
    ours = maximise_evidence(np.column_stack([x, y]), len(y), float(np.var(y)), PopsConfig())
    theirs = BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=5000).fit(x, y)
    assert ours.converged
    assert ours.alpha == pytest.approx(theirs.alpha_, rel=1e-9)
    assert ours.lambda_ == pytest.approx(theirs.lambda_, rel=1e-9)
    assert np.allclose(ours.coefficients, theirs.coef_, rtol=0, atol=1e-10)


def test_satisfies_mackays_equations():
    x, y = correlated(300, 6, 10.0, 4)
    config = PopsConfig()
    fit = maximise_evidence(np.column_stack([x, y]), len(y), float(np.var(y)), config)
    precision = fit.alpha * x.T @ x + fit.lambda_ * np.eye(6)
    covariance = np.linalg.inv(precision)
    mean = fit.alpha * covariance @ x.T @ y
    gamma = 6 - fit.lambda_ * np.trace(covariance)
    assert np.allclose(fit.coefficients, mean, rtol=1e-10)
    assert fit.effective_parameters == pytest.approx(gamma, rel=1e-9)
    assert fit.lambda_ == pytest.approx((gamma + 2e-6) / (mean @ mean + 2e-6), rel=1e-9)
    assert fit.alpha == pytest.approx((300 - gamma + 2e-6) / (np.sum((y - x @ mean) ** 2) + 2e-6), rel=1e-9)
    whitening = fit.basis * fit.spread
    assert np.allclose(whitening @ whitening.T / fit.alpha, covariance, rtol=1e-9, atol=1e-16)


def test_stops_at_max_iter_and_says_so():
    x, y = correlated(200, 10, 100.0, 5)
    with pytest.warns(FitWarning, match="did not converge in 2 steps"):
        fit = maximise_evidence(np.column_stack([x, y]), 200, float(np.var(y)), PopsConfig(max_iter=2))
    assert (fit.n_iter, fit.converged) == (2, False)
