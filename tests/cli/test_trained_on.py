"""``--trained-on``: what a model has seen is only told where it is known, and a head remembers it."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from mace_bounds import load_head

SHARES = ["--fit-share", 0.35, "--calibration-share", 0.35, "--conformal", "split", "--no-ellipsoid"]


@pytest.fixture(scope="module")
def own(labelled_file, labelled_crystals, tiny_model_folder, run, tmp_path_factory):
    """A model that does not say what it was trained on, features by it, and a list of what it was."""
    folder = tmp_path_factory.mktemp("own")
    model = shutil.copytree(tiny_model_folder, folder / "model")
    tensors = load_file(model / "weights.safetensors")
    del tensors["training_compositions"]
    save_file(tensors, model / "weights.safetensors")
    config = json.loads((model / "config.json").read_text())
    if "weights_sha256" in config:
        from mace_bounds._io import file_sha256

        config["weights_sha256"] = file_sha256(model / "weights.safetensors")
        (model / "config.json").write_text(json.dumps(config))
    seen = sorted({a.info["formula"] for a in labelled_crystals if a.info["in_training"]})
    (folder / "seen.csv").write_text("formula\n" + "\n".join(seen) + "\n")
    made = run("features", labelled_file, folder / "store", "--model", model)
    assert made.exit_code == 0, made.stderr
    return folder, model, set(seen)


def test_unseen_is_said_only_where_the_training_is_known(own, labelled_file, run, tmp_path):
    folder, model, seen = own
    for name, more in (("plain", []), ("told", ["--trained-on", folder / "seen.csv"])):
        fitted = run("fit", folder / "store", tmp_path / name, "--model", model, *SHARES, *more)
        assert fitted.exit_code == 0, fitted.stderr
        assert ("Coverage on unseen compositions" in fitted.stdout) == (name == "told")
    cards = {name: (tmp_path / name / "README.md").read_text() for name in ("plain", "told")}
    assert "- **The model's training**: not known here" in cards["plain"]
    assert f"- **The model's training**: {len(seen)} compositions, which the head keeps" in cards["told"]
    assert len(load_head(tmp_path / "told").training_compositions) == len(seen)
    assert load_head(tmp_path / "plain").training_compositions is None

    def scored(head, *more):
        options = [
            "--model",
            model,
            "--head",
            tmp_path / head,
            "--format",
            "csv",
            "--output",
            tmp_path / "b.csv",
        ]
        assert run("score", labelled_file, *options, *more).exit_code == 0
        return pd.read_csv(tmp_path / "b.csv")

    known = scored("told")  # the head remembers
    assert set(known["seen_in"]) == {"fit", "calibration", "model_training", "unseen"}
    assert set(known.loc[known["seen_in"] == "model_training", "formula"]) == seen
    assert (known["flags"].fillna("").str.contains("in_training") == known["formula"].isin(seen)).all()
    plain = scored("plain")
    assert set(plain["seen_in"]) == {"fit", "calibration", "unknown"}
    assert not plain["flags"].fillna("").str.contains("in_training").any()
    told = scored("plain", "--trained-on", folder / "seen.csv")
    assert set(told.loc[told["seen_in"] == "unseen", "formula"]).isdisjoint(seen)
    assert "unknown" not in set(told["seen_in"])


def test_an_audit_says_unknown_until_it_is_told(own, run, tmp_path):
    folder, model, _ = own
    assert run("fit", folder / "store", tmp_path / "head", "--model", model, *SHARES).exit_code == 0
    audit = ["audit", folder / "store", "--model", model, "--head", tmp_path / "head", "--no-plots"]
    for name, more in (("plain", []), ("told", ["--trained-on", folder / "seen.csv"])):
        made = run(*audit[:2], tmp_path / name, *audit[2:], *more)
        assert made.exit_code == 0, made.stderr
    plain, told = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("plain", "told"))
    assert set(plain["seen_in"]) == {"fit", "calibration", "unknown"}
    assert "is not known here" in plain["measured_on"]["sentence"]
    assert (plain["measured_on"]["rows"], told["measured_on"]["rows"]) == ("new_to_head", "unseen")
    assert "neither the head nor the model's own training has seen" in told["measured_on"]["sentence"]
    page = (tmp_path / "plain" / "report.html").read_text()
    assert "whether by the model is not known" in page
    wrong = run(*audit[:2], tmp_path / "none", *audit[2:], "--trained-on", tmp_path / "none.txt")
    assert wrong.exit_code == 2
    assert "none.txt" in wrong.stderr
