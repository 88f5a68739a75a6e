"""``calibrate``: what it prints, what it leaves behind, that it keeps what is there, and what it refuses."""

import json

import pandas as pd
import pytest

from mace_bounds import load_head


@pytest.fixture(scope="module")
def made(run, tiny_store, tiny_fit, tmp_path_factory):
    """A head from the labels of a store, all of which the old head was made from."""
    out = tmp_path_factory.mktemp("calibrate") / "new"
    arguments = ("calibrate", tiny_fit.folder, tiny_store, out, "--include-training", "--notes", "of | mine")
    return out, arguments, run(*arguments)


def test_a_store_and_a_head_make_a_head(made, tiny_fit):
    out, _, result = made
    assert result.exit_code == 0, result.stderr
    summary = json.loads((out.parent / "new.summary.json").read_text())
    assert summary["parent"]["digest"] == tiny_fit.head.digest
    assert summary["verdict"] in " ".join(result.stdout.split())
    for row in summary["after"]:
        assert f"{100 * row['coverage']:.1f} %" in result.stdout
    assert "of | mine" in (out / "README.md").read_text()
    assert load_head(out).provenance["recalibrated"]["notes"] == "of | mine"


def test_the_same_again_is_kept_and_another_is_refused(made, run):
    out, arguments, _ = made
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = run(*arguments)
    assert again.exit_code == 0
    assert "is kept" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    other = run(*arguments[:4], "--include-training")
    assert other.exit_code == 2
    assert "already holds a head" in other.stderr
    assert run(*arguments, "--overwrite", "--json").exit_code == 0


def test_structures_say_what_their_store_says(
    made, run, tiny_fit, tiny_model_folder, labelled_file, tmp_path
):
    summary = json.loads((made[0].parent / "new.summary.json").read_text())
    result = run(
        *("calibrate", tiny_fit.folder, labelled_file, tmp_path / "new", "--model", tiny_model_folder),
        *("--include-training", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    read = json.loads(result.stdout)
    assert read["n_labels"] == summary["n_labels"]
    for name in ("shift_ev_per_atom", "factor"):
        assert read["change"][name] == pytest.approx(summary["change"][name], rel=1e-4, abs=1e-7)
    scored = run(
        *("score", labelled_file, "--model", tiny_model_folder, "--head", tmp_path / "new"),
        *("--format", "csv", "--output", tmp_path / "b.csv"),
    )
    assert scored.exit_code == 0, scored.stderr
    assert set(pd.read_csv(tmp_path / "b.csv")["seen_in"]) <= {"fit", "calibration"}


def test_wrong_use_is_one_sentence(run, tiny_store, tiny_fit, tmp_path):
    cases = [
        ((tiny_fit.folder, tiny_store, "--energy-column", "e"), "belong together"),
        (("mini", tiny_store), "belongs to mini"),
        (("minni", tiny_store), "did you mean"),
        ((tiny_fit.folder, tmp_path / "nothing.cif"), "nothing.cif"),
    ]
    for arguments, told in cases:
        result = run("calibrate", *arguments[:2], tmp_path / "out", *arguments[2:])
        assert result.exit_code == 2, arguments
        assert told in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
