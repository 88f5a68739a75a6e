import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.head_rows import correlated, mace_like
from helpers.posterior_draws import with_posterior
from mace_bounds.errors import HeadError
from mace_bounds.head import PopsConfig, TsqrFactor, array_chunks, factorise, fit_pops, predict

QUANTITIES = (
    "mean",
    "epistemic_std",
    "misspecification_std",
    "support_lower",
    "support_upper",
    "leverage",
)


def assert_same_predictions(a, b, tolerance=1e-9, scale=1.0):
    """Equal within ``tolerance`` of the largest value (for widths: of each width)."""
    for name in QUANTITIES:
        one, two = getattr(a, name) * (1.0 if name == "leverage" else scale), getattr(b, name)
        assert np.abs(one - two).max() <= tolerance * np.abs(two).max(), name
    one, two = (a.support_upper - a.support_lower) * scale, b.support_upper - b.support_lower
    assert np.abs(one / two - 1.0).max() <= tolerance


def dense(x, y, weight, config):
    """The fit of POPS written down with inverses and explicit corrections: another way to the same numbers."""
    w = weight / weight[weight > 0].mean()
    mean = np.average(x, axis=0, weights=w)
    std = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
    z = np.column_stack([(x - mean) / std, np.ones(len(x))])
    head = fit_pops(array_chunks(x, y, weight), config).head  # only its α and λ are used below
    a = np.linalg.inv(z.T @ (w[:, None] * z) + head.ridge.lambda_ / head.ridge.alpha * np.eye(z.shape[1]))
    theta = a @ z.T @ (w * y)
    gain = np.einsum("ij,jk,ik->i", z, a, z)
    return z, a, theta, gain, w, head


def test_agrees_with_the_formulas_written_with_inverses():
    x, y = correlated(301, 5, 10.0, 0)
    x += 3.0
    weight = np.random.default_rng(1).gamma(3.0, size=301)
    weight[5] = 0.0
    config = PopsConfig(clip_percent=1.0, also=("ensemble",))
    z, a, theta, gain, w, head = dense(x, y, weight, config)
    fit = fit_pops(array_chunks(x, y, weight, 64), config)
    error = y - z @ theta
    h = w * gain
    assert np.allclose(fit.head.ridge.coefficients, theta, rtol=0, atol=1e-10 * np.abs(theta).max())
    assert np.allclose(fit.residual, error, rtol=0, atol=1e-11)
    assert np.allclose(fit.leverage, h, rtol=1e-10, atol=0)
    selected = (w > 0) & (h >= np.percentile(h[w > 0], 50.0))
    assert np.array_equal(fit.selected, selected)
    assert (fit.head.ridge.n_rows, fit.head.n_selected) == (300, selected.sum())
    corrections = ((error / gain)[:, None] * (z @ a))[selected]
    _, vectors = np.linalg.eigh(corrections.T @ corrections)
    along = corrections @ vectors
    low, high = np.percentile(along, [1.0, 99.0], axis=0)
    p = predict(fit.head, x)
    half, middle = np.abs(z @ vectors) @ (high - low) / 2, z @ vectors @ (high + low) / 2
    assert np.allclose(p.support_upper, z @ theta + middle + half, rtol=1e-9, atol=1e-11)
    assert np.allclose(p.support_lower, z @ theta + middle - half, rtol=1e-9, atol=1e-11)
    ensemble = predict(with_posterior(fit.head, "ensemble"), x)
    rms = np.sqrt(np.mean((z @ corrections.T) ** 2, axis=1))
    assert np.allclose(ensemble.misspecification_std, rms, rtol=1e-9)
    assert np.allclose(p.epistemic_std, np.sqrt(gain / head.ridge.alpha), rtol=1e-9)
    assert np.allclose(p.leverage, gain, rtol=1e-9)


def test_loo_residuals_are_those_of_fits_without_the_row():
    x, y = correlated(40, 4, 5.0, 2)
    weight = np.random.default_rng(3).gamma(3.0, size=40)
    z, _, _, _, w, head = dense(x, y, weight, PopsConfig())
    fit = fit_pops(array_chunks(x, y, weight))
    ridge = head.ridge.lambda_ / head.ridge.alpha * np.eye(5)
    for i in (0, 7, 39):
        rest = np.arange(40) != i
        zi, wi = z[rest], w[rest]
        theta = np.linalg.solve(zi.T @ (wi[:, None] * zi) + ridge, zi.T @ (wi * y[rest]))
        assert fit.loo_residual[i] == pytest.approx(y[i] - z[i] @ theta, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 400))
def test_order_and_chunk_size_do_not_matter(seed, chunk):
    x, y = correlated(301, 6, 100.0, seed)
    order = np.random.default_rng(seed + 1).permutation(301)
    a = fit_pops(array_chunks(x, y))
    b = fit_pops(array_chunks(x[order], y[order], chunk_rows=chunk))
    assert np.array_equal(a.selected[order], b.selected)
    assert np.abs(a.head.ridge.coefficients / b.head.ridge.coefficients - 1.0).max() <= 1e-9
    assert np.allclose(a.loo_residual[order], b.loo_residual, rtol=1e-9, atol=1e-12)
    assert_same_predictions(predict(a.head, x), predict(b.head, x))


def test_order_and_chunk_size_do_not_matter_for_mace_like_rows():
    x, y = mace_like(3000, 4)
    order = np.random.default_rng(5).permutation(3000)
    a = fit_pops(array_chunks(x, y))
    b = fit_pops(array_chunks(x[order], y[order], chunk_rows=171))
    assert np.array_equal(a.selected[order], b.selected)
    assert_same_predictions(predict(a.head, x), predict(b.head, x))


def test_two_runs_give_the_same_bytes():
    x, y = mace_like(2000, 6)
    a, b = (fit_pops(array_chunks(x, y, chunk_rows=300)).head.to_tensors() for _ in range(2))
    assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_workers_factors_merge_into_the_same_fit():
    x, y = mace_like(1000, 7)
    merged = TsqrFactor(x.shape[1])
    for part in np.array_split(np.arange(1000), 3):
        merged.merge(factorise(array_chunks(x[part], y[part])))
    a = fit_pops(array_chunks(x, y))
    b = fit_pops(array_chunks(x, y), factor=merged)
    assert_same_predictions(predict(a.head, x), predict(b.head, x))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.floats(-4.0, 4.0), min_size=5, max_size=5), st.floats(-4.0, 4.0))
def test_column_scale_is_irrelevant_and_y_scale_carries_through(seed, exponents, exponent):
    x, y = correlated(200, 5, 20.0, seed)
    factors, unit = 10.0 ** np.array(exponents), 10.0**exponent
    shifts = factors * 0.5
    a = fit_pops(array_chunks(x, y)).head
    b = fit_pops(array_chunks(x * factors + shifts, y * unit)).head
    assert_same_predictions(predict(a, x), predict(b, x * factors + shifts), tolerance=1e-8, scale=unit)


def test_weights_are_relative_and_zero_weights_drop_rows():
    x, y = correlated(200, 4, 10.0, 8)
    w = np.random.default_rng(9).gamma(2.0, size=200)
    w[50:] = 0.0
    a = fit_pops(array_chunks(x, y, w))
    b = fit_pops(array_chunks(x[:50], y[:50], 7.0 * w[:50]))
    assert_same_predictions(predict(a.head, x), predict(b.head, x))
    assert not a.selected[50:].any()
    assert np.array_equal(a.loo_residual[50:], a.residual[50:])
    assert a.weight[:50].mean() == pytest.approx(1.0)


def test_duplicate_rows_at_the_threshold_are_selected_together():
    x, y = correlated(30, 3, 5.0, 10)
    x, y = np.repeat(x, 3, axis=0), np.repeat(y, 3)
    for chunk in (1, 7, 90):
        selected = fit_pops(array_chunks(x, y, chunk_rows=chunk)).selected.reshape(30, 3)
        assert np.array_equal(selected.any(axis=1), selected.all(axis=1))


DEGENERATE = {
    "fewer rows than columns": correlated(7, 20, 10.0, 0),
    "two rows": correlated(2, 3, 1.0, 1),
    "perfect fit": (np.arange(12.0).reshape(6, 2) ** 1.5, np.arange(12.0).reshape(6, 2) ** 1.5 @ [1.0, -2.0]),
    "constant y": (correlated(50, 4, 10.0, 2)[0], np.full(50, 3.0)),
    "zero y": (correlated(50, 4, 10.0, 3)[0], np.zeros(50)),
    "constant columns": (np.ones((20, 3)), np.linspace(0.0, 1.0, 20)),
    "zero columns": (np.zeros((20, 3)), np.linspace(-1.0, 1.0, 20)),
    "identical rows": (np.tile([1.0, 2.0], (9, 1)), np.arange(9.0)),
    "copied column": (np.repeat(correlated(60, 1, 1.0, 4)[0], 3, axis=1), correlated(60, 1, 1.0, 4)[1]),
    "tiny": (1e-150 * correlated(60, 3, 1.0, 5)[0], 1e-100 * correlated(60, 3, 1.0, 5)[1]),
    "huge": (1e100 * correlated(60, 3, 1.0, 5)[0], 1e100 * correlated(60, 3, 1.0, 5)[1]),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("posterior", ["hypercube", "ensemble", "ellipsoid"])
def test_degenerate_rows_give_finite_numbers(name, posterior):
    x, y = DEGENERATE[name]
    fit = fit_pops(array_chunks(x, y), PopsConfig(posterior=posterior))
    p = predict(fit.head, x)
    for field in QUANTITIES:
        assert np.isfinite(getattr(p, field)).all(), field
    assert np.isfinite(fit.loo_residual).all()
    assert ((fit.leverage >= 0.0) & (fit.leverage <= 1.0)).all()
    assert (p.support_lower <= p.support_upper).all()


def test_zero_residuals_predict_zero():
    x, y = DEGENERATE["zero y"]
    p = predict(fit_pops(array_chunks(x, y)).head, x)
    assert not p.mean.any()
    assert not p.support_upper.any()
    assert not p.misspecification_std.any()


@pytest.mark.parametrize(
    ("x", "y", "weight", "message"),
    [
        (np.zeros((1, 2)), np.zeros(1), None, "at least 2 rows"),
        (np.ones((3, 2)), np.zeros(3), np.zeros(3), "at least 2 rows"),
        (np.zeros((0, 2)), np.zeros(0), None, "no rows"),
        (np.array([[0.0], [np.nan]]), np.zeros(2), None, "row 1 holds NaN"),
        (np.ones((2, 1)), np.array([np.inf, 0.0]), None, "row 0 holds NaN"),
        (np.ones((2, 1)), np.zeros(2), np.array([1.0, -1.0]), "row 1 .* negative weight"),
        (np.ones((2, 1)), np.zeros(3), None, "align the rows"),
    ],
)
def test_unusable_rows_are_refused_in_one_sentence(x, y, weight, message):
    with pytest.raises(HeadError, match=message) as caught:
        fit_pops(array_chunks(x, y, weight))
    assert "\n" not in str(caught.value)


def test_an_iterator_that_is_spent_is_refused():
    x, y = correlated(20, 2, 1.0, 0)
    spent = iter([(x, y, None)])
    with pytest.raises(HeadError, match="re-iterable"):
        fit_pops(lambda: spent)


def test_settings_outside_their_range_are_refused():
    for bad in (
        {"leverage_percentile": 100.0},
        {"clip_percent": 51.0},
        {"posterior": "ball"},
        {"also": ("ball",)},
        {"ellipsoid_rank": 1},
        {"ellipsoid_outside_percent": 0.0},
        {"max_iter": 0},
    ):
        with pytest.raises(HeadError, match="ball" if "ball" in str(bad) else next(iter(bad))):
            PopsConfig(**bad)
