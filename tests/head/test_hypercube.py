import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.head_rows import correlated
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict
from mace_bounds.head.pops_fit import principal_axes
from mace_bounds.head.posteriors.hypercube import Hypercube, StreamingPercentiles


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(st.integers(1, 300), st.integers(2000, 9000)),  # middles are dropped from 2,048 rows on
    st.sampled_from([0.0, 0.1, 0.5, 2.5, 10.0, 33.3, 49.9, 50.0]),
    st.one_of(st.integers(1, 90), st.integers(500, 3000)),
    st.integers(0, 10**6),
)
def test_streamed_percentiles_are_numpys_to_the_last_bit(n, percent, chunk, seed):
    values = np.random.default_rng(seed).standard_t(2.0, (n, 3))
    percentiles = StreamingPercentiles(n, percent, 3)
    for start in range(0, n, chunk):
        percentiles.add(values[start : start + chunk])
    low, high = percentiles.bounds()
    assert np.array_equal(low, np.percentile(values, percent, axis=0))
    assert np.array_equal(high, np.percentile(values, 100.0 - percent, axis=0))


def test_axes_are_eigenvectors_of_the_second_moment():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((200, 4)) * [3.0, 1.0, 0.5, 0.1]
    basis, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    spread = np.array([0.1, 0.5, 2.0, 7.0])
    axes, to_axes, singular = principal_axes(lambda to: [u[:90] @ to, u[90:] @ to], basis, spread)
    corrections = u @ (basis * spread).T
    values, vectors = np.linalg.eigh(corrections.T @ corrections)
    assert np.allclose(u @ to_axes, corrections @ axes, rtol=0, atol=1e-12)
    assert np.allclose(singular**2, values[::-1], rtol=1e-10)
    assert np.allclose(np.abs(np.sum(axes * vectors[:, ::-1], axis=0)), 1.0, atol=1e-10)
    assert (axes[np.argmax(np.abs(axes), axis=0), np.arange(4)] > 0.0).all()


def test_box_of_points_on_a_line():
    # corrections (t, t) for t = -1, 0, 3: one axis (1, 1)/√2 with range [-√2, 3√2], the other empty
    points = np.outer([-1.0, 0.0, 3.0], [1.0, 1.0])
    axes, to_axes, singular = principal_axes(
        lambda to: [points[:2] @ to, points[2:] @ to], np.eye(2), np.ones(2)
    )
    assert np.allclose(axes[:, 0], [0.5**0.5, 0.5**0.5])
    assert singular[0] == pytest.approx(20.0**0.5)
    along = points @ to_axes
    assert np.allclose([along[:, 0].min(), along[:, 0].max()], [-(2.0**0.5), 3.0 * 2.0**0.5])
    assert np.allclose(along[:, 1], 0.0, atol=1e-12)


def test_axes_without_spread_have_no_width():
    # at condition 1e8 some axes fall below the mode threshold
    x, y = correlated(2000, 30, 1e8, 1)
    box = fit_pops(array_chunks(x, y), PopsConfig(clip_percent=0.0)).head.posterior
    assert 0 < np.count_nonzero(box.upper) < len(box.upper)
    whole = fit_pops(array_chunks(x, y), PopsConfig(clip_percent=0.0, mode_threshold=1e-300))
    assert np.count_nonzero(whole.head.posterior.upper) == len(box.upper)
    p = predict(whole.head, x)
    slack = 1e-9 * np.abs(y)
    assert ((p.support_lower - slack <= y) & (y <= p.support_upper + slack))[whole.selected].all()


def test_a_box_by_hand():
    box = Hypercube(np.array([-1.0, 0.0]), np.array([3.0, 6.0]))
    lower, upper = box.support(np.array([[1.0, -1.0]]))
    assert (lower[0], upper[0]) == (-7.0, 3.0)
    # uniform on [-1, 3] minus uniform on [0, 6]: mean -2, variance 16/12 + 36/12
    assert box.std(np.array([[1.0, -1.0]]))[0] == pytest.approx((4.0 + 52.0 / 12.0) ** 0.5)
