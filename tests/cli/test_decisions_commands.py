"""``differences`` and ``hull`` on the command line."""

import json

import pytest

from mace_bounds.cli.decisions import read_reactions
from mace_bounds.errors import SourceError


@pytest.fixture(scope="module")
def options(tiny_model_folder, tiny_fit):
    return ("--model", str(tiny_model_folder), "--head", str(tiny_fit.folder))


def test_polymorphs_and_reactions(run, options, labelled_file, tmp_path):
    table = json.loads(run("differences", labelled_file, "--polymorphs", *options, "--format", "json").stdout)
    assert all(row["formula"] and row["reason"] is None for row in table)
    a, b = table[0]["id_a"], table[0]["id_b"]
    reactions = tmp_path / "reactions.csv"
    reactions.write_text(f"name,reaction\nfirst,{b} -> {a}\nsecond,{a} -> nothing\n")
    out = tmp_path / "out.csv"
    done = run("differences", labelled_file, "--reactions", reactions, *options, "--output", out)
    assert done.exit_code == 0
    assert "'nothing'" in done.stderr
    assert out.read_text().count("\n") == 3
    shown = run("differences", labelled_file, "--polymorphs", *options)
    assert "P(<0)" in shown.stdout
    assert "at 0 K" in " ".join(shown.stdout.split())


def test_formation_needs_references(run, options, labelled_file, tmp_path):
    elements = tmp_path / "elements.json"
    elements.write_text(
        json.dumps(dict.fromkeys(["Li", "Na", "O", "F", "Fe", "Ti", "Cl", "S", "Mg", "Al"], -3.0))
    )
    done = run(
        "differences", labelled_file, "--formation", "--references", elements, *options, "--format", "json"
    )
    rows = json.loads(done.stdout)
    assert len(rows) == 200
    assert all(
        row["reason"] is None and row["lower_mev_per_atom"] < row["upper_mev_per_atom"] for row in rows
    )


def test_which_differences_must_be_said(run, labelled_file):
    done = run("differences", labelled_file)
    assert done.exit_code == 2
    assert "--polymorphs" in done.stderr


def test_hull(run, options, labelled_file, tmp_path):
    out = tmp_path / "hull.json"
    done = run("hull", labelled_file, *options, "--no-corrections", "--n-draws", "50", "--output", out)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(out.read_text())
    assert len(rows) == 200
    assert "competing phases" in done.stderr
    assert all(row["reason"] or row["lower_ev_per_atom"] <= row["upper_ev_per_atom"] for row in rows)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "reaction\n"])
def test_a_file_without_reactions_is_refused(text, tmp_path):
    path = tmp_path / "r.txt"
    path.write_text(text)
    with pytest.raises(SourceError, match="no reaction"):
        read_reactions(path)


def test_lines_are_reactions(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("# made\nLi2O + Fe2O3 -> LiFeO2\n\n2 Li -> Li2\n")
    assert read_reactions(path) == ["Li2O + Fe2O3 -> LiFeO2", "2 Li -> Li2"]
