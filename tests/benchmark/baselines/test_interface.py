"""What every baseline promises, whatever it is."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.baseline_rows import novel, planted, rows_of
from mace_bounds.benchmark import BASELINES
from mace_bounds.benchmark.baselines import (
    Baseline,
    BaselineRows,
    FittedBaseline,
    ModelSpread,
    PopsByResidual,
    Widths,
)
from mace_bounds.benchmark.baselines.grades import Mixture
from mace_bounds.calibration import conformal_quantile, conformal_scores
from mace_bounds.errors import HeadError
from mace_bounds.metrics import interval_score

NAMES = sorted(BASELINES)
LLPRS = ("llpr", "llpr_readout", "llpr_linear")
WIDTH_ONLY = ("constant", *LLPRS, "d_optimality", "d_optimality_local", "quantile", "gmm_gamma")
OWN_MEAN = ("bayesian_ridge", "bayesian_ridge_noise", "committee", "readout_ensemble", "residual_pops")
OPTIONAL = {"popsregression": "popsregression", "quantile_boosting": "sklearn"}
SAMPLED = "popsregression"  # its draws follow the signs of eigenvectors, which round-off decides


def awkward(seed, n=60):
    """More columns than directions: constant, zero, copied and tiny columns, repeated rows, uneven weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    x = np.column_stack([x, np.full(n, 3.0), np.zeros(n), x[:, 0], x[:, 1] - x[:, 2], 1e-9 * x[:, 3]])
    x[n // 2 : n // 2 + 10] = x[:10]
    x[3] = 0.0
    y = 0.05 * rng.standard_t(3, n)
    y[n // 2 : n // 2 + 5] = y[:5]
    weights = rng.gamma(2.0, size=n)
    weights[::13] = 0.0
    groups = np.array([f"X{i % 25}" for i in range(n)])
    return rows_of(x, y, groups=groups, weights=weights, centre=0.01 * rng.standard_normal(n))


def interval_score_95(name, fit, calibration, test, seed=0):
    """Mean 95 % interval score of split-conformal intervals, eV/atom."""
    fitted = BASELINES[name].fit(fit, seed)
    before, after = fitted.predict(calibration), fitted.predict(test)
    q = conformal_quantile(conformal_scores(calibration.y - before.centre, before.sigma), 0.95)
    reach = q * after.sigma
    return interval_score(test.y, after.centre - reach, after.centre + reach, 0.95).mean()


def test_every_baseline_is_of_one_kind_and_has_its_own_name():
    there = {name for name, package in OPTIONAL.items() if find_spec(package)}
    assert set(BASELINES) == {*OWN_MEAN, *WIDTH_ONLY} | there
    for name, baseline in BASELINES.items():
        assert isinstance(baseline, Baseline)
        assert baseline.name == name


@pytest.mark.parametrize("name", NAMES)
def test_awkward_rows_get_positive_widths(name):
    fitted = BASELINES[name].fit(awkward(0), 0)
    assert isinstance(fitted, FittedBaseline)
    new = awkward(1)
    new.x[0] = 1e6  # far outside
    new.x[1:3] = 0.0
    said = fitted.predict(replace(new, y=np.full(len(new), np.nan)))
    assert isinstance(said, Widths)
    assert said.centre.shape == said.sigma.shape == (len(new),)
    assert np.isfinite(said.centre).all()
    assert np.isfinite(said.sigma).all()
    assert (said.sigma > 0.0).all()
    assert fitted.n_bytes() >= 8
    if name in WIDTH_ONLY:
        assert np.array_equal(said.centre, new.centre)


@pytest.mark.parametrize("name", NAMES)
def test_fifty_rows_and_more_columns_than_rows(name):
    rows = planted(50, 2, columns=80)
    said = BASELINES[name].fit(rows, 3).predict(planted(20, 4, columns=80))
    assert np.isfinite(said.sigma).all()
    assert (said.sigma > 0.0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_features_that_say_nothing_give_a_constant(name, value):
    rows = planted(60, 12)
    same = replace(rows, x=np.full((60, 3), value))
    said = BASELINES[name].fit(same, 0).predict(same)
    assert (said.sigma > 0.0).all()
    assert np.ptp(said.sigma) <= 1e-9 * said.sigma.max()


@pytest.mark.parametrize("name", NAMES)
def test_labels_met_exactly_still_get_a_width(name):
    rows = planted(60, 5)
    zero = replace(rows, y=np.zeros(60))
    said = BASELINES[name].fit(zero, 0).predict(zero)
    assert (said.sigma > 0.0).all()
    assert np.abs(said.centre).max() < 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if name != SAMPLED])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_order_of_rows_does_not_matter(name, seed):
    rows, new = awkward(seed), awkward(seed + 1)
    order = np.random.default_rng(seed).permutation(len(rows))
    one = BASELINES[name].fit(rows, seed).predict(new)
    other = BASELINES[name].fit(rows.take(order), seed).predict(new)
    assert (one.sigma > 0.0).all()
    assert np.allclose(one.sigma, other.sigma, rtol=1e-7, atol=0)
    assert np.allclose(one.centre, other.centre, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_decide_everything(name):
    rows, new = planted(80, 6), planted(30, 7)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one = BASELINES[name].fit(rows, 1).predict(new).sigma
    np.random.default_rng(0).random(5)
    assert np.array_equal(one, BASELINES[name].fit(rows, 1).predict(new).sigma)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_weight_zero_and_the_unit_of_weights_do_not_matter(name):
    rows, new = planted(80, 8), planted(30, 9)
    weights = np.where(np.arange(80) % 4 == 0, 0.0, 1.0 + np.arange(80) % 3)
    spoilt = replace(rows, weights=weights, y=np.where(weights > 0, rows.y, 1e3))
    clean = replace(rows, weights=weights * 7.0).take(weights > 0)
    one, other = BASELINES[name].fit(spoilt, 0).predict(new), BASELINES[name].fit(clean, 0).predict(new)
    assert np.allclose(one.sigma, other.sigma, rtol=1e-8)
    assert np.allclose(one.centre, other.centre, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name in WIDTH_ONLY])
def test_width_only_baselines_learn_from_the_distance_to_the_centre(name):
    rows, new = planted(100, 10), planted(30, 11)
    shift = np.linspace(-1.0, 1.0, 100)
    moved = replace(rows, y=rows.y + shift, centre=shift)
    one, other = (
        BASELINES[name].fit(rows, 0).predict(new).sigma,
        BASELINES[name].fit(moved, 0).predict(new).sigma,
    )
    assert np.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    "name, rows, largest_ratio",
    [
        ("quantile", planted, 0.85),
        ("llpr", novel, 0.8),
        ("quantile_boosting", planted, 0.95),
        ("d_optimality", novel, 0.8),
        ("d_optimality_local", novel, 0.9),
    ],
)
def test_beats_the_constant_where_widths_differ_as_it_assumes(name, rows, largest_ratio):
    fit, calibration, test = rows(600, 20), rows(600, 21), rows(3000, 22)
    constant = interval_score_95("constant", fit, calibration, test)
    assert interval_score_95(name, fit, calibration, test) < largest_ratio * constant


@pytest.mark.parametrize("name", [*OWN_MEAN, SAMPLED])
def test_an_own_mean_beats_the_constant_where_there_is_one_to_learn(name):
    if name not in BASELINES:
        pytest.skip("popsregression is not installed")
    fit, calibration, test = (
        planted(n, seed, spread=0.0, bias=0.1) for n, seed in ((600, 23), (600, 24), (3000, 25))
    )
    constant = interval_score_95("constant", fit, calibration, test)
    assert interval_score_95(name, fit, calibration, test) < 0.8 * constant  # noise is 0.45 of the total


@pytest.mark.parametrize(
    "name", ["llpr", "d_optimality", "d_optimality_local", "quantile", "gmm_gamma", "bayesian_ridge_noise"]
)
def test_little_harm_where_one_width_is_the_truth(name):
    fit, calibration, test = (planted(n, seed, spread=0.0) for n, seed in ((600, 26), (600, 27), (3000, 28)))
    constant = interval_score_95("constant", fit, calibration, test)
    assert interval_score_95(name, fit, calibration, test) < 1.15 * constant


def test_unusable_rows_are_refused():
    rows = planted(60, 30)
    with pytest.raises(HeadError, match="label"):
        BASELINES["constant"].fit(replace(rows, y=np.where(np.arange(60) == 3, np.nan, rows.y)), 0)
    with pytest.raises(HeadError, match="compositions"):
        BASELINES["llpr"].fit(replace(rows, groups=np.full(60, "NaCl")), 0)
    with pytest.raises(HeadError, match="align"):
        replace(rows, weights=np.ones(59))
    with pytest.raises(HeadError, match="not negative"):
        replace(rows, weights=np.full(60, -1.0))
    with pytest.raises(HeadError, match="finite"):
        replace(rows, x=np.full((60, 2), np.nan))


def test_taking_rows_takes_every_field():
    rows = awkward(0)
    some = rows.take(np.array([3, 1]))
    assert isinstance(some, BaselineRows)
    assert len(some) == 2
    assert np.array_equal(some.x, rows.x[[3, 1]])
    assert np.array_equal(some.error, (rows.y - rows.centre)[[3, 1]])
    assert some.groups.tolist() == [rows.groups[3], rows.groups[1]]


def test_a_baseline_on_some_columns_sees_no_others():
    """Names of the features come first among the columns; atomic fractions have none."""
    rows, new = planted(120, 40, columns=7), planted(30, 41, columns=7)
    names = (
        "readout1_linear0",
        "readout1_linear1",
        "readout1_linear2",
        "readout2_hidden0",
        "readout2_hidden1",
    )
    named, other = (replace(part, names=names) for part in (rows, new))
    for name, kept in (("llpr_readout", 5), ("llpr_linear", 3)):
        alone = BASELINES["llpr"].fit(replace(rows, x=rows.x[:, :kept]), 0)
        same = BASELINES[name].fit(named, 0).predict(other).sigma
        assert np.array_equal(same, alone.predict(replace(new, x=new.x[:, :kept])).sigma)
    assert rows.only("linear") is rows
    assert named.take(np.arange(4)).only("linear").x.shape == (4, 3)


def test_the_spread_of_models_is_scaled_to_the_errors():
    rng = np.random.default_rng(0)
    size = rng.uniform(0.01, 0.2, 400)
    rows = replace(
        rows_of(rng.standard_normal((400, 2)), 3 * size * rng.standard_normal(400)),
        others=size[:, None] * np.array([[1.0, -1.0]]),
    )
    fitted = ModelSpread().fit(rows, 0)
    # of 0, s and -s the standard deviation is s, and the errors are three times as large
    assert fitted.alpha == pytest.approx(3.0, rel=0.1)
    assert np.allclose(fitted.predict(rows).sigma, fitted.alpha * size)
    with pytest.raises(HeadError, match="energies of other models"):
        ModelSpread().fit(replace(rows, others=None), 0)


@pytest.mark.skipif(find_spec(SAMPLED) is None, reason="popsregression is not installed")
def test_pops_with_all_rows_is_that_of_popsregression():
    """With no row left out both have the same mean, and a width within what sampling the box leaves open."""
    from popsregression import POPSRegression

    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 5))
    x = (x - x.mean(axis=0)) / x.std(axis=0)  # what is standardised here is not there
    rows = rows_of(x, 0.3 + x @ np.arange(1.0, 6.0) + 0.2 * np.sin(3 * x[:, 0]))
    ours = PopsByResidual(minimum_relative_error=0.0).fit(rows, 0).predict(rows)
    np.random.seed(0)  # noqa: NPY002
    theirs = POPSRegression(fit_intercept=True, leverage_percentile=0.0, resample_density=50.0)
    mean, std = theirs.fit(rows.x, rows.y).predict(rows.x, return_std=True)
    assert np.allclose(ours.centre, mean, atol=1e-5)
    assert np.allclose(ours.sigma, std, rtol=0.05)


def test_the_distance_to_clusters_is_small_inside_and_large_outside():
    """Two clusters on both sides of the origin: nine in ten of their rows are below 1, others are not."""
    rng = np.random.default_rng(0)
    x = np.where(np.arange(400)[:, None] % 2, 5.0, -5.0) + rng.standard_normal((400, 3))
    mixture = Mixture.of(rows_of(x, np.zeros(400)), 8, 0)
    assert len(mixture.centres) >= 2
    assert np.mean(mixture.grade(x) < 1.0) > 0.9
    assert (mixture.grade(np.array([[0.1, 0.0, -0.1], [50.0, 50.0, 50.0], [5.0, -5.0, 5.0]])) > 1.5).all()
