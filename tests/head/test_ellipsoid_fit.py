import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.head_rows import correlated, mace_like
from helpers.posterior_draws import whitened
from mace_bounds.head import FitWarning, PopsConfig, array_chunks, fit_pops, fit_robust, predict
from mace_bounds.head.posteriors import ellipsoid as module
from mace_bounds.head.posteriors.ellipsoid import fit_ellipsoid, generalisation_error


def problem(n, m, rank, seed):
    rng = np.random.default_rng(seed)
    u, r = rng.standard_normal((n, m)), rng.standard_t(2.0, n)
    weight = rng.gamma(2.0, size=n)
    return rng.standard_normal((m, rank)), u, r, weight / weight.sum()


def reach(rank, outside):
    """t0: the pull (q - 1) t²/(1 - t²) is 1/outside there."""
    return (1.0 + (rank - 1.0) * outside) ** -0.5


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 10**6))
def test_the_gradient_is_that_of_finite_differences(rank, outside, seed):
    widths, u, r, weight = problem(30, 4, rank, seed)
    _, gradient = generalisation_error(widths, u, r**2, weight, outside)
    direction = np.random.default_rng(seed + 1).standard_normal(widths.shape)
    step = 1e-6
    values = [
        generalisation_error(widths + k * step * direction, u, r**2, weight, outside)[0] for k in (-1, 1)
    ]
    slope = (values[1] - values[0]) / (2.0 * step)
    # central differences: curvature is larger where a row is close to its own null direction
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rank", [2, 8])
def test_the_error_is_the_mean_log_density_where_every_row_is_within_reach(rank):
    widths, u, r, weight = problem(50, 4, rank, 0)
    s = np.linalg.norm(u @ widths, axis=1)
    r = 0.99 * reach(rank, 0.1) * s * np.tanh(r)
    law = stats.beta(0.5 * (rank + 1.0), 0.5 * (rank + 1.0), loc=-1.0, scale=2.0)
    expected = -weight @ (law.logpdf(r / s) - np.log(s))
    assert generalisation_error(widths, u, r**2, weight, 0.1)[0] == pytest.approx(expected, rel=1e-12)


def test_beyond_reach_the_error_grows_as_a_logarithm_without_a_jump():
    rank, outside = 8, 0.1
    t0 = reach(rank, outside)

    def error(t):
        return generalisation_error(np.eye(1, rank), np.ones((1, 1)), np.array([t * t]), np.ones(1), outside)

    assert error(t0 * (1 + 1e-9))[0] == pytest.approx(error(t0 * (1 - 1e-9))[0], abs=1e-6)
    assert error(t0 * (1 + 1e-9))[1][0, 0] == pytest.approx(error(t0 * (1 - 1e-9))[1][0, 0], rel=1e-6)
    for t in (2.0, 50.0):  # slope 1/outside = 10 in log t
        assert error(t)[0] - error(t0)[0] == pytest.approx(10.0 * np.log(t / t0), rel=1e-9)


def test_one_dimension_one_residual_by_hand():
    # log s + (q - 1)/2 · -log(1 - r²/s²) has its minimum at s² = q r², whatever the sign of r
    signs = np.where(np.arange(400) % 2 == 0, 1.0, -1.0)
    assert module.constant_half_width(signs**2, np.full(400, 1 / 400), 8, 0.1) == pytest.approx(
        8.0**0.5, rel=1e-9
    )
    # the fit adds the squared median, so that r² is 1 + 1 here
    widths = fit_ellipsoid(np.full((400, 1), 0.05), 0.3 * signs, np.ones(400), 8, 0.1)
    half_width = np.linalg.norm(0.05 * widths)
    # a prior worth 3 of 400 rows, centred on √8, moves the minimum √16 by less than 2 %
    assert half_width == pytest.approx(0.3 * 16.0**0.5, rel=0.02)


def test_one_dimension_known_share_beyond_reach():
    # of equal rows with |r| uniform on a grid: at the optimum the pulls, capped at K = 10, have mean 1
    r = (np.arange(1000) + 0.5) / 1000.0
    s = module.constant_half_width(r**2, np.full(1000, 1e-3), 8, 0.1)
    t2 = (r / s) ** 2
    pulls = np.where(t2 < reach(8, 0.1) ** 2, 7.0 * t2 / (1.0 - np.minimum(t2, 0.9)), 10.0)
    assert np.mean(pulls) == pytest.approx(1.0, rel=1e-6)
    assert s > 1.0  # short tails are covered whole


def test_two_dimensions_widths_of_two_groups_by_hand():
    # orthogonal rows: each axis sees its own residuals only, so the widths are in the ratio of the residuals
    n = 2000
    signs = np.where(np.arange(n) // 2 % 2 == 0, 1.0, -1.0)
    kind = np.arange(n) % 2
    u = np.eye(2)[kind] / np.sqrt(n / 2.0)
    widths = fit_ellipsoid(u, np.where(kind == 0, 1.0, 5.0) * signs, np.ones(n), 2, 0.1)
    s = np.linalg.norm(u[:2] @ widths, axis=1)
    # r² + median² with the lower median 1: 2 and 26; s² = q (r² + median²); the prior is worth 3 rows of 2000
    assert s[0] == pytest.approx((2.0 * 2.0) ** 0.5, rel=0.01)
    assert s[1] == pytest.approx((2.0 * 26.0) ** 0.5, rel=0.01)


def test_the_width_of_heteroscedastic_rows_is_recovered():
    # s = |Mᵀu| with a known M; draws from the ellipsoid itself, whose median is small against its width
    rng = np.random.default_rng(1)
    n, rank = 6000, 4
    u = rng.standard_normal((n, 3)) / np.sqrt(n)
    truth = np.diag([1.0, 4.0, 0.2]) @ rng.standard_normal((3, rank))
    ball = rng.standard_normal((n, rank))
    ball *= rng.random((n, 1)) ** (1.0 / rank) / np.linalg.norm(ball, axis=1, keepdims=True)
    r = np.sum((u @ truth) * ball, axis=1)
    fitted, s = (
        np.linalg.norm(u @ w, axis=1) for w in (fit_ellipsoid(u, r, np.ones(n), rank, 0.1), np.asarray(truth))
    )
    assert np.corrcoef(np.log(fitted), np.log(s))[0, 1] > 0.8
    wide, narrow = s > np.quantile(s, 0.9), s < np.quantile(s, 0.1)
    assert fitted[wide].mean() / fitted[narrow].mean() > 3.0
    assert np.mean(np.abs(r) > fitted) < 0.05


def test_the_error_of_the_fit_is_below_the_starts_and_outside_share_holds():
    x, y = mace_like(1200, 0)
    config = PopsConfig(posterior="ellipsoid")
    fit = fit_pops(array_chunks(x, y), config)
    head, r = fit.head, fit.loo_residual
    u = whitened(head, x)
    widths = np.linalg.solve(head.ridge.whitening, head.axes) @ head.posterior.axes
    weight = np.full(len(y), 1.0 / len(y))
    squared = r**2 + np.median(np.abs(r)) ** 2
    constant, start = module._start(u, squared, weight, 8)
    half = module.constant_half_width(squared, weight, 8, 0.1)
    fitted = generalisation_error(widths, u, squared, weight, 0.1)[0]
    for other in (constant * half, start * half):
        assert fitted < generalisation_error(other, u, squared, weight, 0.1)[0] - 0.05
    p = predict(head, x)
    beyond = np.abs(r) > reach(8, 0.1) * (p.support_upper - p.mean)
    assert np.mean(beyond) <= 0.1  # 1/K


def test_one_wrong_label_does_not_decide_the_size():
    x, y = correlated(500, 4, 5.0, 0, tails=None)
    fit = fit_pops(array_chunks(x, y))
    u, residual = whitened(fit.head, x), fit.loo_residual.copy()
    clean = np.linalg.norm(u @ fit_ellipsoid(u, residual, np.ones(500), 8, 0.1), axis=1)
    for wrong in (1e3, 1e8):  # in units of the noise
        residual[7] = wrong * np.std(fit.loo_residual)
        spoilt = np.linalg.norm(u @ fit_ellipsoid(u, residual, np.ones(500), 8, 0.1), axis=1)
        # 500 rows pull against one row's bounded pull of 10
        assert np.median(spoilt) == pytest.approx(np.median(clean), rel=0.1)


def test_huber_weights_do_not_reach_the_ellipsoid():
    # it deals with outliers itself; weights of large residuals would make wide rows look narrow
    x, y = mace_like(600, 1)
    robust = fit_robust(x, y, config=PopsConfig(posterior="ellipsoid"))
    weights = fit_pops(array_chunks(x, y, robust.weight), PopsConfig(posterior="ellipsoid"))
    assert np.allclose(weights.head.ridge.coefficients, robust.head.ridge.coefficients, rtol=1e-7)
    ours, theirs = predict(robust.head, x).ellipsoid_std, predict(weights.head, x).ellipsoid_std
    assert np.mean(ours) > 1.05 * np.mean(theirs)


def test_order_chunks_and_units_do_not_matter():
    x, y = mace_like(1500, 2)
    order = np.random.default_rng(3).permutation(1500)
    config = PopsConfig(posterior="ellipsoid")
    a = predict(fit_pops(array_chunks(x, y), config).head, x)
    b = predict(fit_pops(array_chunks(x[order], 1e3 * y[order], chunk_rows=97), config).head, x)
    # the search stops at a relative change of 1e-13 of the error, which is flat to the square of the widths
    assert np.allclose(b.ellipsoid_std, 1e3 * a.ellipsoid_std, rtol=1e-4)


def test_more_rows_than_the_limit_give_nearly_the_same(monkeypatch):
    x, y = correlated(8000, 5, 5.0, 4)
    config = PopsConfig(posterior="ellipsoid")
    whole = predict(fit_pops(array_chunks(x, y), config).head, x)
    monkeypatch.setattr("mace_bounds.head.posteriors.ellipsoid._MAX_ROWS", 2000)
    part = predict(fit_pops(array_chunks(x, y, chunk_rows=1000), config).head, x)
    assert np.median(np.abs(part.ellipsoid_std / whole.ellipsoid_std - 1.0)) < 0.15


@pytest.mark.parametrize(
    ("u", "residual"),
    [
        (np.zeros((5, 2)), np.ones(5)),
        (np.ones((5, 2)), np.zeros(5)),
        (np.ones((5, 2)), np.ones(5)),
        (np.ones((1, 1)), np.ones(1)),
        (np.eye(3), np.array([0.0, 0.0, 1e-200])),
        (np.eye(3), np.array([0.0, 1e-9, 1e9])),
        (1e-150 * np.ones((4, 2)), 1e-150 * np.ones(4)),
        (np.vstack([np.ones((50, 1)), [[0.0]]]), np.r_[np.zeros(50), 1.0]),
    ],
)
@pytest.mark.filterwarnings("ignore:the fit of the ellipsoid did not converge")
def test_degenerate_rows_give_finite_widths(u, residual):
    widths = fit_ellipsoid(u, residual, np.ones(len(residual)), 8, 0.1)
    assert np.isfinite(widths).all()
    assert widths.shape == (u.shape[1], 8)
    assert not fit_ellipsoid(u, residual, np.zeros(len(residual)), 8, 0.1).any()


def test_a_search_cut_short_is_told(monkeypatch):
    monkeypatch.setattr(module, "_MAX_STEPS", 1)
    x, y = mace_like(300, 3)
    with pytest.warns(FitWarning, match="the ellipsoid did not converge"):
        fit_pops(array_chunks(x, y), PopsConfig(posterior="ellipsoid"))
