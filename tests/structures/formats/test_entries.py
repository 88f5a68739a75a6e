"""Entries as pymatgen writes them, read without pymatgen."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import (
    ComputedEntry,
    ComputedStructureEntry,
    ConstantEnergyAdjustment,
)

from mace_bounds.structures import read

NACL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def entry(structure=NACL, *, run_type="GGA", entry_id="mp-22862", **options):
    return ComputedStructureEntry(
        structure,
        -27.0,
        parameters={"run_type": run_type},
        energy_adjustments=[ConstantEnergyAdjustment(-5.0, name="made up")],
        entry_id=entry_id,
        **options,
    )


def write(path, data):
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["e.json", "e.json.gz"])
@pytest.mark.parametrize("shape", ["single", "list", "entries", "mapping"])
def test_every_shape_gives_the_uncorrected_energy(tmp_path, name, shape):
    assert entry().energy == pytest.approx(-32.0)
    one = json.loads(json.dumps(entry().as_dict()))
    data = {"single": one, "list": [one], "entries": {"entries": [one]}, "mapping": {"a": one}}[shape]
    (record,) = read(write(tmp_path / name, data))
    assert record.reason is None
    assert record.energy_ev == -27.0
    assert (record.id, record.run_type, record.label_kind) == ("mp-22862", "GGA", "uncorrected GGA")
    assert record.source == name
    np.testing.assert_array_equal(record.crystal.numbers, NACL.atomic_numbers)
    np.testing.assert_allclose(record.crystal.positions, NACL.cart_coords, atol=1e-12)
    np.testing.assert_allclose(record.crystal.cell, NACL.lattice.matrix, atol=1e-12)


def test_object_and_dictionary_give_the_same():
    for source in (entry(), entry().as_dict(), [entry()], (e for e in [entry()])):
        (record,) = read(source)
        assert (record.energy_ev, record.label_kind) == (-27.0, "uncorrected GGA")


def test_other_functional_keeps_the_structure_and_loses_the_label(tmp_path):
    for source in (
        entry(run_type="R2SCAN"),
        write(tmp_path / "e.json", [entry(run_type="R2SCAN").as_dict()]),
    ):
        (record,) = read(source)
        assert record.crystal is not None
        assert record.reason is None
        assert record.energy_ev is None
        assert "R2SCAN" in record.label_reason


@pytest.mark.parametrize("place", ["data", "parameters"])
@pytest.mark.parametrize("energy_key", [None, "energy"])
def test_a_functional_that_is_stated_in_words(place, energy_key):
    """As Alexandria's tables of other functionals may say it."""
    stated = entry().as_dict()
    stated["parameters"] = {}
    stated[place] = {"functional": "PBEsol"}
    (record,) = read([stated], energy_key=energy_key)
    assert record.crystal is not None
    assert record.energy_ev is None
    assert "its functional is 'PBEsol'" in record.label_reason
    stated[place] = {"functional": "PBE"}
    assert next(read([stated], energy_key=energy_key)).energy_ev == -27.0


def test_oxidation_states_isotopes_dummies_and_disorder(tmp_path):
    charged = NACL.copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    heavy = Structure(Lattice.cubic(4), ["D", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    dummy = Structure(Lattice.cubic(4), ["X0+", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    mixed = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])
    slab = Structure(Lattice(np.eye(3) * 4, pbc=(True, True, False)), ["O"], [[0, 0, 0]])
    structures = [charged, heavy, dummy, mixed, slab]
    dictionaries = [json.loads(s.to_json()) for s in structures]
    dictionaries[1]["sites"][0]["species"][0]["element"] = "D"  # pymatgen itself writes "H"
    path = write(tmp_path / "s.json", dictionaries)
    for records in (list(read(path)), list(read(structures))):
        reasons = [record.reason for record in records]
        assert reasons[:2] == [None, None]
        np.testing.assert_array_equal(records[0].crystal.numbers, NACL.atomic_numbers)
        assert records[1].flags == ("deuterium_as_hydrogen",)
        assert records[1].crystal.counts == {1: 1, 8: 1}
        assert "no chemical element" in reasons[2]
        assert "partly occupied" in reasons[3]
        assert "periodic" in reasons[4]
        assert [record.id.rsplit("#")[-1] for record in records] == ["0", "1", "2", "3", "4"]


def test_lattice_parameters_without_matrix(tmp_path):
    data = json.loads(NACL.to_json())
    del data["lattice"]["matrix"]
    (record,) = read(write(tmp_path / "s.json", data))
    assert record.crystal.volume == pytest.approx(5.64**3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "list of entries is empty"),
        ({}, "neither a ComputedStructureEntry"),
        ([1], "neither a ComputedStructureEntry"),
        (ComputedEntry("NaCl", -3.0, entry_id="mp-1").as_dict(), "without structure"),
        ({"lattice": {"matrix": [[1, 2], [3, 4]]}, "sites": []}, "damaged"),
        ({"lattice": None, "sites": None}, "damaged"),
        ({"lattice": {"matrix": np.eye(3).tolist()}, "sites": []}, "structure is empty"),
    ],
)
def test_what_is_no_entry_has_a_reason(tmp_path, data, words):
    (record,) = read(write(tmp_path / "s.json", data))
    assert words in record.reason


def test_broken_json_and_nan(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('[{"energy": -1,')
    assert "JSON" in next(read(path)).reason
    path.write_text("[" * 100_000)
    assert "JSON" in next(read(path)).reason
    data = json.loads(NACL.to_json())
    data["sites"][0]["abc"][0] = float("nan")
    (record,) = read(write(path, data))
    assert "NaN" in record.reason


def test_summary_document_and_energy_key(tmp_path):
    structure = json.loads(NACL.to_json())
    summary = {"material_id": "mp-1", "structure": structure, "energy_per_atom": -3.4, "my_energy": -7.0}
    (record,) = read(write(tmp_path / "s.json", summary))
    assert record.energy_ev is None
    assert "summary document" in record.label_reason
    (record,) = read(tmp_path / "s.json", energy_key="my_energy")
    assert (record.energy_ev, record.label_kind) == (-7.0, "my_energy")


def test_real_entries_agree_with_pymatgen(shared_data, tmp_path):
    path = write(tmp_path / "e.json.gz", [entry().as_dict(), entry(entry_id="mp-2").as_dict()])
    if shared_data is not None:
        with gzip.open(shared_data / "mp_entries.json.gz", "rt") as handle:
            path = write(tmp_path / "e.json.gz", json.load(handle)[::25])
    with gzip.open(path, "rt") as handle:
        dictionaries = json.load(handle)
    records = list(read(path))
    assert len(records) == len(dictionaries)
    for record, data in zip(records, dictionaries, strict=True):
        theirs = ComputedStructureEntry.from_dict(data)
        assert record.energy_ev == pytest.approx(theirs.uncorrected_energy, abs=1e-9)
        np.testing.assert_array_equal(record.crystal.numbers, theirs.structure.atomic_numbers)
        np.testing.assert_allclose(record.crystal.positions, theirs.structure.cart_coords, atol=1e-9)
        assert record.crystal.formula == theirs.structure.composition.reduced_formula
        assert record.run_type == theirs.parameters["run_type"]


@pytest.mark.parametrize(
    "table",
    [
        {"e": {"a": -1.0, "b": -2.0}},
        {"a": -1.0, "b": -2.0},
        {"a": {"e": -1.0}, "b": {"e": -2.0}},
        [{"material_id": "a", "e": -1.0}],
    ],
)
def test_a_table_of_energies_is_named_as_one(table, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(table))
    (record,) = read(tmp_path / "t.json")
    assert "a table without structures" in record.reason
    assert "--predictions" in record.reason
