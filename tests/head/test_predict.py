import dataclasses

import numpy as np
import pytest

from helpers.head_rows import correlated, mace_like
from helpers.posterior_draws import draw, whitened, with_posterior
from mace_bounds.errors import HeadError
from mace_bounds.head import Design, PopsConfig, PopsHead, Ridge, array_chunks, fit_pops, predict
from mace_bounds.head.posteriors import Ellipsoid, Ensemble, Hypercube


@pytest.fixture(scope="module")
def head():
    return fit_pops(
        array_chunks(*correlated(500, 4, 5.0, 0)), PopsConfig(also=("ellipsoid", "ensemble"))
    ).head


def chosen(posterior):
    """A head whose posterior is this one."""
    return fit_pops(array_chunks(*correlated(500, 4, 5.0, 0)), PopsConfig(posterior=posterior)).head


def test_mean_is_linear_in_the_raw_columns(head):
    x, _ = correlated(50, 4, 5.0, 1)
    design = np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(design, predict(head, x).mean)[0]
    assert np.allclose(predict(head, x + 1.0).mean, design @ weights + weights[:-1].sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("posterior", "share"),
    # an ellipsoid of rank 8 holds 1e-4 of its mass beyond 0.8 of its reach, a box of 5 sides fewer near its corners
    [
        ("hypercube", 0.8),
        ("ellipsoid", 0.9),
        ("ensemble", 1.0),
    ],
)
def test_closed_form_agrees_with_samples(posterior, share):
    head = chosen(posterior)
    x, _ = correlated(20, 4, 5.0, 1)
    draws = head.ridge.coefficients + draw(head.posterior, 400_000, seed=3) @ head.axes.T
    values = head.design.transform(x) @ draws.T
    p = predict(head, x)
    rms = np.sqrt(np.mean((values - p.mean[:, None]) ** 2, axis=1))
    assert np.allclose(rms, p.misspecification_std, rtol=0.01)
    slack = 1e-12 * np.abs(values).max()
    assert (values.min(axis=1) >= p.support_lower - slack).all()
    assert (values.max(axis=1) <= p.support_upper + slack).all()
    reached = (values.max(axis=1) - values.min(axis=1)) / (p.support_upper - p.support_lower)
    assert (reached >= share - 1e-9).all()


def test_a_posterior_beside_another_is_the_one_that_is_fitted_alone(head):
    x, _ = correlated(20, 4, 5.0, 1)
    p, ellipsoid, ensemble = predict(head, x), predict(chosen("ellipsoid"), x), predict(chosen("ensemble"), x)
    for name, alone in (("ellipsoid", ellipsoid), ("ensemble", ensemble)):
        beside = predict(with_posterior(head, name), x)
        for field in ("mean", "misspecification_std", "support_lower", "support_upper"):
            assert np.array_equal(getattr(beside, field), getattr(alone, field))
    assert np.array_equal(ellipsoid.misspecification_std, p.ellipsoid_std)
    reach = (ellipsoid.support_upper - ellipsoid.support_lower) / ellipsoid.misspecification_std
    assert np.allclose(reach, 2.0 * 10.0**0.5, rtol=1e-12)  # a disc of rank 8
    assert np.isnan(ensemble.ellipsoid_std).all()


def test_whitened_coordinates_by_hand_and_ellipsoid_width_from_them():
    x, _ = correlated(20, 4, 5.0, 1)
    head = chosen("ellipsoid")
    u, p = whitened(head, x), predict(head, x)
    assert np.allclose(np.sum(u * u, axis=1), p.leverage, rtol=1e-12)
    z = head.design.transform(x)
    assert np.allclose(u @ u.T, head.ridge.alpha * z @ head.ridge.covariance @ z.T)
    # decreasing variance of the training rows: later coordinates are shrunk more
    rows = whitened(head, correlated(500, 4, 5.0, 0)[0])
    variance = np.sum(rows * rows, axis=0)
    assert (np.diff(variance) <= 1e-12).all()
    # the half-width is a quadratic form in u, whatever the axes of the box
    widths = np.linalg.solve(head.ridge.whitening, head.axes) @ head.posterior.axes
    assert np.allclose(p.support_upper - p.mean, np.linalg.norm(u @ widths, axis=1), rtol=1e-9)


def test_support_contains_the_mean_when_the_box_contains_zero(head):
    assert (head.posterior.lower <= 0.0).all()
    assert (head.posterior.upper >= 0.0).all()
    p = predict(head, correlated(1000, 4, 5.0, 2)[0])
    assert ((p.support_lower <= p.mean) & (p.mean <= p.support_upper)).all()


def test_a_corner_of_the_box_by_hand():
    two = PopsHead(
        config=PopsConfig(also=("ensemble", "ellipsoid")),
        design=Design(
            np.ones(2, bool), np.zeros(2, bool), np.zeros(2), np.zeros(2), np.ones(2), intercept=False
        ),
        ridge=Ridge(np.array([1.0, 2.0]), np.diag([0.5, 0.1]), 4.0, 1.0, 2.0, 9, 3, True),
        axes=np.eye(2),
        posteriors={
            "hypercube": Hypercube(np.array([-1.0, 0.0]), np.array([2.0, 6.0])),
            "ensemble": Ensemble(np.array([3.0, 4.0]), np.array([[3.0, 4.0], [-1.0, 0.0]])),
            "ellipsoid": Ellipsoid(np.array([[3.0, 0.0], [0.0, 4.0]])),
        },
        n_selected=9,
    )
    x = np.array([[1.0, -1.0]])
    p, ensemble, ellipsoid = (predict(with_posterior(two, name), x) for name in two.posteriors)
    assert p.mean[0] == -1.0
    assert (p.support_lower[0], p.support_upper[0]) == (-8.0, 1.0)
    assert (ellipsoid.support_lower[0], ellipsoid.support_upper[0], p.ellipsoid_std[0]) == (-6.0, 4.0, 2.5)
    assert (ensemble.support_lower[0], ensemble.support_upper[0]) == (-2.0, -2.0)
    assert p.leverage[0] == pytest.approx(0.26)
    assert p.epistemic_std[0] == pytest.approx(0.26**0.5 / 2.0)
    assert ensemble.misspecification_std[0] == 5.0
    # uniform on [-1, 2] minus uniform on [0, 6]: mean -2.5, variance 9/12 + 36/12
    assert p.misspecification_std[0] == pytest.approx((2.5**2 + 3.75) ** 0.5)


def test_unseen_columns_are_counted():
    x, y = mace_like(400, 0)  # the last two element columns are zero in every row
    head = fit_pops(array_chunks(x, y)).head
    assert head.design.constant.sum() == 2
    assert head.design.active.sum() == x.shape[1] - 2
    new = x[:3].copy()
    new[1, -1], new[2, -2:] = 0.5, 0.25
    assert predict(head, x).unseen_columns.sum() == 0
    assert predict(head, new).unseen_columns.tolist() == [0, 1, 2]


def test_chunks_inside_do_not_show(monkeypatch, head):
    x, _ = correlated(100, 4, 5.0, 5)
    whole = predict(head, x)
    monkeypatch.setattr("mace_bounds.head.pops_head._CHUNK_ROWS", 7)
    parts = predict(head, x)
    for field in dataclasses.fields(whole):
        assert np.allclose(getattr(whole, field.name), getattr(parts, field.name), rtol=1e-12, atol=1e-15)


def test_no_rows_give_empty_arrays(head):
    assert predict(head, np.zeros((0, 4))).mean.shape == (0,)


@pytest.mark.parametrize(
    ("x", "message"), [(np.zeros((2, 3)), "takes features of shape"), ([[0.0, 0.0, np.nan, 0.0]], "row 0")]
)
def test_unusable_features_are_refused(head, x, message):
    with pytest.raises(HeadError, match=message):
        predict(head, x)
