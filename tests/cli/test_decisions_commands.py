"""``differences`` and ``hull`` on the command line."""

import json

import pytest
from ase import Atoms
from ase.io import read, write

from helpers.mp_server import KEY, Project, library, serving
from mace_bounds.cli.decisions import _cell, read_reactions
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


def test_volumes(run, options, labelled_file, tmp_path):
    (atoms,) = read(labelled_file, ":1")
    scan = [Atoms(atoms.numbers, atoms.positions * s, cell=atoms.cell * s, pbc=True) for s in (1, 0.98, 0.95)]
    write(
        tmp_path / "scan.extxyz", [*scan, scan[0].repeat((2, 1, 1))]
    )  # another size: it is not said to be the same
    done = run("differences", tmp_path / "scan.extxyz", "--volumes", *options, "--format", "json")
    rows = json.loads(done.stdout)
    assert [row["kind"] for row in rows] == ["strained"] * 3
    done = run("differences", tmp_path / "scan.extxyz", "--volumes", "--polymorphs", *options)
    assert done.exit_code == 2
    assert "--volumes" in done.stderr


def test_nothing_is_shown_as_nan():
    assert [_cell(value, "flags") for value in (None, float("nan"), "a;b")] == ["", "", "a;b"]
    assert (_cell(1.25, "P(<0)"), _cell(-3.04, "value")) == ("1.25", "-3.0")


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


def test_energies_of_a_table_are_bounded(
    run, labelled_file, tiny_model_folder, published_head, published_energies, tmp_path
):
    table = tmp_path / "energies.csv"
    rows = "".join(f"{name},{energy}\n" for name, energy in list(published_energies.items())[:-1])
    table.write_text(f"material_id,total_ev\n{rows}")
    own = ("--model", tiny_model_folder, "--head", published_head)
    given = ("--predictions", table, "--energy-column", "total_ev")
    refused = run("differences", labelled_file, "--polymorphs", *own)
    assert refused.exit_code == 2
    assert "--predictions TABLE --energy-column NAME" in refused.stderr
    done = run("differences", labelled_file, "--polymorphs", *own, *given, "--format", "json")
    assert done.exit_code == 0, done.stderr
    rows = {row["id_a"]: row for row in json.loads(done.stdout)}
    last = list(published_energies)[-1]
    assert "no energy was given" in rows[last]["reason"]
    assert f"{last}: no energy was given" in done.stderr
    assert "Another gives the energy" in done.stderr
    assert "Errors are" in done.stderr
    plain = [*own, *given, "--no-corrections", "--n-draws", "50", "--format", "json"]
    done = run("hull", labelled_file, *plain)
    assert done.exit_code == 0, done.stderr
    hull = {row["id"]: row for row in json.loads(done.stdout)}
    assert len(hull) == 200
    assert "no energy was given" in hull[last]["reason"]
    assert {row["model"] for row in hull.values()} == {"Another"}
    assert done.stderr.count("Another gives the energy") == 1


def test_competing_phases_come_from_the_materials_project(run, pair, tmp_path, monkeypatch):
    """The real download, from a server of our own: a system comes with all its subsystems."""
    project = Project(library())
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MACE_BOUNDS_CACHE", str(tmp_path / "cache"))
    entries = [d["entries"][d["energy_type"]] for d in project.documents]
    system = {"Li", "Fe", "O"}
    inside = [entry for entry in entries if set(entry["composition"]) <= system]
    assert len(inside) == 38
    phases, candidates = tmp_path / "phases.json", tmp_path / "candidates.json"
    phases.write_text(json.dumps(inside))
    some = [
        {**entry, "entry_id": f"new-{k}", "structure": _stretched(entry["structure"])}
        for k, entry in enumerate(inside[:3] + inside[-3:])
    ]
    candidates.write_text(json.dumps(some))
    options = [*pair, "--n-draws", "100", "--format", "json"]
    by_file = run("hull", candidates, "--phases", phases, *options)
    with serving(project) as endpoint:
        monkeypatch.setenv("MP_API_ENDPOINT", endpoint)
        by_query = run("hull", candidates, "--phases", "mp:Li-Fe-O", *options)
    assert by_query.exit_code == by_file.exit_code == 0, by_query.stderr
    assert project.searches[0]["chemsys"].count(",") == 6
    assert by_query.stdout == by_file.stdout
    rows = json.loads(by_query.stdout)
    assert all(row["reason"] is None and row["e_above_hull_ev_per_atom"] is not None for row in rows)
    assert not any("hull_incomplete" in (row["flags"] or "") for row in rows)
    again = run(
        "hull", candidates, "--phases", "mp:Li-Fe-O", *options
    )  # the server is gone, the file is here
    assert again.stdout == by_file.stdout


def _stretched(structure):
    """A structure in a cell of another height."""
    old = structure["lattice"]
    longer = {"matrix": [*old["matrix"][:2], [0.0, 0.0, 2.6]], "c": 2.6, "volume": 1.04 * old["volume"]}
    return {**structure, "lattice": {**old, **longer}}
