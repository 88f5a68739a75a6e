"""The centre: what earns a place, what does not, and what heads keep of it."""

import numpy as np
import pytest
from sklearn.linear_model import HuberRegressor

from helpers.scale_rows import N_ELEMENTS, make
from mace_bounds.calibration.centre import SHARES, Centre, element_shifts, select_centre
from mace_bounds.errors import HeadError


@pytest.fixture(scope="module")
def rows():
    inputs, noise, groups, _ = make(
        900, seed=1, element_spread=0.0, support_slope=0.0
    )  # noise of 0.02 eV/atom
    return inputs.fractions, noise, groups


def test_a_perfect_refit_is_taken_whole(rows):
    fractions, noise, groups = rows
    mean = 0.05 * np.random.default_rng(2).standard_normal(900)
    centre, left_out = select_centre(mean + 0.1 * noise, mean, fractions, groups, 0)
    assert centre.share == 1.0
    assert not centre.shifts.any()
    np.testing.assert_array_equal(left_out, mean)
    np.testing.assert_array_equal(centre.residual(mean, fractions), mean)


def test_a_refit_that_goes_twice_too_far_is_halved(rows):
    fractions, noise, groups = rows
    truth = 0.05 * np.random.default_rng(3).standard_normal(900)
    centre, _ = select_centre(truth + noise, 2.0 * truth, fractions, groups, 0)
    assert centre.share == 0.5


def test_noise_earns_nothing():
    """The model's own energy stays for refits that know nothing: 3 standard errors leave 1 in 1000 draws to luck."""
    moved = 0
    for seed in range(20):
        inputs, noise, groups, _ = make(200, seed=seed, element_spread=0.0, support_slope=0.0)
        mean = 0.01 * np.random.default_rng(100 + seed).standard_normal(200)
        moved += select_centre(noise, mean, inputs.fractions, groups, seed)[0].moves
    assert moved <= 1


def test_a_bias_of_an_element_is_shifted_away(rows):
    fractions, noise, groups = rows
    truth = np.zeros(N_ELEMENTS)
    truth[3] = 0.05
    y = fractions @ truth + noise
    centre, left_out = select_centre(y, np.zeros(900), fractions, groups, 0)
    assert centre.share == 0.0
    assert 0.4 * 0.05 < centre.shifts[3] - np.median(centre.shifts) < 0.05  # shrunk
    assert np.abs(y - left_out).mean() < np.abs(y).mean()


def test_few_groups_keep_the_model(rows):
    fractions, _, _ = rows
    mean = np.ones(900)
    centre, left_out = select_centre(mean, mean, fractions, ["one"] * 900, 0)
    assert not centre.moves
    assert not left_out.any()


def test_element_shifts_are_a_huber_regression(monkeypatch):
    """Against scikit-learn's, with scale and intercept made equal: a single element has its own robust mean."""
    from mace_bounds.calibration import centre as _centre

    rng = np.random.default_rng(4)
    monkeypatch.setattr(_centre, "_STEPS", 200)
    y = 0.03 + 0.01 * rng.standard_t(2, 400)
    shift = element_shifts(y, np.ones((400, 1)), np.ones(400))
    other = HuberRegressor(epsilon=1.345, alpha=0.0).fit(np.zeros((400, 1)), y).intercept_
    assert shift[0] == pytest.approx(
        other, abs=3e-4
    )  # the two estimate the noise differently; its error is 5e-4
    assert abs(shift[0] - 0.03) < abs(y.mean() - 0.03) + 1e-3


def test_outliers_do_not_move_a_shift(rows):
    fractions, noise, _ = rows
    spoiled = noise.copy()
    spoiled[::50] += 10.0
    moved = element_shifts(spoiled, fractions, np.ones(900)) - element_shifts(noise, fractions, np.ones(900))
    assert np.abs(moved).max() < 0.01  # a least-squares mean would move by 0.2


@pytest.mark.parametrize("share", [0.0, *SHARES])
def test_a_centre_survives_shipping(share):
    centre = Centre(share, np.linspace(0.0, 0.1, 5))
    again = Centre.from_config(centre.to_config(), 5)
    assert again.share == share
    np.testing.assert_array_equal(again.shifts, centre.shifts)


def test_words_and_faults():
    shifts = np.array([0.0, 0.1])
    assert Centre.own(2).describe() == "the model's own energy (no refit beat it)"
    assert Centre(1.0, np.zeros(2)).describe() == "the refit mean"
    assert Centre(0.25, np.zeros(2)).describe() == "25 % of the refit correction"
    assert "shift per element" in Centre(0.0, shifts).describe()
    with pytest.raises(HeadError, match="not 0 to 1 and 3 finite ones"):
        Centre.from_config(Centre(0.5, shifts).to_config(), 3)


def test_equal_residuals_are_one_shift():
    fractions = np.eye(3)[np.arange(30) % 3]
    np.testing.assert_allclose(element_shifts(np.full(30, 0.2), fractions, np.ones(30)), 0.2)
