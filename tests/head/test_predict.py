import dataclasses

import numpy as np
import pytest
from head_rows import correlated, mace_like

from mace_bounds.errors import HeadError
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict, sample_coefficients


@pytest.fixture(scope="module")
def head():
    return fit_pops(array_chunks(*correlated(500, 4, 5.0, 0))).head


def test_mean_is_linear_in_the_raw_columns(head):
    x, _ = correlated(50, 4, 5.0, 1)
    weights, intercept = head.raw_coefficients
    assert np.allclose(predict(head, x).mean, x @ weights + intercept, rtol=1e-11)


def test_closed_form_agrees_with_samples(head):
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
    assert (reached > 0.8).all()


def test_ensemble_draws_have_the_second_moment_of_the_corrections(head):
    ensemble = dataclasses.replace(head, config=dataclasses.replace(head.config, posterior="ensemble"))
    x, _ = correlated(20, 4, 5.0, 1)
    values = head.design.transform(x) @ (sample_coefficients(ensemble, 400_000, 4) - head.coefficients).T
    assert np.allclose(np.sqrt(np.mean(values**2, axis=1)), predict(ensemble, x).ensemble_std, rtol=0.01)


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
    )
    p = predict(two, np.array([[1.0, -1.0]]))
    assert p.mean[0] == -1.0
    assert (p.support_lower[0], p.support_upper[0]) == (-8.0, 1.0)
    assert (p.envelope_lower[0], p.envelope_upper[0]) == (-21.0, 19.0)
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
    monkeypatch.setattr("mace_bounds.head._predict._CHUNK_ROWS", 7)
    parts = predict(head, x)
    for field in dataclasses.fields(whole):
        assert np.allclose(getattr(whole, field.name), getattr(parts, field.name), rtol=1e-12, atol=1e-15)


def test_no_rows_give_empty_arrays(head):
    assert predict(head, np.zeros((0, 4))).mean.shape == (0,)


@pytest.mark.parametrize(
    ("x", "message"), [(np.zeros((2, 3)), "expected features"), ([[0.0, 0.0, np.nan, 0.0]], "row 0")]
)
def test_unusable_features_are_refused(head, x, message):
    with pytest.raises(HeadError, match=message):
        predict(head, x)
