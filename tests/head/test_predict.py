import dataclasses

import numpy as np
import pytest

from helpers.head_rows import correlated, mace_like
from mace_bounds.errors import HeadError
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict, sample_coefficients, whitened


@pytest.fixture(scope="module")
def head():
    return fit_pops(array_chunks(*correlated(500, 4, 5.0, 0)), PopsConfig(ellipsoid=True)).head


def chosen(posterior, basis="raw"):
    """A head whose posterior is this one."""
    rows = array_chunks(*correlated(500, 4, 5.0, 0))
    return fit_pops(rows, PopsConfig(posterior=posterior, basis=basis)).head


def test_mean_is_linear_in_the_raw_columns(head):
    x, _ = correlated(50, 4, 5.0, 1)
    weights, intercept = head.raw_coefficients
    assert np.allclose(predict(head, x).mean, x @ weights + intercept, rtol=1e-11)


@pytest.mark.parametrize(
    ("posterior", "basis", "share"),
    # an ellipsoid of rank 8 holds 1e-4 of its mass beyond 0.8 of its reach, a box of 5 sides fewer near its corners
    [
        ("hypercube", "raw", 0.8),
        ("hypercube", "whitened", 0.8),
        ("ellipsoid", "raw", 0.9),
        ("ensemble", "raw", 1.0),
    ],
)
def test_closed_form_agrees_with_samples(posterior, basis, share):
    head = chosen(posterior, basis)
    x, _ = correlated(20, 4, 5.0, 1)
    draws = sample_coefficients(head, 400_000, seed=3)
    values = head.design.transform(x) @ draws.T
    p = predict(head, x)
    rms = np.sqrt(np.mean((values - p.mean[:, None]) ** 2, axis=1))
    assert np.allclose(rms, p.misspecification_std, rtol=0.01)
    slack = 1e-12 * np.abs(values).max()
    assert (values.min(axis=1) >= p.support_lower - slack).all()
    assert (values.max(axis=1) <= p.support_upper + slack).all()
    reached = (values.max(axis=1) - values.min(axis=1)) / (p.support_upper - p.support_lower)
    assert (reached >= share - 1e-9).all()


def test_support_and_std_are_those_of_the_posterior(head):
    x, _ = correlated(20, 4, 5.0, 1)
    p, ellipsoid, ensemble = (predict(h, x) for h in (head, chosen("ellipsoid"), chosen("ensemble")))
    assert np.array_equal(ellipsoid.support_upper, p.ellipsoid_upper)
    assert np.array_equal(ellipsoid.support_lower, p.ellipsoid_lower)
    assert np.array_equal(ellipsoid.misspecification_std, p.ellipsoid_std)
    assert np.allclose((p.ellipsoid_upper - p.ellipsoid_lower) / p.ellipsoid_std, 2.0 * 10.0**0.5, rtol=1e-12)
    assert np.array_equal(ensemble.misspecification_std, p.ensemble_std)
    assert np.isnan(ensemble.ellipsoid_std).all()
    assert np.isnan(ensemble.ellipsoid_lower).all()


def test_a_posterior_that_was_not_fitted_is_refused(head):
    wanted = dataclasses.replace(head, config=PopsConfig(posterior="ensemble"))
    with pytest.raises(HeadError, match="'ensemble'; fit it again"):
        predict(wanted, np.zeros((1, 4)))


@pytest.mark.parametrize("basis", ["raw", "whitened"])
def test_whitened_coordinates_by_hand_and_ellipsoid_width_from_them(basis):
    x, _ = correlated(20, 4, 5.0, 1)
    head = chosen("ellipsoid", basis)
    u, p = whitened(head, x), predict(head, x)
    assert np.allclose(np.sum(u * u, axis=1), p.leverage, rtol=1e-12)
    assert np.allclose(
        u @ u.T, head.alpha * head.design.transform(x) @ head.covariance @ head.design.transform(x).T
    )
    # decreasing variance of the training rows: later coordinates are shrunk more
    rows = whitened(head, correlated(500, 4, 5.0, 0)[0])
    variance = np.sum(rows * rows, axis=0)
    assert (np.diff(variance) <= 1e-12).all()
    # the half-width is a quadratic form in u, whatever the axes of the box
    widths = np.linalg.solve(head.whitening, head.axes) @ head.ellipsoid_axes
    assert np.allclose(p.ellipsoid_upper - p.mean, np.linalg.norm(u @ widths, axis=1), rtol=1e-9)


def test_draws_depend_on_the_seed_only(head):
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    a = sample_coefficients(head, 5, 7)
    assert np.array_equal(a, sample_coefficients(head, 5, 7))
    assert not np.array_equal(a, sample_coefficients(head, 5, 8))
    assert sample_coefficients(head, 0, 7).shape == (0, 5)


def test_support_contains_the_mean_when_the_box_contains_zero(head):
    assert (head.lower <= 0.0).all()
    assert (head.upper >= 0.0).all()
    p = predict(head, correlated(1000, 4, 5.0, 2)[0])
    assert ((p.support_lower <= p.mean) & (p.mean <= p.support_upper)).all()
    assert ((p.envelope_lower <= p.support_lower) & (p.support_upper <= p.envelope_upper)).all()


def test_a_corner_of_the_box_by_hand(head):
    two = dataclasses.replace(
        head,
        config=PopsConfig(fit_intercept=False, standardize=False),
        active=np.ones(2, bool),
        constant=np.zeros(2, bool),
        reference=np.zeros(2),
        center=np.zeros(2),
        scale=np.ones(2),
        coefficients=np.array([1.0, 2.0]),
        whitening=np.diag([0.5, 0.1]),
        axes=np.eye(2),
        rms=np.array([3.0, 4.0]),
        lower=np.array([-1.0, 0.0]),
        upper=np.array([2.0, 6.0]),
        envelope_lower=np.array([-10.0, -10.0]),
        envelope_upper=np.array([10.0, 10.0]),
        alpha=4.0,
        ellipsoid_axes=np.array([[3.0, 0.0], [0.0, 4.0]]),
    )
    p = predict(two, np.array([[1.0, -1.0]]))
    assert p.mean[0] == -1.0
    assert (p.support_lower[0], p.support_upper[0]) == (-8.0, 1.0)
    assert (p.envelope_lower[0], p.envelope_upper[0]) == (-21.0, 19.0)
    assert (p.ellipsoid_lower[0], p.ellipsoid_upper[0], p.ellipsoid_std[0]) == (-6.0, 4.0, 2.5)
    assert p.leverage[0] == pytest.approx(0.26)
    assert p.epistemic_std[0] == pytest.approx(0.26**0.5 / 2.0)
    assert p.ensemble_std[0] == 5.0
    # uniform on [-1, 2] minus uniform on [0, 6]: mean -2.5, variance 9/12 + 36/12
    assert p.misspecification_std[0] == pytest.approx((2.5**2 + 3.75) ** 0.5)


def test_unseen_columns_are_counted():
    x, y = mace_like(400, 0)  # the last two element columns are zero in every row
    head = fit_pops(array_chunks(x, y)).head
    assert head.constant.sum() == 2
    assert head.active.sum() == x.shape[1] - 2
    new = x[:3].copy()
    new[1, -1], new[2, -2:] = 0.5, 0.25
    assert predict(head, x).unseen_columns.sum() == 0
    assert predict(head, new).unseen_columns.tolist() == [0, 1, 2]


def test_chunks_inside_do_not_show(monkeypatch, head):
    x, _ = correlated(100, 4, 5.0, 5)
    whole = predict(head, x)
    monkeypatch.setattr("mace_bounds.head.prediction._CHUNK_ROWS", 7)
    parts = predict(head, x)
    for field in dataclasses.fields(whole):
        assert np.allclose(getattr(whole, field.name), getattr(parts, field.name), rtol=1e-12, atol=1e-15)


def test_no_rows_give_empty_arrays(head):
    assert predict(head, np.zeros((0, 4))).mean.shape == (0,)
    assert whitened(head, np.zeros((0, 4))).shape == (0, 5)


@pytest.mark.parametrize(
    ("x", "message"), [(np.zeros((2, 3)), "expected features"), ([[0.0, 0.0, np.nan, 0.0]], "row 0")]
)
def test_unusable_features_are_refused(head, x, message):
    for use in (predict, whitened):
        with pytest.raises(HeadError, match=message):
            use(head, x)
