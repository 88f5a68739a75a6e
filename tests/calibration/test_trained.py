"""Rows of the model's own training teach a scale where errors are large, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.scale_rows import make
from helpers.toy_table import toy_table
from mace_bounds.calibration import FitConfig, TrainedRows, fit_scale, residual_ev_per_atom, select_scale
from mace_bounds.calibration.inputs import TrainedErrors
from mace_bounds.calibration.scale_kinds import kinds_for
from mace_bounds.features import FeatureRows
from mace_bounds.structures import composition_keys


def bent(n: int, seed: int):
    """Inputs of one feature, and true sizes that go as the exponential of its cosine."""
    inputs, _, groups, _ = make(n, seed=seed, element_spread=0.0, support_slope=0.0)
    inputs = replace(inputs, features=inputs.features[:, :1])
    return inputs, groups, 0.02 * np.exp(np.cos(2.0 * inputs.features[:, 0]))


def with_trained(inputs, share: float, seed: int = 5):
    """Add 1,500 rows of the model's training, whose errors are a share of those of new rows."""
    others, groups, truth = bent(1500, seed)
    error = share * truth * np.random.default_rng(seed).standard_normal(len(truth))
    return replace(inputs, trained=TrainedErrors(others, error, np.char.add("trained ", groups)))


@pytest.fixture(scope="module")
def few():
    inputs, groups, truth = bent(250, 1)
    return inputs, groups, truth, truth * np.random.default_rng(2).standard_normal(len(truth))


def test_it_learns_where_errors_are_large_from_rows_where_they_are_half_as_large(few):
    inputs, groups, _, error = few
    new, _, truth = bent(2000, 9)
    off = {}
    for kind in ("kernel", "training_kernel"):
        model = fit_scale(kind, with_trained(inputs, 0.5), error, groups, 0, strength=1.0)
        ratio = model.sigma(new) / truth
        off[kind] = np.std(np.log(ratio))
    assert off["training_kernel"] < 0.15 < 0.25 < off["kernel"]
    assert np.median(ratio) == pytest.approx(
        1.0, abs=0.12
    )  # how large is told by rows that are new to the model


@pytest.mark.parametrize("share", [0.1, 1.0, 10.0])
def test_how_large_errors_are_in_training_changes_nothing(few, share):
    inputs, groups, _, error = few
    sigma = [
        fit_scale("training_kernel", with_trained(inputs, s), error, groups, 0, strength=1.0).sigma(inputs)
        for s in (0.5, share)
    ]
    assert np.std(np.log(sigma[1] / sigma[0])) < 0.05


def test_it_is_chosen_where_it_helps_and_not_where_training_tells_nothing(few):
    inputs, groups, _, error = few
    assert select_scale(with_trained(inputs, 0.5), error, groups, 0).kind == "training_kernel"
    useful = with_trained(inputs, 0.5)
    shuffled = np.random.default_rng(3).permutation(useful.trained.residual)
    useless = replace(inputs, trained=replace(useful.trained, residual=shuffled))
    assert select_scale(useless, error, groups, 0).kind != "training_kernel"


def test_kinds_need_as_many_rows_of_training_as_of_others():
    assert "training_kernel" in kinds_for(200, 200)
    assert "training_kernel" not in (*kinds_for(200, 199), *kinds_for(199, 200))
    assert kinds_for(0, 10_000)[0] == "constant"


def test_rows_of_training_are_the_labelled_and_plausible_ones_of_its_compositions():
    residual = np.array([0.01, 0.02, 99.0, 0.04, np.nan])
    table = toy_table(
        residual,
        np.full(5, 2),
        [[11, 17], [3, 9], [11, 17], [12, 8], [11, 17]],
        formula=["NaCl", "LiF", "NaCl", "MgO", "NaCl"],
        id=["d", "c", "b", "a", "e"],
        source=["x", "x", "y", "y", "y"],
    )
    rows = FeatureRows(table, np.arange(10.0).reshape(5, 2))
    found = TrainedRows.of(rows, np.sort(composition_keys(["NaCl", "MgO"])), FitConfig())
    assert found.groups.tolist() == ["MgO", "NaCl"]  # by id
    np.testing.assert_allclose(found.y, [0.04, 0.01])
    assert found.without(("y",)).groups.tolist() == ["NaCl"]
    assert not len(TrainedRows.of(rows, None, FitConfig()))
    assert np.isfinite(residual_ev_per_atom(rows.take(np.arange(4)))).all()
