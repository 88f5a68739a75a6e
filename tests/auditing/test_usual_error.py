"""Usual errors recovered from made ones; the evidence against numbers by hand."""

import numpy as np
import pytest
from scipy.stats import t

from mace_bounds.auditing.usual_error import evidence, fit_usual_error, usual_error


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(4)
    covariates = rng.standard_normal((3000, 2)) * [0.6, 2.0] + [3.0, -1.0]
    scale = np.exp(-3.5 + 0.8 * (covariates[:, 0] - 3.0))  # the second has nothing to say
    return covariates, scale, scale * t.rvs(3, size=3000, random_state=rng)


def test_scales_are_recovered(made):
    covariates, scale, surprise = made
    found = usual_error(fit_usual_error(surprise, covariates), covariates)
    assert abs(np.log(found / scale)).max() < 0.25
    assert np.median(found / scale) == pytest.approx(1, abs=0.05)


def test_wrong_labels_among_them_are_outvoted(made):
    covariates, scale, surprise = made
    wrong = surprise.copy()
    wrong[::50] += 2.0  # two in a hundred
    found = usual_error(fit_usual_error(wrong, covariates), covariates)
    assert np.median(found / scale) == pytest.approx(1, abs=0.1)


def test_slopes_are_not_negative_and_a_constant_covariate_is_no_trouble(made):
    covariates, _, surprise = made
    turned = np.column_stack([-covariates[:, 0], np.ones(len(covariates))])
    coefficients, _, _ = fit_usual_error(surprise, turned)
    assert coefficients[1:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(
        usual_error(fit_usual_error(surprise, turned), turned), np.exp(coefficients[0])
    )


def test_evidence_by_hand():
    # e = 1, s = 0.1: Cauchy 1/(pi 1.1 (1 + 1/1.1^2)); Student with 3: 2/(pi sqrt 3) / 0.1 (1 + 100/3)^-2
    shifted = 1 / (np.pi * 1.1 * (1 + 1 / 1.21))
    own = 2 / (np.pi * np.sqrt(3)) / 0.1 / (1 + 100 / 3) ** 2
    assert evidence(np.array([1.0]), np.array([0.1]))[0] == pytest.approx(np.log10(shifted / own))


def test_evidence_grows_with_the_error_and_shrinks_with_what_is_usual():
    errors = np.array([0.0, 0.1, 0.5, 2.0])
    found = evidence(errors, np.full(4, 0.05))
    assert found[0] < 0 < found[-1]
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(evidence(-errors, np.full(4, 0.05)), found)
    assert (np.diff(evidence(np.full(3, 0.5), np.array([0.02, 0.1, 1.0]))) < 0).all()
