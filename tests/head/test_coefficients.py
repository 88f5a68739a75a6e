"""Draws of coefficients beside their closed forms."""

import numpy as np
import pytest

from mace_bounds.head import Coefficients, PopsConfig, array_chunks, fit_pops
from mace_bounds.head.posteriors import POSTERIORS

NAMES = tuple(POSTERIORS)


@pytest.fixture(scope="module")
def head():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5)) * np.array([1.0, 3.0, 0.1, 1.0, 2.0])
    y = np.tanh(x[:, 0]) + 0.2 * x[:, 1] + 0.3 * np.sin(x[:, 3])
    config = PopsConfig(clip_percent=0.0, also=tuple(NAMES[1:]), fit_intercept=False)
    return fit_pops(array_chunks(x, y), config).head


def coefficients(head, name, stretch=1.0):
    axes = head.axes / head.design.scale[:, None]
    mean = head.ridge.coefficients / head.design.scale
    return Coefficients(mean, axes, head.posteriors[name], head.posteriors["hypercube"], stretch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stretch", [1.0, 2.5])
def test_draws_have_the_closed_standard_deviation(head, name, stretch):
    """20,000 draws: root mean squares about the mean agree with the formula within their sampling error."""
    theta, rows = coefficients(head, name, stretch), np.random.default_rng(1).standard_normal((6, 5))
    spread = (theta.draws(20_000, seed=3) - theta.mean) @ rows.T
    rms = np.sqrt(np.mean(spread**2, axis=0))
    # the ensemble keeps up to 1000 of its corrections, here all 200
    assert rms == pytest.approx(theta.std(rows), rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_draws(head, name):
    theta = coefficients(head, name)
    assert np.array_equal(theta.draws(7, seed=5), theta.draws(7, seed=5))
    assert not np.array_equal(theta.draws(7, seed=5), theta.draws(7, seed=6))


def test_draws_of_the_ellipsoid_fill_a_ball(head):
    """v = L⁺ b is uniform in the unit ball of R^q: E|v|² = q / (q + 2), and |v|^q is uniform."""
    ellipsoid = head.posteriors["ellipsoid"]
    q = np.linalg.matrix_rank(ellipsoid.axes)
    if q < ellipsoid.axes.shape[1]:
        axes = np.eye(6)[:, :4]
        ellipsoid, q = type(ellipsoid)(axes), 4
    b = ellipsoid.sample(40_000, np.random.default_rng(2))
    radius = np.linalg.norm(b @ np.linalg.pinv(ellipsoid.axes).T, axis=1)
    assert radius.max() <= 1.0 + 1e-12
    assert np.mean(radius**2) == pytest.approx(q / (q + 2), rel=0.01)
    assert np.quantile(radius**q, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.01)


def test_the_envelope_is_the_reach_of_the_box(head):
    """Over a box, a linear function is extreme at a corner: all 32 of them, one after the other."""
    theta, box = coefficients(head, "hypercube"), head.posteriors["hypercube"]
    rows = np.random.default_rng(4).standard_normal((3, 5))
    corners = np.stack(np.meshgrid(*zip(box.lower, box.upper, strict=True), indexing="ij"), axis=-1)
    values = (theta.mean + corners.reshape(-1, 5) @ theta.axes.T) @ rows.T
    low, high = theta.envelope(rows)
    assert low == pytest.approx(values.min(axis=0), rel=1e-10)
    assert high == pytest.approx(values.max(axis=0), rel=1e-10)
    drawn = theta.draws(2000) @ rows.T
    assert (low - 1e-9 <= drawn).all()
    assert (drawn <= high + 1e-9).all()
