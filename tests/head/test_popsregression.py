"""Against the authors' implementation, popsregression 0.4.0, with columns as they are.

The evidence iteration of both is run to convergence. The hyperpriors have the units of precisions: ours are set for
residuals of root mean square 1, theirs are given in the unit of the residuals.
"""

import numpy as np
import pytest
from popsregression import POPSRegression

from helpers.head_rows import correlated, mace_like
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict

CASES = {
    "unclipped": (correlated(500, 12, 1e3, 0), False, 0.0, False),
    "condition 1e6, unclipped": (correlated(2000, 40, 1e6, 1), False, 0.0, False),
    "condition 1e6, clipped": (correlated(2001, 40, 1e6, 2), False, 0.5, False),
    "constant column": (correlated(700, 20, 1e4, 3), False, 0.5, True),
    "weights": (correlated(1001, 20, 1e4, 4), True, 0.5, True),
    "mace-like, clipped": (mace_like(1500, 6), False, 0.5, False),
    "mace-like, unclipped": (mace_like(1500, 7), False, 0.0, True),
    "mace-like, weights": (mace_like(1501, 8), True, 0.5, False),
}


def both(x, y, w, posterior="hypercube", clip=0.0, intercept=False):
    square = float(np.mean(y**2) if w is None else np.average(y**2, weights=w))
    theirs = POPSRegression(
        posterior=posterior,
        percentile_clipping=clip,
        fit_intercept=intercept,
        tol=1e-13,
        max_iter=20_000,
        alpha_2=1e-6 * square,
        lambda_2=1e-6 * square,
    ).fit(x, y, sample_weight=w)
    config = PopsConfig(posterior=posterior, clip_percent=clip, fit_intercept=intercept, standardize=False)
    return theirs, fit_pops(array_chunks(x, y, w, 333), config)


@pytest.fixture(scope="module", params=list(CASES))
def pair(request):
    (x, y), weighted, clip, intercept = CASES[request.param]
    w = np.random.default_rng(99).gamma(2.0, size=len(y)) if weighted else None
    w = w if w is None else w / w.mean()
    theirs, ours = both(x, y, w, clip=clip, intercept=intercept)
    z = np.column_stack([x, np.ones(len(x))]) if intercept else x
    fitted = np.append(ours.head.design.active, intercept) if intercept else ours.head.design.active
    return x, z, fitted, theirs, ours


def test_coefficients_and_covariance(pair):
    _, _, fitted, theirs, ours = pair  # theirs has coefficients of zero for the columns that ours leaves out
    size = np.abs(theirs.coef_).max()
    assert np.abs(ours.head.ridge.coefficients - theirs.coef_[fitted]).max() <= 1e-7 * size
    assert np.abs(theirs.coef_[~fitted]).max(initial=0.0) <= 1e-12 * size
    sigma = theirs.sigma_[np.ix_(fitted, fitted)]
    assert np.abs(ours.head.ridge.covariance - sigma).max() <= 1e-7 * np.abs(sigma).max()
    assert ours.head.ridge.alpha == pytest.approx(theirs.alpha_, rel=1e-8)


def test_same_rows_are_selected(pair):
    *_, theirs, ours = pair
    assert np.array_equal(ours.selected, theirs._leverage_mask)


def test_support_width_and_middle(pair):
    # the reference draws samples; its exact support follows from its axes and bounds
    x, z, _, theirs, ours = pair
    low, high = theirs._hypercube_bounds
    along = z @ theirs._hypercube_support
    width, middle = np.abs(along) @ (high - low), along @ (0.5 * (low + high))
    p = predict(ours.head, x)
    assert np.count_nonzero(ours.head.posterior.upper) == len(low)
    assert np.abs((p.support_upper - p.support_lower) / width - 1.0).max() <= 1e-6
    assert (np.abs(0.5 * (p.support_upper + p.support_lower) - p.mean - middle) / width).max() <= 1e-6
    exact_std = np.sqrt((along**2) @ ((high - low) ** 2 / 12.0) + middle**2)
    assert np.allclose(p.misspecification_std, exact_std, rtol=1e-6)


def test_mean_and_epistemic_std(pair):
    x, _, _, theirs, ours = pair
    p = predict(ours.head, x)
    mean, std = theirs.predict(x, return_epistemic_std=True)
    assert np.abs(p.mean - mean).max() <= 1e-7 * np.abs(mean).max()
    assert np.allclose(p.epistemic_std, std, rtol=1e-6)


def test_no_selected_row_lies_outside_the_unclipped_box():
    x, y = mace_like(1500, 7)
    _, ours = both(x, y, None)
    p = predict(ours.head, x)
    slack = 1e-9 * (1.0 + np.abs(y))
    inside = (p.support_lower - slack <= y) & (y <= p.support_upper + slack)
    assert inside[ours.selected].all()


def test_ensemble_second_moment():
    x, y = mace_like(900, 11)
    theirs, ours = both(x, y, None, posterior="ensemble")
    exact = np.sqrt(np.einsum("ij,jk,ik->i", x, theirs.misspecification_sigma_, x))
    assert np.allclose(predict(ours.head, x).misspecification_std, exact, rtol=1e-6)
