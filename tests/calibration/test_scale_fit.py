"""Choosing a scale: what it finds, what it refuses, and that nothing but the data decides."""

import numpy as np
import pytest

from helpers.scale_rows import make
from mace_bounds.calibration import fit_scale, group_folds, scale, select_scale
from mace_bounds.calibration.scale import group_standard_error, interval_loss, laplace_loss
from mace_bounds.calibration.splits import hashed_order


def test_selection_finds_the_structure_that_is_there():
    inputs, residual, groups, _ = make(600, seed=7, noise="heavy", feature_slope=0.7)
    model = select_scale(inputs, residual, groups, 0)
    assert model.kind == "kernel"
    assert model.scores[model.kind] < 0.85 * model.scores["constant"]


@pytest.mark.parametrize("n, draws", [(100, 6), (300, 6), (1000, 3)])
def test_on_pure_noise_nothing_is_lost_to_a_constant(n, draws):
    """Mean 95 % score over draws of true noise, in closed form for a normal law of standard deviation 0.02.

    For half-width h·σ(x): 2h + 2/0.05·2·(φ(z) - z·(1 - Φ(z))), z = h/0.02; h = q·σ with q such that coverage is 95 %.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    scores = []
    for seed in range(draws):
        inputs, residual, groups, truth = make(n, seed=seed, element_spread=0.0, support_slope=0.0)
        assert np.allclose(truth, 0.02)
        sigma = select_scale(inputs, residual, groups, seed).sigma(inputs) / 0.02
        q = brentq(lambda q, s=sigma: np.mean(2 * norm.cdf(q * s) - 1) - 0.95, 1e-3, 1e3)
        z = q * sigma
        scores.append(np.mean(2 * z + 80.0 * (norm.pdf(z) - z * norm.sf(z))))
    z = norm.ppf(0.975)
    constant = 2 * z + 80.0 * (norm.pdf(z) - z * norm.sf(z))
    assert np.mean(scores) <= 1.02 * constant


def test_the_score_of_a_constant_in_closed_form():
    # |r| = 1 everywhere: the interval is ±1 at every level, so (1 - level) * 1 on average, in eV/atom
    inputs, residual, groups, _ = make(300, seed=9)
    model = select_scale(inputs, np.sign(residual), groups, 0)
    assert model.kind == "constant"
    assert model.scores["constant"] == pytest.approx((0.32 + 0.10 + 0.05) / 3)


def test_few_groups_give_the_constant():
    inputs, residual, _, _ = make(300)
    model = select_scale(inputs, residual, ["one composition"] * len(inputs), 0)
    assert model.kind == "constant"
    assert model.scores == {}


def test_the_order_of_rows_does_not_matter():
    inputs, residual, groups, _ = make(400, feature_slope=0.5)
    order = np.random.default_rng(1).permutation(len(inputs))
    a = select_scale(inputs, residual, groups, 3)
    b = select_scale(inputs.take(order), residual[order], groups[order], 3)
    assert a.kind == b.kind
    np.testing.assert_allclose(
        a.sigma(inputs), b.sigma(inputs), rtol=1e-4
    )  # L-BFGS stops at 1e-7 of the gradient


def test_the_same_rows_give_the_same_bytes():
    inputs, residual, groups, _ = make(300, seed=4)
    a, b = (select_scale(inputs, residual, groups, 3).to_tensors() for _ in range(2))
    assert {name: array.tobytes() for name, array in a.items()} == {
        name: array.tobytes() for name, array in b.items()
    }


def test_large_data_is_sampled(monkeypatch):
    inputs, residual, groups, truth = make(3000, seed=5)
    monkeypatch.setattr(scale, "MAX_ROWS", 1000)
    model = fit_scale("log_ridge", inputs, residual, groups, 0, strength=1.0)
    kept = hashed_order(groups, "subsample:0", residual)[:1000]
    alone = fit_scale("log_ridge", inputs.take(kept), residual[kept], groups[kept], 0, strength=1.0)
    np.testing.assert_allclose(model.sigma(inputs), alone.sigma(inputs), rtol=1e-4)
    assert np.std(np.log(model.sigma(inputs) / truth)) < 0.2


def test_interval_loss_against_a_loop():
    rng = np.random.default_rng(0)
    r, sigma, groups = (
        rng.standard_normal(200),
        rng.uniform(0.5, 2.0, 200),
        np.array([f"g{i // 2}" for i in range(200)]),
    )
    folds = group_folds(groups, 4, 0)
    loss = interval_loss(r, sigma, np.ones(200), folds)
    i = 17
    ratio = np.sort(np.abs(r / sigma)[folds != folds[i]])
    halves = [ratio[int(np.ceil((len(ratio) + 1) * level)) - 1] * sigma[i] for level in (0.68, 0.9, 0.95)]
    by_hand = np.mean(
        [(1 - p) * h + max(abs(r[i]) - h, 0.0) for p, h in zip((0.68, 0.9, 0.95), halves, strict=True)]
    )
    assert loss[i] == pytest.approx(by_hand)


def test_laplace_loss_against_scipy():
    """-log density of scipy's Laplace law of the most likely scale, less the log 2 that all candidates share."""
    from scipy.stats import laplace

    rng = np.random.default_rng(1)
    r, sigma, w = rng.laplace(size=50), rng.uniform(0.5, 2.0, 50), rng.uniform(0.5, 1.5, 50)
    factor = laplace.fit(r / sigma, floc=0.0)[1]
    by_scipy = -laplace.logpdf(r, scale=factor * sigma) - np.log(2.0)
    np.testing.assert_allclose(laplace_loss(r, sigma, np.ones(50)), by_scipy, rtol=1e-10)
    assert np.average(laplace_loss(r, sigma, w), weights=w) < np.average(
        -laplace.logpdf(r, scale=factor * sigma) - np.log(2.0), weights=w
    )


def test_group_standard_error_by_hand():
    # groups sum to 1, 5 and 3: deviations from 3 are -2, 2 and 0
    values, labels = np.array([1.0, 2.0, 3.0, 3.0]), np.array(["a", "b", "b", "c"])
    assert group_standard_error(values, labels) == pytest.approx(np.sqrt(8.0))


def test_a_hashed_order_belongs_to_the_rows():
    rng = np.random.default_rng(2)
    groups, within = np.array([f"g{i % 7}" for i in range(60)]), rng.standard_normal(60)
    order, other = hashed_order(groups, "s", within), rng.permutation(60)
    np.testing.assert_array_equal(
        within[order], within[other][hashed_order(groups[other], "s", within[other])]
    )
    assert sorted(order) == list(range(60))
    assert not np.array_equal(order, hashed_order(groups, "t", within))
