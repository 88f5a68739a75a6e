"""``propagate`` on the command line."""

import json

import pytest
from ase.build import bulk
from ase.io import write

from mace_bounds.backbones import load_model
from mace_bounds.columns import PROPERTIES, names
from mace_bounds.examples import example_files
from mace_bounds.propagation import Potential, surface_energy
from mace_bounds.propagation.propagate import parse_indices
from mace_bounds.structures import read


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


@pytest.fixture(scope="module")
def copper():
    return str(example_files("Cu")[0])


def test_planes_of_the_command_line_are_crystal_planes(run, copper):
    """{111} of fcc: one atom a layer, and equal energies of equivalent planes."""
    model = load_model("mini", dtype="float64")
    crystal = next(iter(read(copper))).crystal
    (wanted,) = surface_energy(crystal, Potential.frozen(model), (1, 1, 1))
    done = run("propagate", "surface", copper, "--model", "mini", "--miller", "-1-11", "--format", "json")
    (row,) = json.loads(done.stdout)
    assert row["property"] == "surface energy (-1-11, 6 atoms)"
    assert row["value"] == pytest.approx(wanted.value, rel=1e-4)
    assert row["envelope_lower"] < row["lower"] < row["upper"] < row["envelope_upper"]
    assert row["failed_share"] == 0


@pytest.mark.parametrize(
    ("text", "indices"),
    [("110", (1, 1, 0)), ("-1-11", (-1, -1, 1)), ("1,-1,0", (1, -1, 0)), ("10 -1, 2", (10, -1, 2))],
)
def test_indices_are_read(text, indices):
    assert parse_indices(text) == indices


@pytest.mark.parametrize("text", ["11", "1100", "000", "1,1", "--110", "abc", "1.5,0,0"])
def test_what_are_no_indices_is_refused(text):
    with pytest.raises(ValueError, match="no plane or direction"):
        parse_indices(text)


def test_a_dumbbell_a_fault_and_phonons(run, copper, tmp_path):
    options = ("--model", "mini", "--format", "json")
    (row,) = json.loads(
        run("propagate", "interstitial", copper, *options, "--direction", "100", "--shortest", "3").stdout
    )
    assert row["property"] == "100 dumbbell formation energy (4 sites)"
    plane = ("--miller", "111", "--direction", "1,1,-2", "--images", "3")
    done = run("propagate", "fault", copper, *options, *plane, "--ions", "clamped")
    rows = json.loads(done.stdout)
    assert [row["property"][:26] for row in rows] == [
        "fault (111)[11-2] at 0.333",
        "fault (111)[11-2] at 0.667",
    ]
    assert 0 < rows[0]["value"] < rows[1]["value"]  # stacking fault, and A on A
    for k, a in enumerate((3.6, 3.7)):
        write(tmp_path / f"{k}.cif", bulk("Cu", a=a))
    (row,) = json.loads(run("propagate", "fault", tmp_path / "0.cif", tmp_path / "1.cif", *options).stdout)
    assert row["property"] == "fault 1"
    rows = json.loads(run("propagate", "phonons", copper, *options).stdout)
    assert [row["property"] for row in rows[:2]] == ["phonon (0 0 1/2) 1-2", "phonon (0 0 1/2) 3"]
    bad = run("propagate", "fault", copper, "--model", "mini", "--miller", "100", "--direction", "100")
    assert bad.exit_code == 1
    assert "not in the plane" in bad.stderr
    assert run("propagate", "surface", copper, "--model", "mini", "--miller", "12").exit_code == 2


def test_magnetic_crystals_are_flagged_and_have_no_calibrated_interval(run, copper, tmp_path):
    write(tmp_path / "Fe.cif", bulk("Fe"))
    done = run("propagate", "eos", tmp_path / "Fe.cif", copper, "--model", "mini", "--format", "json")
    rows = {(row["formula"], row["property"]): row for row in json.loads(done.stdout)}
    assert rows["Fe", "V0"]["flags"] == "magnetic"
    assert rows["Fe", "V0"]["bounds"] == "POPS range, not calibrated"
    assert rows["Cu", "V0"]["flags"] is None
    assert rows["Cu", "V0"]["bounds"].startswith("V0: calibrated")
    shown = run("propagate", "eos", tmp_path / "Fe.cif", "--model", "mini").stdout
    assert "magnetic (Fe)" in " ".join(shown.split())
    assert "0 %" in shown  # of draws that failed
    assert "shape of the cell" in shown


def test_what_cannot_be_done_is_one_sentence(run, files):
    assert "two structures or more" in run("propagate", "phases", files[0], "--model", "mini").stderr
    assert run("propagate", "phases", files[0], "--model", "mini").exit_code == 1
    other = run("propagate", "phases", *files, "--model", "mini")
    assert "--reactions" in other.stderr
    assert run("propagate", "colour", files[0]).exit_code == 2
    assert run("propagate", "eos", files[0], "--model", "mini", "--output", "x.extxyz").exit_code == 2
