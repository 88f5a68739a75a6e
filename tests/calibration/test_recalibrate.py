"""Shift and scale of a head by a few labels: what they are, that they are shrunk, and that coverage follows."""

import numpy as np
import pytest

from mace_bounds.calibration import (
    Adjustment,
    LeftOutScores,
    NewLabels,
    conformal_layer,
    fit_adjustment,
    left_out_adjustments,
    load_head,
)
from mace_bounds.errors import HeadError
from mace_bounds.examples import example_store
from mace_bounds.features import FeatureStore
from mace_bounds.metrics import Membership

LAYER = conformal_layer(LeftOutScores(np.random.default_rng(0).laplace(size=3000)))


def labels_of(error, *, sigma=0.05, compositions=None):
    """Labels of a head with one centre, zero, and one width."""
    n = len(error)
    compositions = np.arange(n) if compositions is None else compositions
    nothing = Membership((), np.zeros((n, 0), dtype=bool))
    return NewLabels(
        np.asarray(error, dtype=np.float64), np.zeros((1, n)), np.full((1, n), sigma), nothing, compositions
    )


def test_a_head_with_a_change_has_its_bounds_moved_and_widened():
    """Of the shipped head of published errors, with one centre: lower and upper bounds are the old ones, scaled."""
    folder = example_store().parent.parent / "heads" / "mace-mpa-0-published"
    head, rows = load_head(folder), FeatureStore(example_store()).read().labelled().take(np.arange(30))
    before, after = head.intervals(rows), Adjustment(0.01, 1.5).apply(head).intervals(rows)
    np.testing.assert_allclose(after.centre, before.centre + 0.01)
    np.testing.assert_allclose(after.lower, 0.01 + 1.5 * before.lower)
    np.testing.assert_allclose(after.upper, 0.01 + 1.5 * before.upper)
    same = NewLabels.of(before, np.zeros(30), rows.table["formula"].to_numpy(str))
    low, high = same.bounds(head.conformal, 0.95, 0.01, 1.5)
    np.testing.assert_allclose(low, after.at(0.95)[0])
    np.testing.assert_allclose(high, after.at(0.95)[1])


@pytest.mark.parametrize(("truth", "low", "high"), [(1.0, 0.9, 1.15), (2.0, 1.5, 2.0), (0.5, 0.6, 0.95)])
def test_the_factor_goes_towards_the_truth_and_not_beyond(truth, low, high):
    rng = np.random.default_rng(1)
    found = [fit_adjustment(labels_of(truth * 0.05 * rng.laplace(size=30)), LAYER).factor for _ in range(30)]
    assert low < np.median(found) < high


def test_labels_of_the_old_kind_change_little():
    rng = np.random.default_rng(2)
    changes = [fit_adjustment(labels_of(0.05 * rng.laplace(size=20)), LAYER) for _ in range(60)]
    assert np.mean([not change.changes for change in changes]) > 0.4
    assert np.mean(np.abs(np.log([change.factor for change in changes]))) < 0.12  # where raw ratios have 0.25
    assert np.mean(np.abs([change.shift_ev_per_atom for change in changes])) < 0.01  # half-widths of 0.057


def test_a_bias_is_found():
    rng = np.random.default_rng(3)
    change = fit_adjustment(labels_of(0.1 + 0.02 * rng.standard_normal(40)), LAYER)
    assert change.shift_ev_per_atom == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("n", [20, 60])
def test_bounds_that_held_too_rarely_hold_again(n):
    """Errors 1.7 times as large as the head's data: nominal 90 % covers 74 % before, within five points after."""
    rng = np.random.default_rng(4)
    truth = 1.7 * 0.05
    before, after = [], []
    for _ in range(60):
        change = fit_adjustment(labels_of(truth * rng.laplace(size=n)), LAYER)
        new = labels_of(truth * rng.laplace(size=400))
        for out, pair in ((before, (0.0, 1.0)), (after, (change.shift_ev_per_atom, change.factor))):
            low, high = new.bounds(LAYER, 0.9, *pair)
            out.append(np.mean((low <= new.error) & (new.error <= high)))
    assert np.mean(before) == pytest.approx(1 - 0.1 ** (1 / 1.7), abs=0.01)  # of a Laplace distribution
    assert np.mean(after) == pytest.approx(0.9, abs=0.05)


def test_compositions_are_counted_and_not_rows():
    """Rows that are there five times say what they say once, and three compositions are too few."""
    error = 0.1 * np.random.default_rng(5).laplace(size=24)
    once = fit_adjustment(labels_of(error), LAYER)
    often = fit_adjustment(labels_of(np.repeat(error, 5), compositions=np.repeat(np.arange(24), 5)), LAYER)
    assert often.factor == pytest.approx(once.factor)
    assert often.shift_ev_per_atom == pytest.approx(once.shift_ev_per_atom)
    with pytest.raises(HeadError, match="labels of 3 compositions"):
        fit_adjustment(labels_of(error, compositions=np.arange(24) % 3), LAYER)


def test_what_is_left_out_is_not_seen():
    """An absurd label changes the bounds of all others, and not its own."""
    error = 0.15 * np.random.default_rng(6).laplace(size=15)
    shift, factor = left_out_adjustments(labels_of(error), LAYER)
    wild = error.copy()
    wild[4] = 3.0
    other_shift, other_factor = left_out_adjustments(labels_of(wild), LAYER)
    assert (other_shift[4], other_factor[4]) == (shift[4], factor[4])
    assert (other_factor[np.arange(15) != 4] != factor[np.arange(15) != 4]).mean() > 0.5
