"""Labels of one's own and a head that is there: the new head, its card, what was gained, and what is refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from mace_bounds import CalibrateConfig, FitConfig, calibrate, list_heads, load_head
from mace_bounds.bounds import install_head
from mace_bounds.calibration import head_inputs
from mace_bounds.errors import HeadError, LabelError
from mace_bounds.examples import example_store
from mace_bounds.features import FeatureRows, FeatureStore
from mace_bounds.fitting.own_labels import USED_BY_HEAD
from mace_bounds.fitting.recalibration import recalibrated

HEAD = "mace-mpa-0-published"


@pytest.fixture(scope="module")
def old():
    return load_head(HEAD)


@pytest.fixture(scope="module")
def rows(old):
    """45 labelled rows whose compositions the head has not used."""
    every = FeatureStore(example_store()).read().labelled()
    new = np.flatnonzero(old.roles(every.table["formula"].tolist()) == "unknown")
    return every.take(new[:45])


def with_errors(rows, error):
    """The rows with labels that are off by these errors, eV/atom."""
    energy = rows.table["energy_model_ev"] + error * rows.table["n_atoms"]
    return FeatureRows(rows.table.assign(energy_ev=energy), rows.features)


def errors_of(rows):
    return ((rows.table["energy_ev"] - rows.table["energy_model_ev"]) / rows.table["n_atoms"]).to_numpy()


def test_a_store_makes_a_head_like_any(old, tmp_path, monkeypatch):
    report = calibrate(HEAD, example_store(), tmp_path / "mine")
    about = report.head.provenance
    assert report.left_out == {USED_BY_HEAD: 680}
    assert about["rows"]["test"] == about["recalibrated"]["n_labels"] == 782 - 680
    assert [row["level"] for row in about["coverage"]] == list(old.levels)
    assert about["recalibrated"]["parent"] == {"name": HEAD, "digest": old.digest}
    assert list(report.before["coverage"]) == pytest.approx([0.71, 0.92, 0.95, 0.99], abs=0.05)
    written = load_head(tmp_path / "mine")
    assert written.provenance == about
    formulas = FeatureStore(example_store()).read().labelled().table["formula"].tolist()
    assert set(written.roles(formulas)) == {"fit", "calibration"}
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(tmp_path / "heads"))
    install_head(tmp_path / "mine")
    assert list_heads()[0].coverage["0.95"] == about["coverage"][2]["coverage"]
    with pytest.raises(HeadError, match="already holds a head"):
        calibrate(HEAD, example_store(), tmp_path / "mine")


def test_errors_twice_as_large_widen_the_bounds(old, rows, tmp_path):
    report = recalibrated(old, with_errors(rows, 2.5 * errors_of(rows)), None, CalibrateConfig())
    assert 1.6 < report.change.factor < 3.75  # these 45 are 1.4 times as far off as the head expects
    assert report.gain.says in ("better", "wider")
    assert report.after["coverage"].iloc[1] > report.before["coverage"].iloc[1] + 0.1
    saved = report.save(tmp_path / "head")
    card = (tmp_path / "head" / "README.md").read_text()
    assert f"Made from the head **{HEAD}**" in card
    assert f"multiplied by {report.change.factor:.2f}" in card
    assert report.sentence in card
    mine, theirs = (head.intervals(rows).half_widths for head in (saved.head, old))
    np.testing.assert_allclose(mine, report.change.factor * theirs)
    written = load_head(tmp_path / "head")
    assert "shifted by" in written.centre.describe()
    kept, before = written.kept_rows, old.kept_rows
    assert len(kept) == len(before)  # which held these 45 too, measured by the old head
    assert kept.ids[-45:] == tuple(sorted(rows.table["id"]))
    nearest = kept.distances(head_inputs(rows, composition=True).features).argmin(axis=1)
    assert [kept.ids[k] for k in nearest] == rows.table["id"].tolist()
    share = np.mean(kept.covered_above_level[-45:] <= 0.9)  # of labels by heads changed without them
    assert share == pytest.approx(report.after["coverage"].iloc[1], abs=0.02)
    np.testing.assert_allclose(kept.typical_terms[0] - before.typical_terms[0], np.log(report.change.factor))


def test_a_bias_of_all_labels_is_taken_off(old, rows):
    report = recalibrated(old, with_errors(rows, errors_of(rows) + 0.15), None, CalibrateConfig())
    assert report.change.shift_ev_per_atom == pytest.approx(0.15, abs=0.03)
    assert report.gain.says == "better"
    assert report.gain.gain_mev_per_atom > 2 * report.gain.error_mev_per_atom


def test_labels_as_expected_leave_the_bounds_alone(old, rows):
    """Errors at the quantiles of the head's own scores: nothing to find."""
    scores = np.sort(old.conformal.scores) * float(old.scale.factor)
    places = np.linspace(0, len(scores) - 1, len(rows.table) + 2)[1:-1].astype(int)
    signs = np.where(np.arange(len(places)) % 2, 1.0, -1.0)
    sigma = old.intervals(rows).sigma[0]
    report = recalibrated(
        old, with_errors(rows, signs * np.sort(old.conformal.scores)[places] * sigma), None, CalibrateConfig()
    )
    assert len(scores)
    assert not report.change.changes
    assert "no better than before" in report.sentence
    assert report.gain.gain_mev_per_atom == pytest.approx(0.0, abs=20)
    np.testing.assert_array_equal(report.head.intervals(rows).lower, old.intervals(rows).lower)


def test_what_says_nothing_of_the_head_is_left_out_or_refused(old, rows, tmp_path):
    with pytest.raises(HeadError, match="labels of 9 compositions"):
        recalibrated(old, rows.take(np.arange(9)), None, CalibrateConfig())
    known = tmp_path / "known.txt"
    known.write_text("\n".join(rows.table["formula"][:30]) + "\n")
    told = CalibrateConfig(known=FitConfig(trained_on=str(known)))
    folder = example_store()
    report = calibrate(old, folder, config=told)
    assert report.left_out["composition in the model's training"] == 30
    assert len(report.head.training_compositions) == 30
    everything = calibrate(old, folder, config=replace(told, include_training=True))
    assert everything.head.provenance["recalibrated"]["n_labels"] == 782
    assert everything.head.provenance["test_rows_in_training"] == 30
    with pytest.raises(LabelError, match="another quantity"):
        calibrate(old, folder, config=CalibrateConfig(known=FitConfig(quantity="energy above the hull")))
    with pytest.raises(HeadError, match="the head belongs to"):
        calibrate(
            replace(old, identity=replace(old.identity, model_digest=hashlib.sha256().hexdigest())), folder
        )
