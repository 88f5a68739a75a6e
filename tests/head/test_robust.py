import numpy as np
import pytest
from scipy import optimize
from scipy.special import huber

from helpers.head_rows import correlated, mace_like
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, fit_robust, huber_weights, predict


def contaminated(n=600, seed=0):
    """Rows whose first twentieth carries wrong labels, all shifted the same way."""
    x, y = correlated(n, 5, 5.0, seed, tails=None)
    clean = y.copy()
    y[: n // 20] += 20.0
    return x, y, clean


def test_outliers_hardly_move_the_mean():
    x, y, clean = contaminated()
    truth = predict(fit_pops(array_chunks(x, clean)).head, x).mean
    plain = predict(fit_pops(array_chunks(x, y)).head, x).mean
    robust = predict(fit_robust(x, y).head, x).mean
    assert np.abs(plain - truth).mean() > 0.8
    assert np.abs(robust - truth).mean() < 0.02


def test_is_the_minimum_of_hubers_loss():
    # with a flat prior and tiny leverages, LOO residuals are residuals and IRLS solves Huber's problem
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 2))
    y = x @ [1.0, -1.0] + 0.5 + rng.standard_t(2.5, 4000)
    fit = fit_robust(x, y, config=PopsConfig(huber_tolerance=1e-9, huber_max_iter=200))
    r = fit.residual
    limit = 1.345 * 1.482602218505602 * np.median(np.abs(r - np.median(r)))
    best = optimize.minimize(
        lambda t: huber(limit, y - x @ t[:2] - t[2]).sum(), np.zeros(3), options={"gtol": 1e-8}
    ).x
    intercept = predict(fit.head, np.zeros((1, 2))).mean[0]
    weights = predict(fit.head, np.eye(2)).mean - intercept
    assert np.allclose([*weights, intercept], best, rtol=0, atol=3e-3)


def test_weights_follow_hubers_rule():
    x, y, _ = contaminated()
    config = PopsConfig(huber_tolerance=1e-8, huber_max_iter=100)
    factors = huber_weights(array_chunks(x, y, chunk_rows=100), config)
    fit = fit_robust(x, y, config=config)
    r = fit.loo_residual
    scale = 1.482602218505602 * np.median(np.abs(r - np.median(r)))
    assert np.allclose(factors, np.minimum(1.0, 1.345 * scale / np.abs(r)), atol=1e-6)
    assert (factors[:30] < 0.05).all()
    assert np.allclose(fit.weight, factors / factors.mean(), rtol=1e-9)


def test_user_weights_are_multiplied():
    x, y, _ = contaminated()
    weight = np.ones(600)
    weight[:30] = 0.0
    a = fit_robust(x, y, weight)
    b = fit_robust(x[30:], y[30:])
    assert np.allclose(predict(a.head, x).mean, predict(b.head, x).mean, rtol=0, atol=1e-9)
    assert not a.selected[:30].any()


def test_clean_gaussian_rows_keep_most_of_their_weight():
    x, y = correlated(3000, 5, 5.0, 3, tails=None)
    factors = huber_weights(array_chunks(x, y))
    assert np.mean(factors == 1.0) == pytest.approx(0.8214, abs=0.03)  # P(|z| < 1.345)


def test_config_says_so_and_runs_repeat():
    x, y = mace_like(800, 4)
    a, b = fit_robust(x, y).head, fit_robust(x, y).head
    assert a.config.huber
    assert not fit_pops(array_chunks(x, y)).head.config.huber
    first, second = a.to_tensors(), b.to_tensors()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_clipping_and_weights_together_tame_the_box():
    x, y, clean = contaminated(2000, 5)

    def width(fit):
        p = predict(fit.head, x)
        return np.median(p.support_upper - p.support_lower)

    calm = width(fit_pops(array_chunks(x, clean)))
    wild = width(fit_pops(array_chunks(x, y), PopsConfig(clip_percent=0.0)))
    tamed = width(fit_robust(x, y, config=PopsConfig(clip_percent=2.5)))
    assert wild > 10.0 * calm
    assert tamed < 3.0 * calm


def test_perfect_rows_need_no_weights():
    x = np.arange(30.0).reshape(10, 3) ** 1.5
    assert np.array_equal(huber_weights(array_chunks(x, np.zeros(10))), np.ones(10))
