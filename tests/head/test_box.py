import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.head._posterior import Tails, fit_box, principal_axes


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 300),
    st.sampled_from([0.0, 0.1, 0.5, 2.5, 10.0, 33.3, 49.9, 50.0]),
    st.integers(1, 90),
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
    box = fit_box(lambda: [points[:2], points[2:]], 3, np.eye(2), np.ones(2), 1e-8, 0.0)
    assert box.retained.tolist() == [True, False]
    assert np.allclose(box.axes[:, 0], [0.5**0.5, 0.5**0.5])
    assert box.lower[0] == pytest.approx(-(2.0**0.5))
    assert box.upper[0] == pytest.approx(3.0 * 2.0**0.5)
    assert box.rms[0] == pytest.approx((20.0 / 3.0) ** 0.5)
    assert (box.lower[1], box.upper[1]) == (0.0, 0.0)
    assert np.allclose([box.envelope_lower[1], box.envelope_upper[1]], 0.0, atol=1e-12)
