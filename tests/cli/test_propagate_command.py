"""``propagate`` on the command line."""

import json

import pytest

from mace_bounds.columns import PROPERTIES, names
from mace_bounds.examples import example_files


@pytest.fixture(scope="module")
def files():
    return [str(path) for path in example_files("NaCl", "CsCl")]


def test_equations_of_state_of_files(run, files):
    done = run("propagate", "eos", *files, example_files("broken")[0], "--model", "mini", "--format", "json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert set(names(PROPERTIES)) <= set(rows[0])
    assert [row["property"] for row in rows[:4]] == ["V0", "E0", "B0", "B0'"]
    assert {row["method"] for row in rows[:4]} == {"curves"}
    assert rows[-1]["value"] is None
    assert "apart" in rows[-1]["reason"]
    assert rows[0]["model"] == "mini"
    assert 15 < rows[0]["value"] < 30  # Å³/atom, NaCl: 22.4


def test_a_plot_and_a_table_of_elastic_constants(run, files, tmp_path):
    picture = tmp_path / "elastic.png"
    done = run("propagate", "elastic", files[0], "--model", "mini", "--ions", "clamped", "--plot", picture)
    assert done.exit_code == 0
    assert "C44" in done.stdout
    assert "clamped" in done.stdout
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_done_is_one_sentence(run, files):
    assert "two structures or more" in run("propagate", "phases", files[0], "--model", "mini").stderr
    assert run("propagate", "phases", files[0], "--model", "mini").exit_code == 1
    other = run("propagate", "phases", *files, "--model", "mini")
    assert "--reactions" in other.stderr
    assert run("propagate", "colour", files[0]).exit_code == 2
    assert run("propagate", "eos", files[0], "--model", "mini", "--output", "x.extxyz").exit_code == 2
