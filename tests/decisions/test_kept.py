"""The file of joint errors in a head's folder: written by fit, read again, refused when damaged or foreign."""

from dataclasses import replace

import numpy as np
import pytest

from mace_bounds.calibration import DesignRows, FitConfig, head_inputs, load_head
from mace_bounds.decisions import JOINT, Copula, JointErrors, Marginals, joint_model, with_strained
from mace_bounds.decisions.likeness import likeness_from
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, FeatureStore


def test_fit_writes_it_and_the_folder_gives_it_back(tiny_fit):
    head = load_head(tiny_fit.folder)
    assert (tiny_fit.folder / JOINT).read_bytes() == tiny_fit.head.beside[JOINT]
    model, again = joint_model(tiny_fit.head), joint_model(head)
    assert model.likeness.name == again.likeness.name
    assert model.reliability == again.reliability
    for kind, scores in model.scores.items():
        np.testing.assert_array_equal(scores.scores, again.scores[kind].scores)
        assert scores.joint == again.scores[kind].joint


def test_draws_lie_in_the_calibrated_intervals_at_their_levels(tiny_fit, tiny_store):
    head = tiny_fit.head
    rows = FeatureStore(tiny_store).read().scored()
    said = head.intervals(rows)
    design = head_inputs(rows, composition=head.identity.composition)
    draws = JointErrors.of(
        Marginals.of(head, said.centre, said.lower.T, said.upper.T), joint_model(head).likeness, design
    ).draws(4000, seed=1)
    for level in said.levels:
        lower, upper = said.at(level)
        inside = ((draws >= lower) & (draws <= upper)).mean()
        assert inside == pytest.approx(level, abs=0.01)
        assert (draws < lower).mean() == pytest.approx((1 - level) / 2, abs=0.01)


def test_files_of_the_first_heads_measure_distances_without_axes(tiny_fit):
    rows = np.random.default_rng(0).standard_normal((30, 5))
    copula = Copula.blank(DesignRows(rows, np.eye(118)[[0] * 30], False))
    kept = {name: array for name, array in copula.to_tensors().items() if name != "axes"}
    found = likeness_from("copula", kept, tiny_fit.head.pops)
    np.testing.assert_array_equal(found.axes, np.eye(5))
    same = likeness_from("copula", copula.to_tensors(), tiny_fit.head.pops)
    np.testing.assert_array_equal(same.axes, copula.axes)


def test_a_head_without_it_has_independent_errors(tiny_fit):
    model = joint_model(replace(tiny_fit.head, beside={}))
    assert (model.likeness.name, dict(model.scores)) == ("independent", {})


def test_damaged_and_foreign_files_are_refused(tiny_fit, whole_fit):
    data = tiny_fit.head.beside[JOINT]
    for wrong in (b"", data[:-40], data[: len(data) // 2], b"x" * 100):
        with pytest.raises(HeadError, match="cannot be read"):
            joint_model(replace(tiny_fit.head, beside={JOINT: wrong}))
    with pytest.raises(HeadError, match="another head"):
        joint_model(replace(whole_fit.head, beside={JOINT: data}))


def test_a_head_is_taught_of_strained_crystals_and_keeps_all_else(tiny_fit, tiny_store):
    rows = FeatureStore(tiny_store).read().labelled()
    smaller = rows.table.assign(
        id=rows.table["id"] + "@",
        structure_hash=rows.table["structure_hash"] + "@",
        volume_a3=0.8 * rows.table["volume_a3"],
        energy_ev=rows.table["energy_ev"] + 0.01 * rows.table["n_atoms"],
    )
    both = FeatureRows.join([rows, FeatureRows(smaller, rows.features)])
    both.table["space_group"] = "001 P1"
    config = FitConfig(**tiny_fit.head.provenance["settings"])
    head = replace(tiny_fit.head, beside=with_strained(tiny_fit.head, config, both))
    before, after = joint_model(tiny_fit.head), joint_model(head)
    assert set(after.scores) == {*before.scores, "strained"}
    for kind, scores in before.scores.items():
        np.testing.assert_array_equal(scores.scores, after.scores[kind].scores)
    fit = set(tiny_fit.head.fit_compositions.tolist())
    assert 0 < after.scores["strained"].n_compositions <= len(fit)
    # the error of every difference is 10 meV/atom: widths of which the scores are multiples are what is left
    assert (after.scores["strained"].scores > 0).all()
    assert {row.kind for row in after.reliability} >= {"strained"}
    again = with_strained(head, config, both)[JOINT]
    assert again == head.beside[JOINT]
    assert with_strained(tiny_fit.head, config, both.take(np.zeros(len(both.table), dtype=bool)))[JOINT]
