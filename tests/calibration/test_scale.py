"""Scale models: what they recover, how they extrapolate, and how they ship."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from helpers.scale_rows import N_ELEMENTS, make
from mace_bounds.calibration import KINDS, ScaleInputs, ScaleModel, fit_scale
from mace_bounds.errors import HeadError


def fit(kind, inputs, residual, groups, weights=None):
    return fit_scale(kind, inputs, residual, groups, 0, weights, strength=1.0)


@pytest.fixture(scope="module")
def rows():
    return make(1200, feature_slope=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_sigma_is_one_standard_deviation_in_the_training_rows(rows, kind):
    inputs, residual, groups, _ = rows
    sigma = fit(kind, inputs, residual, groups).sigma(inputs)
    assert np.mean(np.abs(residual) <= sigma) == pytest.approx(0.6827, abs=2e-3)


# Scatter of log σ about the truth on new rows; a constant has 0.70 there (support 0.57, elements 0.25, feature 0.5).
# A scale without the features cannot get below their 0.5.
@pytest.mark.parametrize(("kind", "most"), [("log_ridge", 0.56), ("kernel", 0.26)])
def test_log_linear_kinds_recover_a_log_linear_width(rows, kind, most):
    inputs, residual, groups, truth = rows
    model = fit(kind, inputs, residual, groups)
    assert np.std(np.log(model.sigma(inputs) / truth)) < most
    assert np.median(model.sigma(inputs) / truth) == pytest.approx(1.0, abs=0.06)


def test_the_kernel_recovers_what_is_not_linear():
    inputs, _, groups, _ = make(3000, seed=2, element_spread=0.0, support_slope=0.0)
    truth = 0.02 * np.exp(np.cos(2.0 * inputs.features[:, 0]))
    residual = truth * np.random.default_rng(3).standard_normal(len(truth))
    inputs = replace(inputs, features=inputs.features[:, :1])
    error = {
        kind: np.std(np.log(fit(kind, inputs, residual, groups).sigma(inputs) / truth))
        for kind in ("log_ridge", "kernel")
    }
    assert error["kernel"] < 0.2 < 0.6 < error["log_ridge"]  # the truth itself spreads by 0.7


def test_pops_recovers_a_linear_width():
    inputs, _, groups, _ = make(6000, seed=3)
    truth = 0.004 + 1.5 * inputs.support_width
    residual = truth * np.random.default_rng(4).standard_normal(len(truth))
    model = fit("pops", inputs, residual, groups)
    ratio = model.parameters["coefficients"][1] / model.parameters["coefficients"][0]
    assert ratio == pytest.approx(1.5 / 0.004, rel=0.2)
    np.testing.assert_allclose(model.sigma(inputs), truth, rtol=0.12)


def test_the_ellipsoid_is_used_where_there_is_one():
    inputs, _, groups, _ = make(1500, seed=13)
    width = 0.02 * np.exp(0.7 * np.random.default_rng(14).standard_normal(1500))
    residual = width * np.random.default_rng(15).standard_normal(1500)
    richer = replace(inputs, ellipsoid_std=width)
    for kind in ("log_ridge", "kernel"):
        model = fit(kind, richer, residual, groups)
        assert np.corrcoef(np.log(model.sigma(richer)), np.log(width))[0, 1] > 0.9
        with pytest.raises(HeadError, match="fitted with 4 widths per row, and there are 3"):
            model.sigma(inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_log_sigma_is_the_sum_of_its_terms(rows, kind):
    inputs, residual, groups, _ = rows
    model = fit(kind, inputs, residual, groups)
    far = replace(inputs, support_width=1e9 * inputs.support_width)  # up to the clamps
    for given in (inputs, far):
        np.testing.assert_allclose(sum(model.terms(given).values()), np.log(model.sigma(given)), rtol=1e-12)


def test_terms_are_what_they_are_called(rows):
    inputs, residual, groups, _ = rows
    model = fit("kernel", inputs, residual, groups)
    few = inputs.take(np.arange(50))
    terms, p = model.terms(few), model.parameters
    moving = np.isfinite(p["space_spread"][:5])
    z = (few.features - p["space_centre"][:5])[:, moving] / p["space_spread"][:5][moving] / np.sqrt(5)
    near = cdist(np.clip(z, -6 / np.sqrt(5), 6 / np.sqrt(5)), p["landmarks"][:, moving], "sqeuclidean")
    kernel = np.exp(-near / 2 / p["kernel_width"] ** 2)
    np.testing.assert_allclose(terms["neighbourhood"], kernel @ p["kernel_coefficients"], atol=1e-10)
    twice = model.terms(replace(few, support_width=2.0 * few.support_width))
    assert {name for name in terms if not np.allclose(twice[name], terms[name])} == {"width of the posterior"}
    np.testing.assert_allclose(  # within the training range by a factor of two at least
        twice["width of the posterior"] - terms["width of the posterior"], np.log(2.0) * p["coefficients"][1]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_weight_zero_do_not_count(rows, kind):
    inputs, residual, groups, _ = rows
    half = np.arange(len(inputs)) % 2 == 0
    wild = np.where(half, residual, 100.0)
    weighted = fit(kind, inputs, wild, groups, half.astype(float)).sigma(inputs)
    alone = fit(kind, inputs.take(half), residual[half], groups[half]).sigma(inputs)
    np.testing.assert_allclose(weighted, alone, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e12])
def test_extrapolation_neither_explodes_nor_vanishes(rows, kind, factor):
    inputs, residual, groups, _ = rows
    model = fit(kind, inputs, residual, groups)
    inside = model.sigma(inputs)
    changed = {
        field.name: getattr(inputs, field.name) * factor
        for field in fields(ScaleInputs)
        if field.name not in ("fractions", "ellipsoid_std", "trained")
    }
    sigma = model.sigma(replace(inputs, **changed))
    assert sigma.max() <= 3.0 * inside.max() * (1 + 1e-12)
    assert sigma.min() >= 1e-3 * inside.mean() * (1 - 1e-12)


def test_an_unseen_element_counts_as_an_average_one_far_away_and_is_flagged(rows):
    inputs, residual, groups, _ = rows
    alien = np.zeros((1, N_ELEMENTS))
    alien[0, -1] = 1.0
    one = replace(inputs.take(np.array([0])), fractions=alien)
    same = {
        f.name: np.repeat(getattr(one, f.name), len(inputs), axis=0)
        for f in fields(one)
        if f.name not in ("fractions", "ellipsoid_std", "trained")
    }
    middle = replace(inputs, **same)
    for kind in KINDS:
        model = fit(kind, inputs, residual, groups)
        assert model.unseen(one).tolist() == [True]
        assert not model.unseen(inputs).any()
        others = model.sigma(middle)
        assert others.min() <= model.sigma(one)[0] * (1 + 1e-9)
        assert model.sigma(one)[0] <= 3.0 * others.max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_survives_shipping(rows, kind):
    inputs, residual, groups, _ = rows
    model = fit(kind, inputs, residual, groups)
    again = ScaleModel.from_tensors(model.to_tensors(), model.to_config())
    np.testing.assert_array_equal(again.sigma(inputs), model.sigma(inputs))
    np.testing.assert_array_equal(again.seen_elements, model.seen_elements)
    assert again.seen_elements.dtype == np.bool_


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_do_not_vary_are_harmless(kind):
    inputs, residual, groups, _ = make(300, seed=8)
    flat = ScaleInputs(np.zeros(300), np.zeros(300), np.full(300, 0.1), np.zeros(300), inputs.fractions)
    for given in (flat, replace(flat, features=np.ones((300, 3)))):
        assert np.all(fit(kind, given, residual, groups).sigma(given) > 0)


def test_faults_are_named(rows):
    inputs, residual, groups, _ = rows
    model = fit("kernel", inputs, residual, groups)
    with pytest.raises(HeadError, match="fitted with 20 elements, and the fractions have 19"):
        model.sigma(replace(inputs, fractions=inputs.fractions[:, 1:]))
    with pytest.raises(HeadError, match="fitted with 5 features per row, and there are 0"):
        model.sigma(replace(inputs, features=None))
    with pytest.raises(HeadError, match="leverage has the shape"):
        replace(inputs, leverage=inputs.leverage[1:])
    with pytest.raises(HeadError, match="leverage has values"):
        replace(inputs, leverage=np.full(len(inputs), np.nan))
    with pytest.raises(HeadError, match="ellipsoid_std has values"):
        replace(inputs, ellipsoid_std=np.full(len(inputs), np.nan))
    with pytest.raises(HeadError, match="not all zero"):
        fit("constant", inputs, np.zeros(len(inputs)), groups)
    with pytest.raises(HeadError, match="align them"):
        fit("constant", inputs, residual[1:], groups)
    with pytest.raises(HeadError, match="choose one of these"):
        fit_scale("magic", inputs, residual, groups, 0)
    with pytest.raises(HeadError, match="fit the head again"):
        ScaleModel.from_tensors({}, {"kind": "pops"})
    with pytest.raises(HeadError, match="of kind low_rank cannot be used"):
        ScaleModel.from_tensors(model.to_tensors(), {"kind": "low_rank"})
