"""``features``, ``fit``, ``audit``, ``plot``: what they print and leave behind."""

import json

import pandas as pd
import pytest

from mace_bounds.cli import console


@pytest.fixture(scope="module")
def bulk(labelled_file, tiny_model_folder, run, tmp_path_factory):
    """Run the path from structures to report once; returns the folder and the results."""
    folder = tmp_path_factory.mktemp("bulk")
    store, head, out = folder / "store", folder / "head", folder / "out"
    model = ["--model", tiny_model_folder]
    shares = ["--fit-share", 0.35, "--calibration-share", 0.35, "--conformal", "split"]
    commands = {
        "features": ["features", labelled_file, store, *model, "--shard-rows", 64, "--symmetry"],
        "fit": ["fit", store, head, *model, *shares, "--licence", "MIT"],
        "audit": ["audit", store, out, *model, "--head", head, "--no-plots"],
        "plot": ["plot", out, "--format", "svg"],
    }
    return folder, {name: run(*line) for name, line in commands.items()}


def test_every_step_succeeds_and_says_what_it_wrote(bulk):
    folder, results = bulk
    assert {name: result.exit_code for name, result in results.items()} == dict.fromkeys(results, 0)
    assert "200 structures with" in results["features"].stdout
    assert "Coverage on unseen compositions" in results["fit"].stdout
    verdict = json.loads((folder / "head.summary.json").read_text())["verdict"]
    assert verdict["sentence"] in " ".join(results["fit"].stdout.split())
    assert "Measured coverage" in results["audit"].stdout
    assert str(folder / "out" / "report.html") in results["audit"].stdout
    assert str(folder / "out" / "plots" / "calibration.svg") in results["plot"].stdout


def test_summaries_lie_beside_the_output(bulk):
    folder, _ = bulk
    features = json.loads((folder / "store.summary.json").read_text())
    assert features["counts"] == {"structures": 200, "scored": 200, "failed": 0}
    assert not (folder / "store" / "summary.json").exists()
    fit = json.loads((folder / "head.summary.json").read_text())
    audit = json.loads((folder / "out" / "summary.json").read_text())
    assert fit["model"]["digest"] == features["model"]["digest"] == audit["model"]["digest"]
    assert [row["coverage"] for row in fit["coverage"]] == [row["coverage"] for row in audit["coverage"]]
    assert "MIT" in (folder / "head" / "README.md").read_text()


def test_what_the_screen_says_is_what_the_summary_says(bulk):
    folder, results = bulk
    summary = json.loads((folder / "out" / "summary.json").read_text())
    for row in summary["coverage"]:
        assert f"{100 * row['level']:g} %" in results["audit"].stdout
        assert f"{100 * row['coverage']:.1f} %" in results["audit"].stdout
    assert summary["measured_on"]["sentence"] in " ".join(results["audit"].stdout.split())
    assert summary["atlas"]["symmetry"]  # the store was made with it


def test_finished_features_are_not_computed_again(bulk, run, labelled_file, tiny_model_folder):
    folder, _ = bulk
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "store").glob("shard-*")}
    command = ["features", labelled_file, folder / "store", "--model", tiny_model_folder, "--shard-rows", 64]
    again = run(*command, "--symmetry")
    assert again.exit_code == 0
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "store").glob("shard-*")} == before
    other = run(*command[:-2])
    assert other.exit_code == 2
    assert "shard_rows, symmetry differ" in other.stderr


def test_a_head_is_not_replaced_unless_asked(bulk, run):
    folder, _ = bulk
    result = run("fit", folder / "store", folder / "head")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr


def test_json_of_fit_and_audit_stands_alone(bulk, run, tiny_model_folder, tmp_path):
    folder, _ = bulk
    model = ["--model", tiny_model_folder]
    found = run(
        "audit", folder / "store", tmp_path / "o", *model, "--head", folder / "head", "--json", "--no-plots"
    )
    assert json.loads(found.stdout)["counts"]["structures"] == 200
    assert pd.read_csv(tmp_path / "o" / "coverage.csv")["rows"].isin(["unseen", "all"]).all()


def test_a_head_that_includes_the_models_training_says_so_on_the_screen(
    bulk, run, crystal_file, tiny_model_folder, tmp_path
):
    folder, _ = bulk
    model = ["--model", tiny_model_folder]
    shares = ["--fit-share", 0.35, "--calibration-share", 0.35, "--conformal", "split", "--no-ellipsoid"]
    made = run("fit", folder / "store", tmp_path / "head", *model, *shares, "--include-training")
    assert made.exit_code == 0
    summary = json.loads((tmp_path / "head.summary.json").read_text())
    known, n = summary["test_rows_in_training"], summary["rows"]["test"]
    assert 0 < known < n
    assert "Coverage on compositions not used by the head" in made.stdout
    assert f"has seen the compositions of {known} of the {n} structures that were measured" in " ".join(
        made.stdout.split()
    )
    audited = run(
        "audit", folder / "store", tmp_path / "o", *model, "--head", tmp_path / "head", "--no-plots"
    )
    shown = " ".join(audited.stdout.split())
    assert f"{known} of them have compositions that the model's own training has seen" in shown
    scored = run("score", crystal_file, *model, "--head", tmp_path / "head")
    screen = " ".join(scored.stdout.split())
    assert (
        f"compositions that the head has not used; {known} of them have compositions that the model's"
        in screen
    )


def test_heads_and_models_are_listed(bulk, run, monkeypatch):
    folder, _ = bulk
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(folder))
    listed = json.loads(run("heads", "--json").stdout)
    mine = next(card for card in listed if card["path"] == str(folder / "head"))
    assert mine["model"] == "tiny"
    assert set(mine["coverage"]) == {f"{level:g}" for level in mine["levels"]}
    assert "tiny" in run("heads").stdout
    names = [model["name"] for model in json.loads(run("models", "--json").stdout)]
    assert names[0] == "mini"
    assert "medium-mpa-0" in names


def test_heads_are_installed_and_removed(tiny_fit, whole_fit, run, tmp_path, monkeypatch):
    own = tmp_path / "own"
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(own))
    assert run("heads", "install", tiny_fit.folder, "--name", "mine").exit_code == 0
    assert run("heads", "install", tiny_fit.folder, "--name", "mine").exit_code == 0  # the same one
    other = run("heads", "install", whole_fit.folder, "--name", "mine")
    assert other.exit_code == 2
    assert "another head; choose another name, replace it (--force)" in other.stderr
    assert run("heads", "install", whole_fit.folder, "--name", "mine", "--force").exit_code == 0
    assert (own / "mine" / "config.json").read_bytes() == (whole_fit.folder / "config.json").read_bytes()
    assert "mine" in run("heads").stdout
    (tmp_path / "no-head").mkdir()
    for refused in (["install", tmp_path / "no-head"], ["remove", "mini"], ["remove", "../own"], ["install"]):
        assert run("heads", *refused).exit_code == 2
    assert run("heads", "remove", "mine").stdout.startswith("removed ")
    assert list(own.iterdir()) == []


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with console.progress("structures", 4) as update:
        update(2, 1)
        update(4, 1)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("2 of 4 structures, 1 failed, ")
    assert first.endswith("s left")
    assert second.startswith("4 of 4 structures, 1 failed, ")
