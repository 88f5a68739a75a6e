"""Against the authors' implementation, popsregression 0.4.0."""

import numpy as np
import pytest
from popsregression import POPSRegression

from helpers.head_rows import correlated, mace_like
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict

CASES = {
    "unclipped": (correlated(500, 12, 1e3, 0), None, 0.0, False),
    "condition 1e6, unclipped": (correlated(2000, 40, 1e6, 1), None, 0.0, False),
    "condition 1e6, clipped": (correlated(2001, 40, 1e6, 2), None, 0.5, False),
    "constant column": (correlated(700, 20, 1e4, 3), None, 0.5, True),
    "weights, some zero": (correlated(1001, 20, 1e4, 4), "gamma", 0.5, True),
    "fewer rows than columns": (correlated(30, 50, 10.0, 5), None, 0.0, False),
    "mace-like, clipped": (mace_like(1500, 6), None, 0.5, False),
    "mace-like, unclipped": (mace_like(1500, 7), None, 0.0, True),
    "mace-like, weights": (mace_like(1501, 8), "gamma", 0.5, False),
}


def weights(kind, n):
    if kind is None:
        return None
    w = np.random.default_rng(99).gamma(2.0, size=n)
    w[::17] = 0.0
    return w


@pytest.fixture(scope="module", params=list(CASES))
def pair(request):
    (x, y), kind, clip, intercept = CASES[request.param]
    w = weights(kind, len(y))
    theirs = POPSRegression(percentile_clipping=clip, fit_intercept=intercept).fit(x, y, sample_weight=w)
    config = PopsConfig(compatible=True, clip_percent=clip, fit_intercept=intercept)
    return x, y, theirs, fit_pops(array_chunks(x, y, w, 333), config)


def test_coefficients_and_covariance(pair):
    _, _, theirs, ours = pair
    assert np.abs(ours.head.coefficients - theirs.coef_).max() <= 1e-8 * np.abs(theirs.coef_).max()
    assert np.abs(ours.head.covariance - theirs.sigma_).max() <= 1e-8 * np.abs(theirs.sigma_).max()
    assert ours.head.n_iter == theirs.n_iter_
    assert ours.head.alpha == pytest.approx(theirs.alpha_, rel=1e-9)


def test_same_rows_are_selected(pair):
    _, _, theirs, ours = pair
    assert np.array_equal(ours.selected, theirs._leverage_mask)


def test_support_width_and_middle(pair):
    # the reference draws samples; its exact support follows from its axes and bounds
    x, _, theirs, ours = pair
    z = np.column_stack([x, np.ones(len(x))]) if ours.head.config.fit_intercept else x
    low, high = theirs._hypercube_bounds
    along = z @ theirs._hypercube_support
    width, middle = np.abs(along) @ (high - low), along @ (0.5 * (low + high))
    p = predict(ours.head, x)
    assert np.count_nonzero(ours.head.upper) == len(low)
    assert np.abs((p.support_upper - p.support_lower) / width - 1.0).max() <= 1e-7
    assert (np.abs(0.5 * (p.support_upper + p.support_lower) - p.mean - middle) / width).max() <= 1e-7
    exact_std = np.sqrt((along**2) @ ((high - low) ** 2 / 12.0) + middle**2)
    assert np.allclose(p.misspecification_std, exact_std, rtol=1e-7)


def test_mean_and_epistemic_std(pair):
    x, _, theirs, ours = pair
    p = predict(ours.head, x)
    mean, std = theirs.predict(x, return_epistemic_std=True)
    assert np.abs(p.mean - mean).max() <= 1e-8 * np.abs(mean).max()
    assert np.allclose(p.epistemic_std, std, rtol=1e-7)


def test_no_selected_row_lies_outside_the_box_of_all_corrections(pair):
    x, y, _, ours = pair
    p = predict(ours.head, x)
    slack = 1e-9 * (1.0 + np.abs(y)) + 1e-12 * (p.envelope_upper - p.envelope_lower)
    inside = (p.envelope_lower - slack <= y) & (y <= p.envelope_upper + slack)
    assert inside[ours.selected & (ours.weight > 0.0)].all()
    if ours.head.config.clip_percent == 0.0:  # then the reference's own support holds them too
        inside = (p.support_lower - slack <= y) & (y <= p.support_upper + slack)
        assert inside[ours.selected & (ours.weight > 0.0)].all()


def test_ensemble_second_moment():
    x, y = mace_like(900, 11)
    theirs = POPSRegression(posterior="ensemble").fit(x, y)
    ours = fit_pops(
        array_chunks(x, y), PopsConfig(compatible=True, posterior="ensemble", fit_intercept=False)
    )
    p = predict(ours.head, x)
    exact = np.sqrt(np.einsum("ij,jk,ik->i", x, theirs.misspecification_sigma_, x))
    assert np.allclose(p.misspecification_std, exact, rtol=1e-7)
    assert np.array_equal(p.misspecification_std, p.ensemble_std)
