"""From an empty folder: a download and an audit, killed at any moment, end with the same bytes."""

import gzip
import json
import sys

import pytest
from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

import kill_study
from helpers import forked


def entry_of(index: int, atoms: Atoms) -> dict:
    """Make an entry as the Materials Project has it."""
    structure = AseAtomsAdaptor.get_structure(Atoms(atoms))
    name, titles = (
        f"mp-{index + 1}",
        [{"titel": f"PAW_PBE {symbol} 06Sep2000"} for symbol in structure.symbol_set],
    )
    return {
        "@module": "pymatgen.entries.computed_entries",
        "@class": "ComputedStructureEntry",
        "entry_id": name,
        "energy": atoms.info["REF_energy"],
        "composition": structure.composition.as_dict(),
        "correction": 0.0,
        "energy_adjustments": [],
        "parameters": {"run_type": "GGA", "potcar_spec": titles, "is_hubbard": False, "hubbards": {}},
        "data": {"task_id": name, "material_id": name},
        "structure": structure.as_dict(),
    }


@pytest.mark.slow
def test_download_and_audit_killed_at_random_moments(
    labelled_crystals, tiny_model_folder, tiny_fit, tmp_path, monkeypatch, capsys
):
    """Two kills; ten, with real entries and each command in a process of its own, are scripts/kill_study.py."""
    entries, source = [entry_of(*pair) for pair in enumerate(labelled_crystals[:60])], tmp_path / "mp.json.gz"
    source.write_bytes(gzip.compress(json.dumps(entries).encode()))
    command = ["kill_study", "audit", str(source), "--fork", "--query", "mp:hull=1"]
    command += ["--model", str(tiny_model_folder), "--head", str(tiny_fit.folder)]
    command += ["--kills", "2", "--last", "0.5", "--finishes", "1"]
    monkeypatch.setattr(sys, "argv", command)
    for name in ("MP_API_KEY", "MP_API_ENDPOINT"):
        monkeypatch.setenv(name, "")
    forked.warm()
    assert kill_study.main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["identical"]
    assert len(found["kills"]) == 2
    assert found["n_files"] > 30
