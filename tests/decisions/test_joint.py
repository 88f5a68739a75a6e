"""Joint errors: what goes together is found again, and marginals are the calibrated intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from mace_bounds.calibration import DesignRows
from mace_bounds.decisions import Copula, Independent, JointErrors, Marginals
from mace_bounds.decisions.choosing import LeftOutErrors, fit_copula, fit_joint
from mace_bounds.decisions.joint import difference_std
from mace_bounds.decisions.likeness import LENGTHS


def made_rows(n=450, seed=0):
    """Rows in groups of three structures of one composition, with features near each other or far apart."""
    random = np.random.default_rng(seed)
    fractions = np.zeros((n, 118))
    for group in range(n // 3):
        elements = random.choice(20, 3, replace=False)
        fractions[3 * group : 3 * group + 3, elements] = random.dirichlet(np.ones(3))
    middle = np.repeat(random.standard_normal((n // 3, 6)), 3, axis=0)
    features = middle + random.choice([0.02, 1.0], (n, 1)) * random.standard_normal((n, 6))
    return DesignRows(np.concatenate([features, fractions], axis=1), fractions, True)


def left_out(rows, z):
    n = len(z)
    names = np.array([f"comp{i // 3}" for i in range(n)])
    std = 0.05 * np.exp(0.3 * np.random.default_rng(5).standard_normal(n))
    return LeftOutErrors(rows, names, np.array([f"h{i}" for i in range(n)]), std * z, std)


def copula(rows, **weights):
    values = np.zeros(len(LENGTHS) + 2)
    for place, weight in weights.items():
        values[int(place[1:])] = weight
    blank = Copula.blank(rows)
    return replace(blank, weights=values)


def correlated(rows, truth, seed=1):
    i, j = np.divmod(np.arange(len(rows.x) ** 2), len(rows.x))
    matrix = (truth.terms(rows, i, j) @ truth.weights).reshape(len(rows.x), -1)
    np.fill_diagonal(matrix, 1.0)
    return np.linalg.cholesky(matrix) @ np.random.default_rng(seed).standard_normal(len(rows.x))


def test_factors_say_what_the_kernels_say():
    rows = made_rows(90)
    truth = copula(rows, w2=0.5, w8=0.2, w7=0.1)
    i, j = np.triu_indices(90, 1)
    exact = truth.terms(rows, i, j) @ truth.weights
    psi = truth.factors(rows)
    assert np.abs((psi @ psi.T)[i, j] - exact).max() < 0.12  # 192 frequencies: 0.5 * 4 / sqrt(2 * 192)
    np.testing.assert_allclose(np.square(psi).sum(axis=1), 0.8, rtol=1e-12)


def test_the_copula_is_found_again_and_chosen():
    rows = made_rows()
    data = left_out(rows, correlated(rows, copula(rows, w2=0.8)))
    i, j = np.arange(0, 450, 3), np.arange(1, 450, 3)
    found, truth = fit_copula(data), copula(rows, w2=0.8)
    wrong = (found.terms(rows, i, j) @ found.weights) - (truth.terms(rows, i, j) @ truth.weights)
    assert abs(wrong.mean()) < 0.15
    model = fit_joint(data, _pops(rows))
    assert model.likeness.name == "copula"
    at = {r.likeness: r for r in model.reliability if r.kind == "polymorph" and r.level == 0.95}
    assert at["copula"].interval_score_mev_per_atom < at["independent"].interval_score_mev_per_atom
    assert abs(at["copula"].coverage - 0.95) < 0.03


def test_whitened_points_have_no_correlations():
    random = np.random.default_rng(2)
    mixed = random.standard_normal((2000, 5)) @ random.standard_normal((5, 5))
    rows = DesignRows(mixed, np.eye(118)[[0] * 2000], False)
    blank = Copula.blank(rows)
    z = (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)
    expected = np.linalg.inv(0.9 * np.corrcoef(mixed.T) + 0.1 * np.eye(5))
    np.testing.assert_allclose(blank.axes @ blank.axes, expected, rtol=1e-9)
    near = np.abs(z @ blank.axes).max(axis=1) < 5  # others are clamped
    np.testing.assert_allclose(blank.points(rows)[near], (z @ blank.axes)[near] / np.sqrt(5), rtol=1e-9)


def test_a_kind_for_which_joint_errors_are_no_better_keeps_independent_ones():
    rows = made_rows()
    z = correlated(rows, copula(rows, w2=0.9))
    data = left_out(rows, z)
    model = fit_joint(data, _pops(rows))
    at = {(r.kind, r.level, r.likeness): r.interval_score_mev_per_atom for r in model.reliability}
    for kind, scores in model.scores.items():
        levels = [level for k, level, name in at if (k, name) == (kind, "independent")]
        ratio = np.mean([at[kind, v, model.likeness.name] / at[kind, v, "independent"] for v in levels])
        assert scores.joint == (ratio < 0.98)
    errors = JointErrors(made_marginals(len(z)), model.likeness.factors(rows))
    pair = csr_matrix(([1.0, -1.0], ([0, 0], [0, 1])), (1, len(z)))
    joint = model.scores["polymorph"]
    assert joint.widths(errors, pair)[0] == errors.std(pair)[0] < errors.independent_std(pair)[0]
    assert replace(joint, joint=False).widths(errors, pair)[0] == errors.independent_std(pair)[0]


def test_a_sample_has_whole_compositions():
    rows = made_rows(90)
    some = left_out(rows, np.zeros(90)).sample(40, seed=1)
    assert 36 <= len(some.error) <= 40
    assert (np.unique(some.formulas, return_counts=True)[1] == 3).all()
    assert len(some.rows.x) == len(some.hashes) == len(some.std) == len(some.error)


def test_independent_errors_stay_so():
    rows = made_rows()
    data = left_out(rows, np.random.default_rng(3).standard_normal(450))
    found = fit_copula(data)
    i, j = np.arange(0, 450, 3), np.arange(1, 450, 3)
    assert (found.terms(rows, i, j) @ found.weights).mean() < 0.15


def test_nothing_to_measure_on_is_independence():
    rows = made_rows(60).take(np.arange(60) % 3 == 0)
    one_element = np.zeros_like(rows.fractions)
    one_element[np.arange(20), np.arange(20)] = 1.0
    alone = DesignRows(np.concatenate([rows.features, one_element], axis=1), one_element, True)
    data = left_out(alone, np.random.default_rng(0).standard_normal(20))
    data = LeftOutErrors(data.rows, np.array([f"c{i}" for i in range(20)]), data.hashes, data.error, data.std)
    model = fit_joint(data, _pops(alone))
    assert (model.likeness.name, dict(model.scores), model.reliability) == ("independent", {}, ())


def _pops(rows):
    from mace_bounds.head import PopsConfig, array_chunks, fit_pops

    y = np.random.default_rng(0).standard_normal(len(rows.x))
    return fit_pops(array_chunks(rows.x, y, np.ones(len(y))), PopsConfig()).head


def made_marginals(m=40):
    size = np.linspace(0.02, 0.2, m)
    knots = np.array([1.0, 1.7, 2.1])
    z = np.linspace(0, 6, 2049)
    return Marginals(0.1 * size, np.outer([1.0, 2.0, 2.5], size), np.outer([1.0, 1.5, 3.0], size), knots, z)


def test_quantiles_at_the_knots_are_the_bounds():
    marginals = made_marginals()
    for k, z in enumerate(marginals.knots):
        np.testing.assert_allclose(
            marginals.quantile(np.full((1, 40), z))[0], marginals.middle + marginals.above[k], rtol=1e-9
        )
        np.testing.assert_allclose(
            marginals.quantile(np.full((1, 40), -z))[0], marginals.middle - marginals.below[k], rtol=1e-9
        )


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_quantiles_grow(z):
    marginals = made_marginals(3)
    drawn = marginals.quantile(np.sort(z)[:, None] * np.ones(3))
    assert (np.diff(drawn, axis=0) >= -1e-12).all()


def test_draws_have_the_correlation_and_repeat():
    rows = made_rows(30)
    marginals = made_marginals(30)
    marginals = Marginals(
        *(0 * marginals.middle,), marginals.below, marginals.below, *(marginals.knots, marginals.table)
    )
    joint = JointErrors.of(marginals, copula(rows, w8=0.7), rows)
    draws = joint.draws(20_000, seed=4)
    assert draws.shape == (20_000, 30)
    np.testing.assert_array_equal(draws[:50], joint.draws(20_000, seed=4)[:50])
    assert np.corrcoef(draws[:, 3], draws[:, 17])[0, 1] == pytest.approx(0.7, abs=0.03)
    assert joint.correlation(3, 17) == pytest.approx(0.7)
    pair = csr_matrix(([1.0, -1.0], ([0, 0], [3, 17])), (1, 30))
    expected = np.sqrt(
        marginals.std[3] ** 2 + marginals.std[17] ** 2 - 1.4 * marginals.std[3] * marginals.std[17]
    )
    assert joint.std(pair)[0] == pytest.approx(expected, rel=1e-12)
    assert joint.independent_std(pair)[0] == pytest.approx(np.hypot(marginals.std[3], marginals.std[17]))


def test_independent_draws_are_uncorrelated():
    rows = made_rows(30)
    draws = JointErrors.of(made_marginals(30), Independent(), rows).draws(5000)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.05


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_variance_is_negative(seed):
    random = np.random.default_rng(seed)
    rows = made_rows(60, seed)
    weights = random.dirichlet(np.ones(len(LENGTHS) + 3))[:-1]
    blank = Copula.blank(rows)
    psi = replace(blank, weights=weights).factors(rows)
    matrix = psi @ psi.T
    np.fill_diagonal(matrix, 1.0)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-9
    sums = csr_matrix(random.standard_normal((5, 60)))
    np.testing.assert_allclose(
        difference_std(sums, np.ones(60), psi) ** 2,
        np.einsum("ki,ij,kj->k", sums.toarray(), matrix, sums.toarray()),
        rtol=1e-9,
    )
