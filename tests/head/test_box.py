import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.head_rows import correlated
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict
from mace_bounds.head.posteriors.box import Box, fit_axes, principal_axes
from mace_bounds.head.posteriors.tails import Tails


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(st.integers(1, 300), st.integers(2000, 9000)),  # middles are dropped from 2,048 rows on
    st.sampled_from([0.0, 0.1, 0.5, 2.5, 10.0, 33.3, 49.9, 50.0]),
    st.one_of(st.integers(1, 90), st.integers(500, 3000)),
    st.integers(0, 10**6),
)
def test_streamed_percentiles_are_numpys_to_the_last_bit(n, percent, chunk, seed):
    values = np.random.default_rng(seed).standard_t(2.0, (n, 3))
    tails = Tails(n, percent, 3)
    for start in range(0, n, chunk):
        tails.add(values[start : start + chunk])
    low, high = tails.bounds()
    assert np.array_equal(low, np.percentile(values, percent, axis=0))
    assert np.array_equal(high, np.percentile(values, 100.0 - percent, axis=0))
    smallest, largest = tails.extremes()
    assert np.array_equal(smallest, values.min(axis=0))
    assert np.array_equal(largest, values.max(axis=0))


def test_axes_are_eigenvectors_of_the_second_moment():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((200, 4)) * [3.0, 1.0, 0.5, 0.1]
    basis, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    spread = np.array([0.1, 0.5, 2.0, 7.0])
    rotation, singular = principal_axes(np.linalg.qr(u, mode="r"), basis, spread)
    corrections = u @ (basis * spread).T
    values, vectors = np.linalg.eigh(corrections.T @ corrections)
    axes = basis @ rotation
    assert np.allclose(singular**2, values[::-1], rtol=1e-10)
    assert np.allclose(np.abs(np.sum(axes * vectors[:, ::-1], axis=0)), 1.0, atol=1e-10)
    assert (axes[np.argmax(np.abs(axes), axis=0), np.arange(4)] > 0.0).all()


def test_box_of_points_on_a_line():
    # corrections (t, t) for t = -1, 0, 3: one axis (1, 1)/√2 with range [-√2, 3√2], the other empty
    points = np.outer([-1.0, 0.0, 3.0], [1.0, 1.0])
    for whitened in (False, True):  # the same where the whitening is the identity
        found = fit_axes(
            lambda to: [points[:2] @ to, points[2:] @ to],
            3,
            np.eye(2),
            np.ones(2),
            1e-8,
            0.0,
            whitened=whitened,
        )
        assert np.allclose(found.axes[:, 0], [0.5**0.5, 0.5**0.5])
        assert found.clipped.lower[0] == pytest.approx(-(2.0**0.5))
        assert found.clipped.upper[0] == pytest.approx(3.0 * 2.0**0.5)
        assert found.rms[0] == pytest.approx((20.0 / 3.0) ** 0.5)
        assert (found.clipped.lower[1], found.clipped.upper[1]) == (0.0, 0.0)
        assert np.allclose([found.envelope.lower[1], found.envelope.upper[1]], 0.0, atol=1e-12)


def test_whitened_box_against_corrections_written_with_inverses():
    x, y = correlated(301, 5, 30.0, 0)
    fit = fit_pops(array_chunks(x, y, chunk_rows=64), PopsConfig(basis="whitened", clip_percent=1.0))
    z = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(301)])
    a = np.linalg.inv(z.T @ z + fit.head.lambda_ / fit.head.alpha * np.eye(6))  # α and λ only are the head's
    theta = a @ z.T @ y
    # another square root of A than the head's: box and widths may not depend on which
    root = np.linalg.cholesky(a)
    u = z @ root
    corrections = ((y - z @ theta) / np.sum(u * u, axis=1))[:, None] * u
    corrections = corrections[np.sum(u * u, axis=1) >= np.percentile(np.sum(u * u, axis=1), 50.0)]
    _, vectors = np.linalg.eigh(corrections.T @ corrections)
    low, high = np.percentile(corrections @ vectors, [1.0, 99.0], axis=0)
    along = u @ vectors
    p = predict(fit.head, x)
    half, middle = np.abs(along) @ (high - low) / 2, along @ (high + low) / 2
    assert np.allclose(p.support_upper, z @ theta + middle + half, rtol=1e-8, atol=1e-10)
    assert np.allclose(p.support_lower, z @ theta + middle - half, rtol=1e-8, atol=1e-10)
    std = np.sqrt(along**2 @ ((high - low) ** 2 / 12.0) + middle**2)
    assert np.allclose(p.misspecification_std, std, rtol=1e-8)
    assert np.allclose(p.ensemble_std, np.sqrt(np.mean((u @ corrections.T) ** 2, axis=1)), rtol=1e-8)
    raw = predict(fit_pops(array_chunks(x, y), PopsConfig(clip_percent=1.0)).head, x)
    assert np.allclose(raw.ensemble_std, p.ensemble_std, rtol=1e-9)  # a second moment has no basis
    assert not np.allclose(raw.support_upper, p.support_upper, rtol=1e-2)


def test_a_box_by_hand():
    box = Box(np.array([-1.0, 0.0]), np.array([3.0, 6.0]))
    lower, upper = box.support(np.array([[1.0, -1.0]]))
    assert (lower[0], upper[0]) == (-7.0, 3.0)
    # uniform on [-1, 3] minus uniform on [0, 6]: mean -2, variance 16/12 + 36/12
    assert box.std(np.array([[1.0, -1.0]]))[0] == pytest.approx((4.0 + 52.0 / 12.0) ** 0.5)
