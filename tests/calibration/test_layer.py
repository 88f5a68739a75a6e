"""Cells that overlap, what they fall back to, and what a head ships of them."""

import math

import numpy as np
import pytest

from mace_bounds.calibration import (
    ConformalLayer,
    LeftOutScores,
    conformal_layer,
    conformal_quantile,
    cv_plus_bounds,
)
from mace_bounds.errors import HeadError
from mace_bounds.levels import LEVELS

ONE = np.ones((1, 1))


def reach(layer, groups, level):
    """Half-width in σ of rows with these groups under one head."""
    n = len(groups)
    low, high = layer.bounds(np.zeros((1, n)), np.ones((1, n)), groups, level)
    np.testing.assert_array_equal(low, -high)
    return high.tolist()


def test_a_partition_is_mondrian():
    rng = np.random.default_rng(0)
    scores, groups = rng.standard_t(3, 900), rng.choice(["a", "b", "c"], 900, p=[0.6, 0.35, 0.05])
    layer = conformal_layer(LeftOutScores(np.abs(scores)), groups)
    assert layer.cells == ("a", "b")  # of c there are 45 or so
    parts = [np.abs(scores[groups == "a"]), np.abs(scores[groups == "b"]), np.abs(scores), np.abs(scores)]
    for level in LEVELS:
        assert reach(layer, ["a", "b", "c", "d"], level) == [
            conformal_quantile(part, level) for part in parts
        ]


def test_a_row_of_several_cells_gets_the_widest():
    rng = np.random.default_rng(1)
    scores = np.abs(rng.normal(size=1000))
    groups = [
        tuple(g for g, inside in zip("abc", rng.random(3) < 0.5, strict=True) if inside) for _ in range(1000)
    ]
    layer = conformal_layer(LeftOutScores(scores), groups, minimum=300)
    own = {g: conformal_quantile(scores[[g in row for row in groups]], 0.9) for g in "abc"}
    assert reach(layer, [("a", "b"), ("c",), ("a", "b", "c")], 0.9) == [
        max(own["a"], own["b"]),
        own["c"],
        max(own.values()),
    ]
    assert reach(layer, [(), ("new",)], 0.9) == [conformal_quantile(scores, 0.9)] * 2


def test_cells_without_enough_rows_or_clusters_fall_back():
    scores = np.concatenate([np.arange(300.0), 1000.0 + np.arange(199.0), 5000.0 + np.arange(250.0)])
    groups = ["large"] * 300 + ["small"] * 199 + ["alike"] * 250
    clusters = [f"c{i}" for i in range(499)] + [f"k{i % 50}" for i in range(250)]  # 99 % needs 99 of them
    layer = conformal_layer(LeftOutScores(scores), groups, clusters=clusters)
    assert layer.cells == ("large",)
    assert reach(layer, ["large"], 0.9) == [270.0]  # rank ⌈301 · 0.9⌉ = 271, counted from 0


def test_coverage_within_every_overlapping_cell():
    """Two kinds of rows, one three times as wide, one group across both: split conformal, mean over many draws."""
    rng = np.random.default_rng(5)
    n, repeats, level = 150, 150, 0.9
    covered = {"wide": [], "across": [], "rest": []}
    for _ in range(repeats):
        wide, across = rng.random(n + 300) < 0.3, rng.random(n + 300) < 0.5
        z = np.abs(rng.normal(size=n + 300)) * np.where(wide, 3.0, 1.0)
        names = [
            tuple(name for name, inside in (("wide", w), ("across", a)) if inside)
            for w, a in zip(wide, across, strict=True)
        ]
        layer = conformal_layer(LeftOutScores(z[:n]), names[:n], (level,), minimum=20)
        inside = z[n:] <= reach(layer, names[n:], level)
        for name, mask in (("wide", wide[n:]), ("across", across[n:]), ("rest", ~wide[n:] & ~across[n:])):
            covered[name].append(inside[mask].mean())
    for name in ("wide", "across"):
        error = np.std(covered[name]) / math.sqrt(repeats)
        assert np.mean(covered[name]) > level - 3 * error
    plain = [math.erf(3.0 * s / math.sqrt(2)) for s in (1.0,)]  # what a constant would do to the narrow ones
    assert np.mean(covered["rest"]) <= plain[0] + 0.003


def test_folds_and_cells_are_cv_plus_within_the_cell():
    rng = np.random.default_rng(2)
    z, folds, groups = (
        rng.normal(size=400),
        rng.integers(0, 3, 400),
        np.array(["a", "b"])[rng.integers(0, 2, 400)],
    )
    centre, sigma = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, (3, 4))
    layer = conformal_layer(LeftOutScores(z, folds, True), groups, (0.9,), minimum=100)
    ours = np.array(layer.bounds(centre, sigma, ["a", "a", "b", "x"], 0.9))
    for rows, mask in (
        (slice(0, 2), groups == "a"),
        (slice(2, 3), groups == "b"),
        (slice(3, 4), groups != ""),
    ):
        wanted = cv_plus_bounds(
            centre[:, rows], sigma[:, rows], LeftOutScores(z[mask], folds[mask], True), 0.9
        )
        np.testing.assert_allclose(ours[:, rows], wanted, rtol=1e-9)


def test_min_covering_level_agrees_with_the_bounds():
    rng = np.random.default_rng(4)
    z, groups = rng.normal(size=700), [("a",) if x else ("a", "b") for x in rng.random(700) < 0.5]
    layer = conformal_layer(LeftOutScores(np.abs(z)), groups, LEVELS)
    new, values = [("a",), ("a", "b"), (), ("b",)] * 25, rng.normal(size=100) * 2
    centre, sigma = np.zeros((1, 100)), np.ones((1, 100))
    least = layer.min_covering_level(centre, sigma, new, values)
    for level in (0.2, 0.55, 0.9):
        low, high = layer.bounds(centre, sigma, new, level)
        np.testing.assert_array_equal((low <= values) & (values <= high), least < level - 1e-9)


def test_signed_bounds_follow_a_skew():
    """Exponential scores: the 5 and 95 per cent points are -ln 0.95 and -ln 0.05."""
    z = -np.log(1 - (np.arange(4999) + 1) / 5000)
    layer = conformal_layer(LeftOutScores(z, signed=True), levels=(0.9,))
    low, high = layer.bounds(0 * ONE, ONE, [()], 0.9)
    assert low[0] == pytest.approx(-math.log(0.95), rel=0.01)
    assert high[0] == pytest.approx(-math.log(0.05), rel=0.01)
    assert layer.half_width(0.9) == pytest.approx((high[0] - low[0]) / 2)


@pytest.mark.parametrize(("signed", "levels"), [(False, (0.68, 0.9, 0.95)), (True, (0.68, 0.9))])
def test_levels_are_those_that_the_clusters_reach(signed, levels):
    """30 clusters reach 30/31: 0.95 but not 0.975 or 0.99."""
    clusters = [f"c{i % 30}" for i in range(120)]
    layer = conformal_layer(LeftOutScores(np.arange(120.0), signed=signed), clusters=clusters)
    assert tuple(layer.levels) == levels


def test_order_does_not_matter_and_the_layer_survives_shipping():
    rng = np.random.default_rng(6)
    z, k, groups = rng.normal(size=500), rng.integers(0, 4, 500), rng.choice(["a", "b"], 500)
    order = rng.permutation(500)
    one = conformal_layer(LeftOutScores(z, k), groups)
    other = conformal_layer(LeftOutScores(z[order], k[order]), groups[order])
    again = ConformalLayer.from_tensors(one.to_tensors(), one.to_config())
    for name, array in one.to_tensors().items():
        np.testing.assert_array_equal(array, other.to_tensors()[name])
        np.testing.assert_array_equal(array, again.to_tensors()[name])
    assert (again.cells, again.signed) == (one.cells, one.signed)


def test_faults_are_named():
    layer = conformal_layer(LeftOutScores(np.arange(200.0)))
    with pytest.raises(HeadError, match=r"levels 0\.68, 0\.9, 0\.95, 0\.99, not for 0\.5"):
        layer.check(0.5)
    with pytest.raises(HeadError, match="align them"):
        conformal_layer(LeftOutScores(np.arange(5.0)), ["a", "b"])
    with pytest.raises(HeadError, match="one column per cell"):
        ConformalLayer.from_tensors(layer.to_tensors(), {"cells": ["a"], "signed": False})
