"""The small regressions against other libraries, other optimisers and finite differences."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import GammaRegressor

from mace_bounds.calibration import ScaleInputs, scale_kinds
from mace_bounds.calibration.inputs import KernelSpace, kernel, landmarks
from mace_bounds.calibration.scale_kinds import gamma_nnls, laplace_path


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    x, w = rng.normal([0.0, 1.0, 5.0, 0.0], size=(300, 4)), rng.uniform(0.5, 1.5, 300)
    size = np.exp(x @ [0.5, -0.3, 0.0, 0.2] - 4.0) * rng.exponential(size=300)
    return x, size, w / w.mean()


@pytest.mark.parametrize("k", [0, 1, 2])
def test_laplace_path_against_scikit_learn(regression, k):
    """Exponential noise with a log link is a gamma regression, whose penalty is per row."""
    x, size, w = regression
    strengths = [1e-6, 3.0, 100.0]
    other = GammaRegressor(alpha=strengths[k] / len(w), tol=1e-10, max_iter=10_000, solver="newton-cholesky")
    other.fit(x, size / size.mean(), sample_weight=w)
    found = laplace_path(x, size, w, strengths)[k]
    np.testing.assert_allclose(found[1:], other.coef_, atol=1e-4)
    assert found[0] == pytest.approx(other.intercept_ + np.log(size.mean()), abs=1e-4)


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_laplace_path_reaches_the_minimum(regression, strength):
    x, size, w = regression

    def loss(b):
        eta = b[0] + x @ b[1:]
        return w @ (eta + size * np.exp(-eta)) + 0.5 * strength * b[1:] @ b[1:]

    best = minimize(loss, [np.log(size.mean()), 0, 0, 0, 0], method="BFGS", options={"gtol": 1e-8})
    found = laplace_path(x, size, w, [strength, 3.0 * strength])[0]
    assert loss(found) <= best.fun + 1e-6
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_laplace_path_of_a_strong_ridge_is_the_mean(regression):
    x, size, w = regression
    (solution,) = laplace_path(x, size, w, [1e12])
    assert solution[0] == pytest.approx(np.log(np.average(size, weights=w)))
    np.testing.assert_allclose(solution[1:], 0.0, atol=1e-8)


def test_the_gradient_against_finite_differences(regression, monkeypatch):
    """The closed form, at a random point, against central differences."""
    x, size, w = regression
    caught = []
    monkeypatch.setattr(
        scale_kinds, "minimise", lambda loss, start, **_: caught.append((loss, start)) or start
    )
    laplace_path(x, size, w, [3.0])
    ((loss, start),) = caught
    point, step = start + 0.1 * np.random.default_rng(1).standard_normal(len(start)), 1e-6
    numeric = [
        (loss(point + step * e)[0] - loss(point - step * e)[0]) / (2 * step) for e in np.eye(len(point))
    ]
    np.testing.assert_allclose(loss(point)[1], numeric, rtol=1e-5, atol=1e-8)


def test_gamma_nnls_reaches_the_minimum_of_the_deviance():
    rng = np.random.default_rng(1)
    x = rng.uniform(0.1, 1.0, (400, 4))
    w = rng.uniform(0.5, 1.5, 400)
    y = (x @ [1.0, 0.0, 2.0, 0.3]) * rng.gamma(2.0, 0.5, 400)

    def deviance(theta):
        mean = x @ theta
        return np.average(y / mean + np.log(mean), weights=w)

    best = minimize(deviance, np.ones(4), bounds=[(1e-12, None)] * 4, method="L-BFGS-B")
    theta = gamma_nnls(x, y, w, max_iterations=200, tolerance=1e-12)
    assert np.all(theta >= 0)
    assert deviance(theta) <= best.fun + 1e-6


def test_left_out_leverage_is_that_of_a_fit_without_the_row():
    """Against the row's distance in the inverse Gram matrix of the others, worked out anew for each."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 3))
    one = np.ones(40)
    inputs = ScaleInputs(one, one, one, one, np.ones((40, 1)), features=features)
    space = KernelSpace.fit(inputs)
    found = space.left_out_leverage(inputs)
    z = np.column_stack([np.ones(40), (features - space.centre[:3]) / space.spread[:3]])
    ridge = np.diag(
        [0.0, *np.full(3, 1e-3 * 40 * 3 / 4)]
    )  # 1e-3 of the mean eigenvalue of four standardised columns
    for i in (0, 17, 39):
        rest = np.delete(z, i, axis=0)
        assert found[i] == pytest.approx(z[i] @ np.linalg.solve(rest.T @ rest + ridge, z[i]), rel=1e-9)


def test_kernel_modes_reproduce_the_kernel():
    """With all rows as landmarks, modes times their transpose are the kernel matrix (up to the modes left out)."""
    points = np.random.default_rng(4).normal(size=(50, 2))
    arrays, modes = landmarks(points, np.arange(50))
    columns = kernel(arrays, points) @ modes
    apart = ((points[:, None] - points) ** 2).sum(axis=2)
    width = 0.5 * np.median(np.sqrt(apart[np.triu_indices(50, 1)]))
    np.testing.assert_allclose(columns @ columns.T, np.exp(-0.5 * apart / width**2), atol=0.02)
