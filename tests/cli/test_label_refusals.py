"""Labels that are no total energies are refused by every command with the reason; real ones by none."""

from __future__ import annotations

import json

import pytest

FACTORS = {"own": None, "per atom": None, "hartree": 1 / 27.211386, "kJ/mol": 96.485332}


@pytest.fixture(scope="module", params=FACTORS)
def refused(request, labelled_crystals, tiny_model_folder, tmp_path_factory):
    """120 crystals with labels of another quantity: its name, the file and what the sentence says."""
    from ase.io import write

    from mace_bounds.backbones import load_model
    from mace_bounds.structures import read

    name = request.param
    crystals = [atoms.copy() for atoms in labelled_crystals[:120]]
    if name == "own":
        model = load_model(tiny_model_folder)
        energies = model.extract([record.crystal for record in read(crystals)]).energy_ev
    for k, atoms in enumerate(crystals):
        label = atoms.info["REF_energy"]
        other = (
            energies[k]
            if name == "own"
            else label / len(atoms)
            if name == "per atom"
            else label * FACTORS[name]
        )
        atoms.info["REF_energy"] = round(float(other), 6)
    path = tmp_path_factory.mktemp("refused") / "wrong.extxyz"
    write(path, crystals, format="extxyz")
    return path, {"own": "own energies", "per atom": "energies per atom"}.get(name, f"energies in {name}")


def test_other_quantities_are_refused_by_every_command(refused, tiny_model_folder, tiny_fit, run):
    path, says = refused
    store, model = path.parent / "store", ["--model", tiny_model_folder]
    features = run("features", path, store, *model, "--workers", 1)
    assert features.exit_code == 0
    assert "labels: none; 120 refused." in features.stderr
    assert "next: mace-bounds audit" in features.stderr  # there is nothing to fit to
    for command in (
        ["fit", store, path.parent / "head"],
        ["compare", store, path.parent / "compare"],
        ["audit", store, path.parent / "audit", *model, "--head", tiny_fit.folder],
        ["audit", store, path.parent / "cross", *model, "--cross-fit"],
    ):
        result = run(*command)
        assert result.exit_code == 2
        assert "error: the labels of " in result.stderr
        assert says in result.stderr
    scored = run("score", path, *model, "--head", tiny_fit.folder, "--format", "json")
    assert scored.exit_code == 0
    assert says in scored.stderr
    rows = json.loads(scored.stdout)
    assert {row["energy_dft_ev"] for row in rows} == {None}
    assert all(says in row["label_reason"] and "label_refused" in row["flags"] for row in rows)


def test_a_fit_without_any_label_says_why_they_were_refused(
    labelled_crystals, tiny_model_folder, run, tmp_path
):
    from ase.io import write

    crystals = [atoms.copy() for atoms in labelled_crystals[:20]]
    for atoms in crystals:
        atoms.info["run_type"] = "R2SCAN"
    write(tmp_path / "r2scan.extxyz", crystals, format="extxyz")
    assert (
        run("features", tmp_path / "r2scan.extxyz", tmp_path / "s", "--model", tiny_model_folder).exit_code
        == 0
    )
    for command in (
        ["fit", tmp_path / "s", tmp_path / "h"],
        ["audit", tmp_path / "s", tmp_path / "a", "--cross-fit"],
    ):
        result = run(*command)
        assert result.exit_code == 2
        assert "no label can be used: 20 × the run type is 'R2SCAN'" in result.stderr


def test_a_refused_audit_leaves_its_folder_to_the_next(labelled_crystals, pair, run, tmp_path):
    from ase.io import write

    crystals = [atoms.copy() for atoms in labelled_crystals[:40]]
    for atoms in crystals:
        atoms.info["wrong"] = atoms.info["REF_energy"] / len(atoms)
    write(tmp_path / "both.extxyz", crystals, format="extxyz")
    out = tmp_path / "deep" / "audit"
    command = ["audit", tmp_path / "both.extxyz", out, *pair, "--no-plots", "--energy-key"]
    refused = run(*command, "wrong")
    assert refused.exit_code == 2
    assert "energies per atom" in refused.stderr
    assert not out.parent.exists()
    assert run(*command, "REF_energy").exit_code == 0
    again = run(*command, "wrong")
    assert again.exit_code == 2
    assert "holds the audit of both.extxyz with the labels in REF_energy" in again.stderr
    assert (out / "features").is_dir()
