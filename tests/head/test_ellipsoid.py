import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from helpers.posterior_draws import draw
from mace_bounds.head.posteriors.ellipsoid import Ellipsoid, log_ball_normaliser

RANKS = [2, 3, 8, 16, 64]


def log_ball_density(t, rank):
    """Log density of one coordinate of a uniform point in the unit ball, as the barrier of the fit has it."""
    with np.errstate(divide="ignore"):
        return log_ball_normaliser(rank) + 0.5 * (rank - 1.0) * np.log(np.maximum(1.0 - t * t, 0.0))


@pytest.mark.parametrize("rank", RANKS)
def test_the_predictive_density_integrates_to_one_and_has_the_stated_variance(rank):
    def moment(order):
        return quad(lambda t: t**order * np.exp(log_ball_density(t, rank)), -1.0, 1.0, epsabs=1e-12)[0]

    # (1 - t²)^½ at rank 2 has infinite slope at the ends, which costs quadrature some digits
    assert moment(0) == pytest.approx(1.0, abs=1e-8)
    assert moment(1) == pytest.approx(0.0, abs=1e-12)
    assert moment(2) == pytest.approx(1.0 / (rank + 2.0), rel=1e-8)


@pytest.mark.parametrize("rank", RANKS)
def test_the_density_is_scipys_beta_on_minus_one_to_one(rank):
    t = np.linspace(-0.99, 0.99, 41)
    beta = stats.beta(0.5 * (rank + 1.0), 0.5 * (rank + 1.0), loc=-1.0, scale=2.0)
    assert np.allclose(log_ball_density(t, rank), beta.logpdf(t), rtol=1e-11, atol=1e-11)
    assert log_ball_density(1.5, rank) == -np.inf


def test_rank_two_and_three_by_hand():
    # a disc: semicircle 2/π √(1 - t²); a ball: parabola 3/4 (1 - t²)
    assert np.exp(log_ball_density(0.6, 2)) == pytest.approx(2.0 / np.pi * 0.8)
    assert np.exp(log_ball_density(0.5, 3)) == pytest.approx(0.75 * 0.75)


def test_width_by_hand():
    ellipsoid = Ellipsoid(np.array([[3.0, 0.0], [0.0, 4.0]]))
    along = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert ellipsoid.half_width(along).tolist() == [3.0, 5.0, 0.0]
    assert ellipsoid.std(along).tolist() == [1.5, 2.5, 0.0]
    lower, upper = ellipsoid.support(along)
    assert (lower.tolist(), upper.tolist()) == ([-3.0, -5.0, -0.0], [3.0, 5.0, 0.0])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.sampled_from([2, 5, 8]), st.integers(0, 10**6))
def test_samples_fill_the_ellipsoid_and_never_leave_it(m, rank, seed):
    rng = np.random.default_rng(seed)
    ellipsoid = Ellipsoid(rng.standard_normal((m, rank)))
    along = rng.standard_normal((3, m))
    values = along @ draw(ellipsoid, 20_000, seed).T
    t = values / ellipsoid.half_width(along)[:, None]
    assert np.abs(t).max() <= 1.0 + 1e-12
    # Kolmogorov-Smirnov distance of 20,000 draws beyond 0.0174 has probability 1e-5 (Massart)
    law = stats.beta(0.5 * (rank + 1.0), 0.5 * (rank + 1.0), loc=-1.0, scale=2.0)
    assert stats.kstest(t[0], law.cdf).statistic < 0.0174
    # the standard error of a standard deviation of such short-tailed draws is below 0.5 %
    assert np.allclose(np.std(values, axis=1), ellipsoid.std(along), rtol=0.025)


def test_the_support_is_attained():
    ellipsoid = Ellipsoid(np.array([[2.0, 0.0], [1.0, 1.0]]))
    along = np.array([[0.3, -0.7]])
    direction = ellipsoid.axes.T @ along[0]
    point = ellipsoid.axes @ (direction / np.linalg.norm(direction))  # on the surface
    assert along[0] @ point == pytest.approx(ellipsoid.support(along)[1][0], rel=1e-14)
    reached = along @ draw(ellipsoid, 100_000, 0).T
    assert reached.max() > 0.99 * ellipsoid.half_width(along)[0]


def test_an_ellipsoid_of_no_size_has_none():
    ellipsoid = Ellipsoid(np.zeros((3, 8)))
    assert not ellipsoid.std(np.ones((2, 3))).any()
