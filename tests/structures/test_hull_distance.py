"""Distances from the hull, read from whatever offers one."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from mace_bounds.structures import read

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def told(source):
    return [record.hull_distance_ev_per_atom for record in read(source)]


@pytest.mark.parametrize("key", ["energy_above_hull", "e_above_hull", "e_above_hull_mp2020_corrected_ppd_mp"])
def test_extxyz_and_atoms(key, tmp_path):
    atoms = [bulk("Cu"), bulk("Al"), bulk("Ni")]
    atoms[0].info = {"id": "a", key: 0.0125}
    atoms[1].info = {"id": "b", key: -0.003}  # below a hull that was made without it
    write(tmp_path / "x.extxyz", atoms)
    assert told(tmp_path / "x.extxyz") == told(atoms) == [0.0125, -0.003, None]


@pytest.mark.parametrize("key", ["energy_above_hull", "e_above_hull"])
def test_entries_as_objects_dictionaries_and_files(key, tmp_path):
    entry = ComputedStructureEntry(
        SALT, -27.0, parameters={"run_type": "GGA"}, data={key: 0.02}, entry_id="e"
    )
    assert told(entry) == told(entry.as_dict()) == [0.02]
    (tmp_path / "e.json").write_text(json.dumps([entry.as_dict(), {**entry.as_dict(), "data": {}}]))
    assert told(tmp_path / "e.json") == [0.02, None]
    (tmp_path / "e.jsonl").write_text(json.dumps(entry.as_dict()))
    assert told(tmp_path / "e.jsonl") == [0.02]


def test_structures_with_properties():
    structure = SALT.copy(properties={"e_above_hull": np.float64(0.1)})
    assert told(structure) == told(structure.as_dict()) == [0.1]


@pytest.mark.parametrize("value", ["unstable", float("nan"), float("inf"), True])
def test_what_is_no_number_is_not_taken(value):
    atoms = bulk("Cu")
    atoms.info = {"energy_above_hull": value, "e_above_hull": 0.3}
    assert told([atoms]) == [0.3]
    atoms.info = {"energy_above_hull": value}
    assert told([atoms]) == [None]


def test_it_is_no_label():
    atoms = bulk("Cu")
    atoms.info = {"energy_above_hull": 0.3}
    (record,) = read([atoms])
    assert record.energy_ev is record.label_reason is None
