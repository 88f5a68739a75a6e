import numpy as np
import pytest

from helpers.head_rows import correlated
from mace_bounds.head import PopsConfig, array_chunks, fit_pops, predict
from mace_bounds.head.posteriors import Ensemble, stratified_rows


def test_an_ensemble_by_hand():
    ensemble = Ensemble(np.array([2.0, 1.0]), np.array([[1.0, 0.0], [-3.0, 1.0], [0.0, -1.0]]))
    along = np.array([[1.0, 2.0]])
    assert ensemble.std(along)[0] == pytest.approx(8.0**0.5)
    lower, upper = ensemble.support(along)  # members give 1, -1, -2
    assert (lower[0], upper[0]) == (-2.0, 1.0)


def test_members_are_the_corrections_and_each_hits_its_own_row():
    # the defining property of a pointwise correction: with it the model is right on the row that made it
    x, y = correlated(400, 4, 5.0, 0)
    fit = fit_pops(array_chunks(x, y), PopsConfig(posterior="ensemble"))
    head = fit.head
    assert head.posterior.members.shape == (fit.selected.sum(), 5)
    members = head.ridge.coefficients + head.posterior.members @ head.axes.T
    own = np.einsum("ij,ij->i", head.design.transform(x[fit.selected]), members)
    assert np.allclose(own, y[fit.selected], rtol=1e-9, atol=1e-11)
    p = predict(head, x[fit.selected])
    slack = 1e-9
    assert ((p.support_lower <= y[fit.selected] + slack) & (y[fit.selected] <= p.support_upper + slack)).all()


def test_more_corrections_than_members_are_thinned_evenly():
    x, y = correlated(5000, 3, 5.0, 1)
    head = fit_pops(array_chunks(x, y), PopsConfig(posterior="ensemble")).head
    members = head.posterior.members
    assert members.shape == (1000, 4)
    # heavy tails: the second moment of 1000 of 2500 members scatters by tens of per cent, not by factors
    ratio = np.sqrt(np.mean(members**2, axis=0)) / head.posterior.rms
    assert ((ratio > 0.5) & (ratio < 1.5)).all()


def test_strata_hold_every_leverage_once_and_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    leverage, usable = rng.random(1003), rng.random(1003) < 0.9
    rows, counts = stratified_rows(leverage, usable, 100)
    assert len(rows) == len(set(rows.tolist())) == 100
    assert usable[rows].all()
    assert (np.diff(rows) > 0).all()
    assert counts.sum() == usable.sum()
    rank = np.argsort(np.argsort(leverage[usable]))[np.searchsorted(np.flatnonzero(usable), rows)]
    share = np.sort(rank) * 100.0 / usable.sum()  # one in each hundredth
    assert ((np.arange(100) - 0.5 < share) & (share < np.arange(100) + 1.5)).all()
    order = rng.permutation(1003)
    again, _ = stratified_rows(leverage[order], usable[order], 100)
    assert np.array_equal(np.sort(order[again]), rows)
    other, _ = stratified_rows(leverage, usable, 100, seed=1)
    assert not np.array_equal(other, rows)


def test_few_rows_are_all_taken():
    rows, counts = stratified_rows(np.ones(4), np.array([True, False, True, True]), 3)
    assert rows.tolist() == [0, 2, 3]
    assert counts.tolist() == [1.0, 1.0, 1.0]
