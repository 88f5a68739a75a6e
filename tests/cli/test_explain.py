"""``explain``: every part of an explanation on the screen, and all of it as JSON."""

import json

import pytest

from mace_bounds import BoundsPredictor


@pytest.fixture(scope="module")
def told(crystal_file, pair):
    return BoundsPredictor(pair[1], pair[3]).explain(crystal_file)


def test_the_screen_has_the_verdict_the_factors_and_the_neighbours(run, crystal_file, pair, told):
    result = run("explain", crystal_file, *pair, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.stderr
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    text = " ".join(result.stdout.split())
    assert told.verdict in text
    assert f"{told.sigma_mev_per_atom:.1f} meV/atom" in text
    assert f"{told.half_width_mev_per_atom:.1f} meV/atom" in text
    for part in told.contributions:
        assert f"{part.name} × {part.factor:.3f}" in text
    for neighbour in told.neighbours:
        assert f"{neighbour.id} {neighbour.formula} {neighbour.distance:.2f}" in text


def test_json_is_the_object(run, crystal_file, pair, told):
    options = ["--format", "json", "--neighbours", "2", "--level", "68"]
    told_68 = json.loads(run("explain", crystal_file, *pair, *options).stdout)
    assert len(told_68["neighbours"]) == 2
    assert told_68["bounds"]["level"] == 0.68
    assert told_68["sigma_mev_per_atom"] == pytest.approx(told.sigma_mev_per_atom, rel=1e-9)
    assert [n["id"] for n in told_68["neighbours"]] == [n.id for n in told.neighbours[:2]]


def test_score_of_one_crystal_has_two_lines_of_it(run, crystal_file, labelled_file, pair, told):
    shown = run("score", crystal_file, *pair).stdout
    lines = shown.splitlines()
    assert f"why {told.verdict}" in " ".join(shown.split())
    (nearest,) = (line for line in lines if line.startswith("nearest  "))
    first = told.neighbours[0]
    assert f"{first.formula} ({first.id})" in nearest
    assert f"{round(first.error_mev_per_atom):+d} meV/atom" in nearest
    assert "\nwhy  " not in run("score", labelled_file, *pair).stdout


def test_what_cannot_be_explained_is_one_sentence(run, labelled_file, pair, tmp_path):
    broken = tmp_path / "broken.cif"
    broken.write_text("data_x\n_cell_length_a 1\n")
    result = run("explain", broken, *pair)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "broken.cif: the CIF lists no atom sites" in result.stderr
    several = run("explain", labelled_file, *pair)
    assert several.exit_code == 2
    assert several.stderr == "error: explain takes one structure, and these are more; give one of them.\n"
