"""``score``: readable on the screen, parseable everywhere else."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from mace_bounds.columns import BASIC
from mace_bounds.tables import read_table


def test_one_structure_is_a_card(run, crystal_file, pair, labelled_crystals):
    result = run("score", crystal_file, *pair)
    assert result.exit_code == 0
    assert result.stderr == ""
    for text in ("E_model", "eV", "meV/atom", "95 %", "Model tiny", "head tiny-head", "flags"):
        assert text in result.stdout
    assert f"{len(labelled_crystals[0])} atoms" in result.stdout


def test_several_structures_are_a_table_and_failures_go_to_stderr(run, labelled_file, pair, tmp_path):
    broken = tmp_path / "broken.cif"
    broken.write_text("data_x\n_cell_length_a 1\n")
    result = run("score", broken, labelled_file, *pair, "--level", "0.9")
    assert result.exit_code == 0
    assert "made-0007" in result.stdout
    assert "90 %" in result.stdout
    assert "broken.cif" not in result.stdout
    assert "broken.cif: the CIF lists no atom sites" in result.stderr
    assert result.stderr.startswith("labels: 200 from REF_energy.\n")
    assert result.stderr.count("\n") == 2


def test_machine_formats_agree_and_stand_alone_on_stdout(run, labelled_file, pair, tmp_path):
    told = {kind: run("score", labelled_file, *pair, "--format", kind) for kind in ("json", "csv", "parquet")}
    assert [r.exit_code for r in told.values()] == [0, 0, 0]
    rows = json.loads(told["json"].stdout)
    csv = pd.read_csv(io.StringIO(told["csv"].stdout))
    parquet = pd.read_parquet(io.BytesIO(told["parquet"].stdout_bytes))
    assert len(rows) == len(csv) == len(parquet) == 200
    for name in ("energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom"):
        wanted = parquet[name].tolist()
        assert [row[name] for row in rows] == pytest.approx(wanted, rel=1e-9)
        assert csv[name].tolist() == pytest.approx(wanted, rel=1e-9)
    assert all(isinstance(row["n_atoms"], int) and row["inside"] in (True, False) for row in rows)
    path = tmp_path / "bounds.parquet"
    assert run("score", labelled_file, *pair, "--output", path).stdout == ""
    assert len(pd.read_parquet(path)) == 200


def test_extxyz_and_cif_are_read_by_ase_and_markdown_and_tsv_hold_the_same(
    run, crystal_file, labelled_crystals, pair, tmp_path
):
    from ase.io import read

    written = {}
    for name in ("b.xyz", "b.extxyz", "b.cif", "b.md", "b.tsv", "b.json"):
        assert run("score", crystal_file, *pair, "--output", tmp_path / name).exit_code == 0
        written[name] = (tmp_path / name).read_text(encoding="utf-8")
    (row,) = json.loads(written["b.json"])
    atoms = read(tmp_path / "b.extxyz")
    assert written["b.xyz"] == written["b.extxyz"]
    assert atoms.get_chemical_symbols() == labelled_crystals[0].get_chemical_symbols()
    np.testing.assert_allclose(atoms.cell, labelled_crystals[0].cell, atol=1e-4)
    assert atoms.get_potential_energy() == pytest.approx(row["energy_model_ev"], rel=1e-9)
    assert set(atoms.info) == {f"mace_bounds_{name}" for name, value in row.items() if value is not None}
    for name in ("energy_lower_ev", "upper_mev_per_atom", "novelty", "level"):
        assert atoms.info[f"mace_bounds_{name}"] == pytest.approx(row[name], rel=1e-7)
    cif = read(tmp_path / "b.cif", store_tags=True)
    assert cif.get_chemical_formula() == atoms.get_chemical_formula()
    distances = [one.get_all_distances(mic=True) for one in (cif, atoms)]
    np.testing.assert_allclose(*distances, atol=1e-6)
    for name, value in row.items():
        if value is not None:
            assert str(cif.info[f"_mace_bounds_{name}"]) == str(value), name
    tsv = pd.read_csv(io.StringIO(written["b.tsv"]), sep="\t")
    assert list(tsv.columns) == list(row)
    assert tsv["energy_lower_ev"].tolist() == pytest.approx([row["energy_lower_ev"]], rel=1e-12)
    header, _, line = (entry.strip("| ").split(" | ") for entry in written["b.md"].splitlines())
    assert tuple(header) == BASIC
    assert line[BASIC.index("energy_lower_ev")] == f"{row['energy_lower_ev']:.4f}"


def test_basic_columns_are_asked_for_and_the_screen_has_its_own(run, crystal_file, pair, tmp_path):
    (row,) = json.loads(run("score", crystal_file, *pair, "--format", "json", "--columns", "basic").stdout)
    assert tuple(row) == BASIC
    assert run("score", crystal_file, *pair, "--columns", "all").exit_code == 2
    refused = run("score", crystal_file, *pair, "--output", tmp_path)
    assert refused.exit_code == 2
    assert "cannot be written; name a file" in refused.stderr


def test_standard_input_in_a_process_of_its_own(shell, crystal_file, pair):
    result = shell("score", "-", *pair, "--format", "json", stdin=crystal_file.read_text())
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (row,) = json.loads(result.stdout)
    assert row["id"] == "stdin"
    assert row["reason"] is None
    assert row["lower_mev_per_atom"] < row["upper_mev_per_atom"]


def test_nothing_scored_is_exit_code_1_and_nothing_there_is_2(run, pair, tmp_path):
    broken = tmp_path / "broken.cif"
    broken.write_text("data_x\n_cell_length_a 1\n")
    result = run("score", broken, *pair)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "broken.cif: the CIF lists no atom sites" in result.stderr
    missing = run("score", tmp_path / "missing.cif", *pair)
    assert missing.exit_code == 2
    assert missing.stderr.startswith("error: ")
    assert missing.stderr.count("\n") == 1


def test_bad_options_are_told_before_the_model_is_loaded(run, crystal_file, pair, tmp_path, monkeypatch):
    monkeypatch.setattr("mace_bounds.features.settings.load_model", None)
    assert "calibrated for the levels" in run("score", crystal_file, *pair, "--level", "0.5").stderr
    assert "make it first" in run("score", crystal_file, *pair, "--output", tmp_path / "no" / "x.csv").stderr
    assert run("score", crystal_file, *pair, "--format", "xml").exit_code == 2


def test_a_source_without_structures_is_answered_before_the_model_is_loaded(run, pair, tmp_path, monkeypatch):
    monkeypatch.setattr("mace_bounds.features.settings.load_model", None)
    frame = '2\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nNa 0 0 0\n{} 1 1 1\n'
    bad = tmp_path / "bad.extxyz"
    bad.write_text(frame.format("Xx") * 30 + frame.format("Cl").replace("1 1 1", "a b c") * 5)
    scored = run("score", bad, *pair, "--output", tmp_path / "rows.csv")
    assert scored.exit_code == 1
    *named, last = scored.stderr.splitlines()
    assert [line.partition(":")[0] for line in named] == [f"bad.extxyz#{k}" for k in range(20)]
    assert last.startswith("35 in all could not be scored: 30 × 'Xx' is no chemical element")
    table = read_table(tmp_path / "rows.csv")
    assert len(table) == 35
    assert table["reason"].notna().all()
    assert table["energy_lower_ev"].isna().all()
    model = pair[:2]
    for words in (
        ("features", bad, tmp_path / "store", *model),
        ("audit", bad, tmp_path / "report", *pair),
        ("build", tmp_path / "out", "--source", bad, *model),
        ("build", tmp_path / "out", "--source", bad, *model, "--dry-run"),
    ):
        refused = run(*words)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("error: no structure can be used: 30 × 'Xx' is no chemical element")
        assert refused.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"bad.extxyz", "rows.csv"}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_ids_that_look_like_something_else_stay_text(suffix, run, crystal_file, pair, tmp_path):
    names = ["0001", "1e5", "NA"]
    for name in names:
        (tmp_path / f"{name}.cif").write_text(crystal_file.read_text())
    files = [tmp_path / f"{name}.cif" for name in names]
    done = run("score", *files, *pair, "--output", tmp_path / f"bounds{suffix}")
    assert done.exit_code == 0, done.stderr
    ids = read_table(tmp_path / f"bounds{suffix}")["id"].tolist()
    assert [name.removesuffix(".cif") for name in ids] == names
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
