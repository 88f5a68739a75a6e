"""Scale models: what they recover, how they extrapolate, and what selection refuses."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from mace_bounds.calibration import ScaleInputs, ScaleModel, fit_scale, select_scale
from mace_bounds.calibration._scale import KINDS
from mace_bounds.calibration._scale_solvers import RIDGE_GRID, _ridge_path, gamma_nnls
from mace_bounds.errors import HeadError

N_ELEMENTS = 20


def make(n, seed=0, element_spread=0.6, support_slope=1.0, noise="normal", n_compositions=None):
    """Rows whose true σ depends on support and composition; returns inputs, residuals, groups, σ."""
    rng = np.random.default_rng(seed)
    n_compositions = n_compositions or n // 3
    table = np.zeros((n_compositions, N_ELEMENTS))
    for row in table:
        elements = rng.choice(N_ELEMENTS - 1, 2, replace=False)  # the last element is never seen
        row[elements] = rng.dirichlet([2.0, 2.0])
    composition = rng.integers(0, n_compositions, n)
    leverage = np.exp(rng.normal(-3, 0.8, n))
    support = 0.05 * np.sqrt(leverage) * np.exp(rng.normal(0, 0.4, n))
    inputs = ScaleInputs(
        support_width=support,
        box_std=0.5 * support,
        leverage=leverage,
        epistemic_std=0.01 * np.sqrt(leverage),
        fractions=table[composition],
        n_atoms=rng.integers(1, 60, n).astype(float),
    )
    log_elements = element_spread * rng.standard_normal(N_ELEMENTS)
    sigma = 0.02 * (support / np.median(support)) ** support_slope * np.exp(inputs.fractions @ log_elements)
    draw = rng.standard_normal(n) if noise == "normal" else rng.standard_t(3, n)
    return inputs, sigma * draw, np.array([f"c{i}" for i in composition]), sigma


@pytest.fixture(scope="module")
def rows():
    return make(2400)


@pytest.mark.parametrize("kind", KINDS)
def test_sigma_is_one_standard_deviation_in_the_training_rows(rows, kind):
    inputs, residual, groups, _ = rows
    sigma = fit_scale(kind, inputs, residual, groups, 0).sigma(inputs)
    assert np.mean(np.abs(residual) <= sigma) == pytest.approx(0.6827, abs=2e-3)


def test_log_ridge_recovers_a_log_linear_width(rows):
    inputs, residual, groups, truth = rows
    sigma = fit_scale("log_ridge", inputs, residual, groups, 0).sigma(inputs)
    assert np.std(np.log(sigma / truth)) < 0.12
    assert np.median(sigma / truth) == pytest.approx(1.0, abs=0.05)


def test_pops_recovers_a_linear_width():
    inputs, _, groups, _ = make(6000, seed=3)
    truth = 0.004 + 1.5 * inputs.support_width
    residual = truth * np.random.default_rng(4).standard_normal(len(truth))
    model = fit_scale("pops", inputs, residual, groups, 0)
    ratio = model.coefficients[1] / model.coefficients[0]
    assert ratio == pytest.approx(1.5 / 0.004, rel=0.2)
    np.testing.assert_allclose(model.sigma(inputs), truth, rtol=0.12)


def test_variance_recovers_element_terms():
    inputs, _, groups, _ = make(12_000, seed=5)
    element_variance = np.linspace(0.5, 4.0, N_ELEMENTS) * 1e-4
    truth = np.sqrt(inputs.support_width**2 + inputs.fractions @ element_variance)
    residual = truth * np.random.default_rng(6).standard_normal(len(truth))
    model = fit_scale("variance", inputs, residual, groups, 0)
    np.testing.assert_allclose(model.sigma(inputs), truth, rtol=0.2)
    assert np.all(model.element_coefficients >= 0)


def test_rows_of_weight_zero_do_not_count(rows):
    inputs, residual, groups, _ = rows
    half = np.arange(len(inputs)) % 2 == 0
    wild = np.where(half, residual, 100.0)
    for kind in KINDS:
        weighted = fit_scale(kind, inputs, wild, groups, 0, half.astype(float)).sigma(inputs)
        alone = fit_scale(kind, inputs.take(half), residual[half], groups[half], 0).sigma(inputs)
        np.testing.assert_allclose(weighted, alone, rtol=1e-12)


def test_the_order_of_rows_does_not_matter(rows):
    inputs, residual, groups, _ = rows
    order = np.random.default_rng(1).permutation(len(inputs))
    a = select_scale(inputs, residual, groups, 3)
    b = select_scale(inputs.take(order), residual[order], groups[order], 3)
    assert a.kind == b.kind
    np.testing.assert_allclose(a.sigma(inputs), b.sigma(inputs), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e12])
def test_extrapolation_neither_explodes_nor_vanishes(rows, kind, factor):
    inputs, residual, groups, _ = rows
    model = fit_scale(kind, inputs, residual, groups, 0)
    inside = model.sigma(inputs)
    far = ScaleInputs(
        **{
            field.name: getattr(inputs, field.name) * (1.0 if field.name == "fractions" else factor)
            for field in fields(ScaleInputs)
        }
    )
    sigma = model.sigma(far)
    assert sigma.max() <= 3.0 * inside.max() * (1 + 1e-12)
    assert sigma.min() >= 1e-3 * inside.mean() * (1 - 1e-12)


def test_an_unseen_element_counts_as_an_average_one_and_is_flagged(rows):
    inputs, residual, groups, _ = rows
    alien = np.zeros((1, N_ELEMENTS))
    alien[0, -1] = 1.0
    one = replace(inputs.take(np.array([0])), fractions=alien)
    middle = replace(
        inputs,
        **{
            f.name: np.full_like(getattr(inputs, f.name), getattr(one, f.name)[0])
            for f in fields(one)
            if f.name != "fractions"
        },
    )
    for kind in KINDS:
        model = fit_scale(kind, inputs, residual, groups, 0)
        assert model.unseen(one).tolist() == [True]
        assert not model.unseen(inputs).any()
        others = model.sigma(middle)
        assert others.min() <= model.sigma(one)[0] * (1 + 1e-9)
        assert model.sigma(one)[0] <= others.max() * (1 + 1e-9)


def test_selection_finds_the_structure_that_is_there():
    inputs, residual, groups, _ = make(1500, seed=7, noise="heavy")
    model = select_scale(inputs, residual, groups, 0)
    assert model.kind == "log_ridge"
    assert set(model.scores) == {"constant", "pops", "log_ridge"}  # too few rows for element variances
    assert model.scores["log_ridge"] < 0.9 * model.scores["constant"]


def test_selection_never_loses_to_the_constant():
    kinds = []
    for seed in range(6):
        inputs, residual, groups, _ = make(300, seed=seed, element_spread=0.0, support_slope=0.0)
        model = select_scale(inputs, residual, groups, 0)
        assert model.scores[model.kind] == min(model.scores.values()) <= model.scores["constant"]
        kinds.append(model.kind)
        assert model.sigma(inputs).max() < 2.5 * model.sigma(inputs).min()
    assert "constant" in kinds


def test_the_score_of_a_constant_in_closed_form():
    # |r| = 1 everywhere: the interval is ±1 at every level, so (1 - level) * 1 on average, in eV/atom
    inputs, residual, groups, _ = make(300, seed=9)
    model = select_scale(inputs, np.sign(residual), groups, 0)
    assert model.kind == "constant"
    assert model.scores["constant"] == pytest.approx((0.32 + 0.10 + 0.05) / 3)


def test_few_groups_give_the_constant(rows):
    inputs, residual, _, _ = rows
    model = select_scale(inputs, residual, ["one composition"] * len(inputs), 0)
    assert model.kind == "constant"
    assert model.scores == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_survives_shipping(rows, kind):
    inputs, residual, groups, _ = rows
    model = fit_scale(kind, inputs, residual, groups, 0)
    again = ScaleModel.from_tensors(model.to_tensors(), model.to_config())
    np.testing.assert_array_equal(again.sigma(inputs), model.sigma(inputs))
    np.testing.assert_array_equal(again.seen_elements, model.seen_elements)
    assert again.seen_elements.dtype == np.bool_


def test_columns_that_do_not_vary_are_harmless():
    inputs, residual, groups, _ = make(300, seed=8)
    flat = ScaleInputs(
        np.zeros(300), np.zeros(300), np.full(300, 0.1), np.zeros(300), inputs.fractions, np.full(300, 8.0)
    )
    for kind in KINDS:
        assert np.all(fit_scale(kind, flat, residual, groups, 0).sigma(flat) > 0)


def test_ridge_path_against_scikit_learn():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(80, 6)), rng.normal(size=80), rng.uniform(0.5, 2.0, 80)
    intercepts, slopes = _ridge_path(x, y, w)
    for i in (0, 7, 15):
        other = Ridge(alpha=RIDGE_GRID[i]).fit(x, y, sample_weight=w)
        np.testing.assert_allclose(slopes[:, i], other.coef_, rtol=1e-9, atol=1e-12)
        assert intercepts[i] == pytest.approx(other.intercept_)


def test_gamma_nnls_reaches_the_minimum_of_the_deviance():
    rng = np.random.default_rng(1)
    x = rng.uniform(0.1, 1.0, (400, 4))
    w = rng.uniform(0.5, 1.5, 400)
    y = (x @ [1.0, 0.0, 2.0, 0.3]) * rng.gamma(2.0, 0.5, 400)

    def deviance(theta):
        mean = x @ theta
        return np.average(y / mean + np.log(mean), weights=w)

    best = minimize(deviance, np.ones(4), bounds=[(1e-12, None)] * 4, method="L-BFGS-B")
    theta = gamma_nnls(x, y, w, max_iterations=200, tolerance=1e-12)
    assert np.all(theta >= 0)
    assert deviance(theta) <= best.fun + 1e-6


def test_faults_are_named(rows):
    inputs, residual, groups, _ = rows
    model = fit_scale("log_ridge", inputs, residual, groups, 0)
    with pytest.raises(HeadError, match="Expected fractions of 20 elements, got 19"):
        model.sigma(replace(inputs, fractions=inputs.fractions[:, 1:]))
    with pytest.raises(HeadError, match="of one length"):
        replace(inputs, leverage=inputs.leverage[1:])
    with pytest.raises(HeadError, match="others in leverage"):
        replace(inputs, leverage=np.full(len(inputs), np.nan))
    with pytest.raises(HeadError, match="not all zero"):
        fit_scale("constant", inputs, np.zeros(len(inputs)), groups, 0)
    with pytest.raises(HeadError, match="one residual, weight and group per row"):
        fit_scale("constant", inputs, residual[1:], groups, 0)
    with pytest.raises(HeadError, match="choose one of these"):
        fit_scale("magic", inputs, residual, groups, 0)
    with pytest.raises(HeadError, match="fit the head anew"):
        ScaleModel.from_tensors({}, {"kind": "pops"})
