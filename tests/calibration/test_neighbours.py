"""Errors of the nearest labelled crystals: against distances one by one, and what a scale learns from them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from helpers.scale_rows import make
from helpers.toy_table import toy_table
from mace_bounds.calibration import FitConfig, fit_head, fit_scale, head_inputs, load_head, scale_inputs
from mace_bounds.calibration.neighbours import MOST_NEIGHBOURS, N_NEIGHBOURS, errors_nearby, place
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.head import predict


@pytest.fixture(scope="module")
def kept():
    rng = np.random.default_rng(0)
    points, size = rng.normal(size=(400, 5)), rng.exponential(size=400)
    fractions = rng.dirichlet(np.ones(8), 100)[
        rng.integers(0, 100, 400)
    ]  # some four crystals of a composition
    return points, fractions, size, place(points, fractions, size, np.arange(400))


def by_hand(points, fractions, size, point, fraction):
    """Biweight mean of the errors of the nearest rows of other compositions, and how far the last of them is."""
    others = [i for i in range(len(size)) if not np.array_equal(fractions[i], fraction)]
    distance = cdist([point], points[others])[0]
    nearest = np.argsort(distance)[:N_NEIGHBOURS]
    reach = distance[nearest[-1]]
    weight = (1 - (distance[nearest] / reach) ** 2) ** 2
    mean = np.average(size[others][nearest], weights=weight)
    return np.log([mean + 0.02 * size.mean(), reach])


def test_each_row_sees_the_nearest_of_other_compositions(kept):
    points, fractions, size, arrays = kept
    rng = np.random.default_rng(1)
    new, of_new = rng.normal(size=(5, 5)), rng.dirichlet(np.ones(8), 5)
    for rows, of_rows in ((new, of_new), (points[:20], fractions[:20])):
        wanted = [by_hand(points, fractions, size, *row) for row in zip(rows, of_rows, strict=True)]
        np.testing.assert_allclose(errors_nearby(arrays, rows, of_rows), wanted, atol=2e-5)  # kept in float32


def test_rows_do_not_depend_on_those_beside_them(kept):
    points, fractions, _, arrays = kept
    one_by_one = [errors_nearby(arrays, points[[i]], fractions[[i]])[0] for i in range(300)]
    np.testing.assert_allclose(errors_nearby(arrays, points[:300], fractions[:300]), one_by_one, atol=1e-9)


def test_there_are_no_jumps_where_neighbours_change(kept):
    _, _, _, arrays = kept
    way = np.linspace(-2.0, 2.0, 4001)[:, None] * np.ones(5) / np.sqrt(5)  # in steps of 0.001
    said = errors_nearby(arrays, way, np.full((4001, 8), 0.125))
    assert np.abs(np.diff(said, axis=0)).max() < 0.01 < np.ptp(said[:, 0])


def test_few_rows_or_none_of_another_composition_give_finite_numbers():
    one = np.full((1, 3), 1 / 3)
    arrays = place(np.ones((1, 2)), one, np.ones(1), np.arange(1))
    same, other = (
        errors_nearby(arrays, np.zeros((1, 2)), one),
        errors_nearby(arrays, np.ones((1, 2)), 0 * one),
    )
    assert np.isfinite([same, other]).all()
    assert same[0, 0] == other[0, 0] == pytest.approx(np.log(1.02))
    assert MOST_NEIGHBOURS >= 200  # those of the smallest store with rows of training


def test_a_scale_sees_what_is_too_fine_for_kernels():
    inputs, _, groups, _ = make(6000, seed=3, element_spread=0.0, support_slope=0.0, n_compositions=6000)
    inputs = replace(inputs, features=np.random.default_rng(4).uniform(-1, 1, (6000, 2)))
    truth = 0.02 * np.exp(np.cos(9 * inputs.features[:, 0]) * np.cos(9 * inputs.features[:, 1]))
    residual = truth * np.random.default_rng(5).standard_normal(6000)
    off = {}
    for kind in ("kernel", "training_kernel"):
        model = fit_scale(kind, inputs.take(np.arange(5000)), residual[:5000], groups[:5000], 0, strength=1.0)
        new = np.arange(5000, 6000)
        off[kind] = np.std(np.log(model.sigma(inputs.take(new)) / truth[new]))
    assert off["training_kernel"] < 0.6 * off["kernel"]


def test_heads_keep_neighbours(tmp_path):
    rng = np.random.default_rng(6)
    formulas = [f"F{k}" for k in range(300)]
    elements = [[20 + int(z), 40] for z in rng.integers(0, 5, 300)]
    table = toy_table(
        0.1 * rng.normal(size=300),
        np.full(300, 2),
        elements,
        formula=formulas,
        source="x",
        structure_hash=formulas,
    )
    rows = FeatureRows(table, rng.normal(size=(300, 3)))
    manifest = Manifest("toy", "d" * 64, "Default", "readout", tuple("abc"), (0.0,) * 4, "float64", 8, {})
    head = fit_head(rows, manifest, FitConfig(conformal="split", ellipsoid=False, scale="constant")).head
    design = head_inputs(rows, composition=True)
    inputs = scale_inputs(predict(head.pops, design.x), design)
    error = np.exp(design.features[:, 0]) * rng.normal(size=300)
    head = replace(head, scale=fit_scale("training_kernel", inputs, error, formulas, 0, strength=1.0))
    read = load_head(head.save(tmp_path / "head", "card"))
    np.testing.assert_array_equal(read.intervals(rows).sigma, head.intervals(rows).sigma)
    assert np.ptp(np.log(read.intervals(rows).sigma)) > 1
