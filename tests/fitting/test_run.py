"""The head folder that ``fit`` writes, and that the coverage on its card is the coverage of its head."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from mace_bounds import CardNotes, FeatureStore, FitConfig, fit, load_head
from mace_bounds.bounds import read_card
from mace_bounds.cli import app
from mace_bounds.errors import HeadError
from mace_bounds.fitting import fitted_before, inputs_sha256
from mace_bounds.fitting.card import head_card
from mace_bounds.flags import FLAGS
from mace_bounds.structures import composition_key


def test_coverage_is_that_of_the_saved_head_on_its_test_split(tiny_fit, tiny_store):
    head = load_head(tiny_fit.folder)
    rows = FeatureStore(tiny_store).read()
    used = set(head.fit_compositions) | set(head.calibration_compositions)
    keys = [composition_key(formula) for formula in rows.table["formula"]]
    test = np.array([int(key) % 8 != 0 and key not in used for key in keys])
    left = rows.take(test)
    said = head.intervals(left)
    error = ((left.table["energy_ev"] - left.table["energy_model_ev"]) / left.table["n_atoms"]).to_numpy()
    for place, row in enumerate(head.provenance["coverage"]):
        inside = np.abs(error - said.centre) <= said.half_widths[:, place]
        assert row["n"] == test.sum() == tiny_fit.splits["test"]
        assert row["coverage"] == pytest.approx(inside.mean(), abs=1e-6)
        assert row["coverage_low"] <= row["coverage"] <= row["coverage_high"]


def test_rows_of_the_models_training_are_left_out_unless_asked_for(tiny_fit, tiny_store, whole_fit):
    n_seen = tiny_fit.left_out["composition in the model's training"]
    formulas = FeatureStore(tiny_store).read().table["formula"]
    assert n_seen == sum(int(composition_key(f)) % 8 == 0 for f in formulas) > 0
    assert sum(whole_fit.splits.values()) == len(formulas)
    assert whole_fit.head.provenance["includes_training"] is True
    used = set(whole_fit.head.fit_compositions) | set(whole_fit.head.calibration_compositions)
    test = [key for key in map(composition_key, formulas) if key not in used]
    n_known = sum(int(key) % 8 == 0 for key in test)
    assert 0 < n_known < len(test)
    assert whole_fit.head.provenance["test_rows_in_training"] == n_known
    assert tiny_fit.head.provenance["test_rows_in_training"] == 0


def test_the_card_says_what_the_model_knew_and_how_the_numbers_came_about(tiny_fit, whole_fit):
    plain, whole = ((report.folder / "README.md").read_text() for report in (tiny_fit, whole_fit))
    n_known = whole_fit.head.provenance["test_rows_in_training"]
    assert f"{n_known} of them have compositions that the model's own training has seen" in whole
    assert "nor the model's own training has seen" in plain
    assert "## How these numbers were developed\n\nChosen after looking.\n\n## Data and splits" in whole
    assert "How these numbers were developed" not in plain
    assert load_head(whole_fit.folder).provenance["development"] == "Chosen after looking."


def test_the_card_tells_warnings_of_the_fit_and_what_flags_mean(tiny_fit):
    text = (tiny_fit.folder / "README.md").read_text()
    assert f"- `extrapolates`: {FLAGS['extrapolates'].meaning}" in text
    provenance = {**tiny_fit.head.provenance, "warnings": ["the fit of the scale did not converge"]}
    warned = head_card("x", replace(tiny_fit.head, provenance=provenance), tiny_fit.coverage)
    assert "## Warnings of the fit\n\n- the fit of the scale did not converge" in warned
    quiet = replace(tiny_fit.head, provenance={**provenance, "warnings": []})
    assert "Warnings" not in head_card("x", quiet, tiny_fit.coverage)


def test_a_report_knows_the_head_as_it_was_written(tiny_fit):
    read = load_head(tiny_fit.folder)
    assert (tiny_fit.head.name, tiny_fit.head.digest) == (read.name, read.digest)
    assert read.digest in json.loads((tiny_fit.folder / "config.json").read_text())["digest"]


def test_nothing_is_written_without_a_folder(tiny_store, tiny_model_folder):
    assert fit(tiny_store, config=FitConfig(conformal="split"), model=tiny_model_folder).folder is None


def test_repeats_average_over_seeds(tiny_fit, tiny_store, tiny_model_folder):
    other = fit(
        tiny_store,
        config=FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split", seed=1),
        model=tiny_model_folder,
    )
    first, second = (report.head.provenance["coverage"][0] for report in (tiny_fit, other))
    row = tiny_fit.repeats.iloc[0]
    assert row["n_splits"] == 2
    assert row["n_rows"] == first["n"] + second["n"]
    assert row["mean"] == pytest.approx((first["coverage"] + second["coverage"]) / 2)
    assert row["std"] == pytest.approx(abs(first["coverage"] - second["coverage"]) / 2**0.5)


def test_two_fits_write_the_same_bytes(tiny_store, tiny_model_folder, tmp_path):
    config = FitConfig(fit_share=0.35, calibration_share=0.35, balance=True, n_folds=2, ellipsoid=False)
    for name in ("a/head", "b/head"):
        fit(tiny_store, tmp_path / name, config, model=tiny_model_folder)
    for name in ("head.safetensors", "config.json", "README.md"):
        assert (tmp_path / "a/head" / name).read_bytes() == (tmp_path / "b/head" / name).read_bytes()


def test_the_card_says_what_the_head_is(tiny_fit):
    text = (tiny_fit.folder / "README.md").read_text()
    card = read_card(tiny_fit.folder)
    config = json.loads((tiny_fit.folder / "config.json").read_text())
    assert card.model == "tiny"
    assert card.model_digest in text
    assert card.digest == config["digest"]
    assert card.levels == tiny_fit.head.levels
    rates = tiny_fit.head.novelty.rates
    assert rates["n_measured"] == tiny_fit.splits["calibration"] + tiny_fit.splits["test"]
    flagged = f"{100 * rates['measured']['any_grade']:.1f} % of {rates['n_measured']} structures of new"
    assert flagged in text
    for row in tiny_fit.head.provenance["coverage"]:
        assert f"| {100 * row['level']:g} % | {100 * row['coverage']:.1f} % |" in text
        assert card.coverage[f"{row['level']:g}"] == row["coverage"]


def test_unusable_requests_are_refused(tiny_store, tiny_fit, tiny_model_folder):
    with pytest.raises(HeadError, match="already holds a head"):
        fit(tiny_store, tiny_fit.folder, FitConfig(conformal="split"), model=tiny_model_folder)
    with pytest.raises(HeadError, match="already holds a head"):
        fit("no-store", tiny_fit.folder)  # before anything is read, let alone fitted
    with pytest.raises(HeadError, match="repeats = 0"):
        fit(tiny_store, repeats=0)
    config = FitConfig(fit_share=0.6, calibration_share=0.4, conformal="split")
    with pytest.raises(HeadError, match="leave none"):
        fit(tiny_store, config=config, model=tiny_model_folder)


def test_a_head_is_known_by_what_it_was_made_of(tiny_fit, tiny_store, tiny_model_folder):
    store, config = FeatureStore(tiny_store), tiny_fit_config()

    def found(config=config, notes="", **changed):
        options = {"include_training": False, "repeats": 2, **changed}
        inputs = inputs_sha256(store, config, tiny_model_folder, **options)
        return fitted_before(tiny_fit.folder, inputs, CardNotes(licence=notes))

    assert found().digest == tiny_fit.head.digest
    assert found(replace(config, seed=1)) is None
    assert found(notes="MIT") is None
    assert found(repeats=3) is None
    assert found(include_training=True) is None
    assert fitted_before(tiny_store, "", CardNotes()) is None


def test_fit_keeps_the_head_that_it_would_make_and_refuses_another(
    tiny_fit, tiny_store, tiny_model_folder, tmp_path
):
    head = tmp_path / "h"
    shutil.copytree(tiny_fit.folder, head)
    words = ["fit", tiny_store, head, "--model", tiny_model_folder, "--conformal", "split", "--repeats", "2"]
    words = [str(word) for word in (*words, "--fit-share", "0.35", "--calibration-share", "0.35")]
    kept = CliRunner().invoke(app, words)
    assert kept.exit_code == 0, kept.output
    assert "is the head that this command makes, and is kept" in " ".join(kept.stdout.split())
    assert json.loads((tmp_path / "h.summary.json").read_text())["rows"] == tiny_fit.head.provenance["rows"]
    other = CliRunner().invoke(app, [*words, "--seed", "1"])
    assert other.exit_code == 2
    assert "already holds a head" in other.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"h", "h.summary.json"}


def tiny_fit_config():
    """Settings of the fixture."""
    return FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split")
