"""``features --atoms`` to ``audit``: the grades of single atoms come out the same however they are asked for."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from helpers.store_bytes import digests
from mace_bounds.backbones import load_model
from mace_bounds.calibration import load_head
from mace_bounds.features import extract_rows
from mace_bounds.structures import read

ATOM_GRADES = ["gamma_atom", "gamma_atom_local"]
OF_ATOMS = [*ATOM_GRADES, "novel_atom"]


@pytest.fixture(scope="module")
def options(tiny_model_folder):
    return ["--model", str(tiny_model_folder)]


@pytest.fixture(scope="module")
def store(labelled_file, options, run, tmp_path_factory):
    """A store with atoms."""
    out = tmp_path_factory.mktemp("atoms") / "store"
    done = run("features", labelled_file, out, *options, "--atoms", "--shard-rows", 64, "--workers", 1)
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pair(store, options, run):
    """Options that name the tiny model and a head of that store."""
    head = store.with_name("head")
    shares = ["--fit-share", 0.35, "--calibration-share", 0.35, "--conformal", "split", "--no-ellipsoid"]
    done = run("fit", store, head, *options, *shares)
    assert done.exit_code == 0, done.stderr
    return [*options, "--head", str(head)]


@pytest.fixture(scope="module")
def scored(labelled_file, pair, run):
    """What ``score`` says of every structure, as JSON."""
    done = run("score", labelled_file, *pair, "--format", "json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_every_structure_has_grades_of_its_atoms(scored, labelled_crystals):
    table = pd.DataFrame(scored)
    assert len(table) == len(labelled_crystals)
    assert np.isfinite(table[OF_ATOMS].to_numpy(float)).all()
    assert (table[ATOM_GRADES] > 0.0).all(axis=None)
    assert all(type(row["novel_atom"]) is int for row in scored)
    assert table["novel_atom"].between(0, table["n_atoms"] - 1).all()
    assert table["novel_atom"].nunique() > 2


@pytest.fixture(scope="module")
def grades_of_atoms(pair, tiny_model_folder, labelled_file):
    """By hand: γ of each atom of each structure against all atoms, and against those of its cluster."""
    rows = extract_rows(list(read(labelled_file)), load_model(tiny_model_folder), atoms=True)
    sets, ends = load_head(pair[-1]).novelty.sets, np.cumsum(rows.atoms.counts)[:-1]
    affine = np.column_stack([rows.atoms.values, np.ones(len(rows.atoms.values))])
    grades = (sets.atoms.grade(affine), sets.local_atoms.grade(rows.atoms.values))
    return [np.split(values, ends) for values in grades]


def test_grades_are_the_largest_and_the_atom_has_it(scored, grades_of_atoms):
    for said, every, local in zip(scored, *grades_of_atoms, strict=True):
        assert len(local) == said["n_atoms"]
        assert said["gamma_atom"] == pytest.approx(every.max(), rel=1e-4)
        assert said["gamma_atom_local"] == pytest.approx(local.max(), rel=1e-4)
        assert local[said["novel_atom"]] == pytest.approx(local.max(), rel=1e-4)


@pytest.mark.parametrize("source", ["store", "file"])
def test_an_audit_says_what_score_says(
    source, store, labelled_file, pair, scored, grades_of_atoms, run, tmp_path
):
    out = tmp_path / "out"
    arguments = [*pair, "--no-plots", "--workers", 1]
    done = run("audit", store if source == "store" else labelled_file, out, *arguments)
    assert done.exit_code == 0, done.stderr
    wanted = pd.DataFrame(scored)
    for table in (pd.read_parquet(out / "bounds.parquet"), pd.read_csv(out / "bounds.csv")):
        assert table["id"].tolist() == wanted["id"].tolist()
        np.testing.assert_allclose(table[ATOM_GRADES], wanted[ATOM_GRADES], rtol=1e-4)
        assert table["novel_atom"].dtype.kind == "i"
        # atoms that symmetry makes equal differ by round-off, so either may be named
        for local, atom in zip(grades_of_atoms[1], table["novel_atom"], strict=True):
            assert local[atom] == pytest.approx(local.max(), rel=1e-4)
        assert table["flags"].fillna("").tolist() == wanted["flags"].fillna("").tolist()


def test_csv_says_what_json_says(labelled_file, pair, scored, run):
    done = run("score", labelled_file, *pair, "--format", "csv")
    assert done.exit_code == 0, done.stderr
    table = pd.read_csv(io.StringIO(done.stdout))
    np.testing.assert_allclose(table[ATOM_GRADES], pd.DataFrame(scored)[ATOM_GRADES], rtol=1e-9)
    assert table["novel_atom"].tolist() == [row["novel_atom"] for row in scored]


@pytest.fixture(scope="module")
def squeezed(labelled_crystals, tmp_path_factory):
    """A crystal of the fit, squeezed to half its volume."""
    from ase.io import write

    atoms = labelled_crystals[0].copy()
    atoms.set_cell(atoms.cell * 0.5 ** (1 / 3), scale_atoms=True)
    path = tmp_path_factory.mktemp("squeezed") / "one.cif"
    write(path, atoms)
    return path


def test_a_crystal_unlike_those_of_the_fit_is_flagged_in_every_format(squeezed, pair, run):
    (row,) = json.loads(run("score", squeezed, *pair, "--format", "json").stdout)
    assert row["gamma_atom"] > 1.0
    assert row["novelty"] > 1.0
    assert "extrapolates" in row["flags"].split(";")
    csv = pd.read_csv(io.StringIO(run("score", squeezed, *pair, "--format", "csv").stdout)).iloc[0]
    assert csv["novelty"] == pytest.approx(row["novelty"])
    assert csv["flags"] == row["flags"]
    screen = run("score", squeezed, *pair).stdout
    assert "extrapolates: far from the head's data" in screen


def test_a_head_without_atoms_leaves_them_empty(crystal_file, tiny_fit, options, run):
    pair = [*options, "--head", tiny_fit.folder]
    (row,) = json.loads(run("score", crystal_file, *pair, "--format", "json").stdout)
    assert {row[name] for name in OF_ATOMS} == {None}
    assert row["gamma"] > 0.0
    table = pd.read_csv(io.StringIO(run("score", crystal_file, *pair, "--format", "csv").stdout))
    assert table[OF_ATOMS].isna().all(axis=None)


def test_a_store_without_atoms_leaves_them_empty_and_keeps_the_rest(tiny_store, pair, scored, run, tmp_path):
    out = tmp_path / "out"
    assert run("audit", tiny_store, out, *pair, "--no-plots").exit_code == 0
    table = pd.read_parquet(out / "bounds.parquet")
    assert table[OF_ATOMS].isna().all(axis=None)
    wanted = pd.DataFrame(scored)
    for name in ("gamma", "gamma_local", "lower_mev_per_atom"):
        np.testing.assert_allclose(table[name], wanted[name], rtol=1e-3, err_msg=name)
    assert np.isfinite(table["novelty"]).all()


def test_parts_with_atoms_merge_to_the_same_bytes(store, labelled_file, options, run, tmp_path):
    parts = [tmp_path / name for name in ("p1", "p2")]
    line = [*options, "--shard-rows", 64, "--workers", 1]
    for k, part in enumerate(parts, 1):
        done = run("features", labelled_file, part, *line, "--atoms", "--shard", f"{k}/2")
        assert done.exit_code == 0, done.stderr
    joined = run("merge", tmp_path / "whole", *parts)
    assert joined.exit_code == 0, joined.stderr
    assert joined.stdout.startswith("200 structures with ")
    assert digests(tmp_path / "whole") == digests(store)
    plain = tmp_path / "plain"
    assert run("features", labelled_file, plain, *line, "--shard", "2/2").exit_code == 0
    refused = run("merge", tmp_path / "other", parts[0], plain)
    assert refused.exit_code == 2
    assert "atoms differ" in refused.stderr
    again = run("features", labelled_file, parts[0], *line, "--shard", "1/2")
    assert again.exit_code == 2
    assert "atoms differ" in again.stderr
