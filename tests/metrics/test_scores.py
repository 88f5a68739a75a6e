import numpy as np
import pytest
import uncertainty_toolbox.metrics_calibration as uct_calibration
import uncertainty_toolbox.metrics_scoring_rule as uct_scoring
from scipy.stats import spearmanr

from mace_bounds.errors import HeadError
from mace_bounds.metrics import (
    ause,
    binned_errors,
    crps_from_quantiles,
    crps_gaussian,
    ence,
    miscalibration_area,
    nll_gaussian,
    sharpness,
    sparsification,
    spearman,
    width_metrics,
)
from mace_bounds.metrics.scores import CalibrationCurve

N = 800
RNG = np.random.default_rng(11)
SIGMA = 0.03 * np.exp(RNG.normal(0, 0.5, N))
RESIDUAL = 1.7 * SIGMA * RNG.standard_t(4, N)
ZERO = np.zeros(N)


def test_against_uncertainty_toolbox():
    assert sharpness(SIGMA) == pytest.approx(uct_calibration.sharpness(SIGMA), rel=1e-12)
    nll = uct_scoring.nll_gaussian(ZERO, SIGMA, RESIDUAL, scaled=True)
    assert nll_gaussian(RESIDUAL, SIGMA) == pytest.approx(nll, rel=1e-10)
    crps = uct_scoring.crps_gaussian(ZERO, SIGMA, RESIDUAL, scaled=True)
    assert crps_gaussian(RESIDUAL, SIGMA) == pytest.approx(crps, rel=1e-10)
    area = uct_calibration.miscalibration_area(ZERO, SIGMA, RESIDUAL, num_bins=2000, vectorized=True)
    assert miscalibration_area(RESIDUAL, SIGMA) == pytest.approx(area, abs=2e-4)


def test_miscalibration_area_of_extremes():
    sigma = np.ones(50)
    assert miscalibration_area(np.zeros(50), sigma) == pytest.approx(0.5)  # every interval covers
    assert miscalibration_area(np.full(50, 1e9), sigma) == pytest.approx(0.5)  # none does
    one_sigma = miscalibration_area(np.ones(50), sigma)  # observed steps from 0 to 1 at p = erf(1/√2)
    p = 0.6826894921370859
    assert one_sigma == pytest.approx(p**2 / 2 + (1 - p) ** 2 / 2)


def test_gaussian_closed_forms():
    assert nll_gaussian([0.0], [2.0]) == pytest.approx(0.5 * np.log(2 * np.pi) + np.log(2.0))
    # CRPS of N(0, s²) at 0 is s (√2 - 1) / √π
    assert crps_gaussian([0.0], [2.0]) == pytest.approx(2.0 * (np.sqrt(2) - 1) / np.sqrt(np.pi))


def test_crps_from_quantiles_approaches_the_gaussian_one():
    from scipy.stats import norm

    p = (np.arange(2000) + 0.5) / 2000
    quantiles = SIGMA[:, None] * norm.ppf(p)
    exact = crps_gaussian(RESIDUAL, SIGMA)
    assert crps_from_quantiles(RESIDUAL, quantiles, p) == pytest.approx(exact, rel=2e-3)


def test_crps_from_quantiles_against_an_ensemble():
    """The score of an ensemble in its energy form: Gneiting & Raftery, J. Am. Stat. Assoc. 102, 359 (2007), eq. 21."""
    draws = np.sort(np.random.default_rng(4).normal(size=(5, 400)), axis=1)
    p = (np.arange(400) + 0.5) / 400
    observed = np.linspace(-1, 1, 5)
    apart = np.abs(draws[:, :, None] - draws[:, None, :]).mean(axis=(1, 2))
    ensemble = np.mean(np.abs(draws - observed[:, None]).mean(axis=1) - 0.5 * apart)
    assert crps_from_quantiles(observed, draws, p) == pytest.approx(ensemble, rel=1e-6)


def test_bins_and_ence_by_hand():
    sigma, residual = np.array([1.0, 1.0, 3.0, 3.0]), np.array([1.0, -1.0, 6.0, -6.0])
    width, error, count = binned_errors(residual, sigma, 2)
    assert width.tolist() == [1.0, 3.0]
    assert error.tolist() == [1.0, 6.0]
    assert count.tolist() == [2, 2]
    assert ence(residual, sigma, 2) == pytest.approx(0.5)  # (0 + 1) / 2
    assert binned_errors(residual, sigma, 10)[2].tolist() == [1, 1, 1, 1]


def test_sparsification_by_hand():
    residual, sigma = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])  # ranked exactly wrong
    by_width, by_error = sparsification(residual, sigma)
    np.testing.assert_allclose(by_width, [1.0, 1.25, 1.5])
    np.testing.assert_allclose(by_error, [1.0, 0.75, 0.5])
    assert ause(residual, sigma) == pytest.approx(0.5)
    assert ause(residual, np.abs(residual)) == 0.0


def test_spearman_against_scipy_with_ties():
    rounded = np.round(SIGMA, 2) + 0.01
    assert spearman(RESIDUAL, rounded) == pytest.approx(spearmanr(np.abs(RESIDUAL), rounded).statistic)
    assert spearman(RESIDUAL, np.ones(N)) == 0.0


def test_curve_area_by_hand():
    half = np.array([0.5])
    above = CalibrationCurve(half, np.array([0.7]), half, half, 10)
    assert above.area == pytest.approx(0.1)  # triangle of base 1 and height 0.2
    two = np.array([0.25, 0.75])
    crossing = CalibrationCurve(two, np.array([0.35, 0.65]), two, two, 10)
    assert crossing.area == pytest.approx(0.5 * 0.25 * 0.1 * 2 + 2 * 0.5 * 0.25 * 0.1)


def test_summary_is_in_mev_per_atom():
    summary = width_metrics(RESIDUAL, SIGMA)
    assert summary.mae_mev_per_atom == pytest.approx(1000 * np.abs(RESIDUAL).mean())
    assert summary.rmse_mev_per_atom == pytest.approx(1000 * np.sqrt(np.mean(RESIDUAL**2)))
    assert summary.crps_mev_per_atom == pytest.approx(1000 * crps_gaussian(RESIDUAL, SIGMA))
    assert summary.as_dict()["n"] == N


@pytest.mark.parametrize(
    ("residual", "sigma"), [([1.0], [0.0]), ([np.nan], [1.0]), ([1.0, 2.0], [1.0]), ([], [])]
)
def test_bad_arrays_are_refused(residual, sigma):
    with pytest.raises(HeadError, match=r"drop the rows|align them"):
        nll_gaussian(residual, sigma)
