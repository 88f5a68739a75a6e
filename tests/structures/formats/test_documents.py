"""The JSON of databases: every shape gives the same crystal, and only PBE labels."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from mace_bounds.errors import StructureError
from mace_bounds.structures import read
from mace_bounds.structures.formats.documents import parse_json
from mace_bounds.structures.formats.json_stream import JsonReader

SALT = Structure(
    Lattice.from_parameters(4.1, 4.2, 4.3, 80, 85, 95), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.4, 0.5]]
)
STRUCTURE = SALT.as_dict()
ENTRY = ComputedStructureEntry(
    SALT, -6.75, correction=-0.6, parameters={"run_type": "GGA"}, entry_id="mp-1"
).as_dict()
OPTIMADE = {
    "id": "o-1",
    "type": "structures",
    "attributes": {
        "lattice_vectors": SALT.lattice.matrix.tolist(),
        "cartesian_site_positions": SALT.cart_coords.tolist(),
        "species_at_sites": ["sodium", "Cl"],
        "species": [
            {"name": "sodium", "chemical_symbols": ["Na"], "concentration": [1.0]},
            {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]},
        ],
        "dimension_types": [1, 1, 1],
    },
}
JARVIS = {
    "jid": "JVASP-1",
    "optb88vdw_total_energy": -3.4,
    "atoms": {
        "lattice_mat": SALT.lattice.matrix.tolist(),
        "coords": SALT.frac_coords.tolist(),
        "elements": ["Na", "Cl"],
        "cartesian": False,
    },
}
CARTESIAN = {**JARVIS, "atoms": {**JARVIS["atoms"], "coords": SALT.cart_coords.tolist(), "cartesian": True}}
FRAME = {"structure": STRUCTURE, "uncorrected_total_energy": -6.75, "energy_per_atom": -3.4, "mp_id": "mp-1"}
TASK = {"task_id": "mp-1", "output": {"structure": STRUCTURE, "energy": -6.75}, "run_type": "GGA"}
SUMMARY = {"material_id": "mp-1", "structure": STRUCTURE, "energy_per_atom": -3.4}
SHAPES = {
    "entry": (ENTRY, ["mp-1"], -6.75),
    "Alexandria": ({"entries": [ENTRY] * 2}, ["mp-1", "mp-1~2"], -6.75),
    "after other keys": ({"@module": "os", "n": 2, "entries": [ENTRY] * 2}, ["mp-1", "mp-1~2"], -6.75),
    "MPtrj": ({"mp-1": {"mp-1-0-0": FRAME, "mp-1-0-1": FRAME}}, ["mp-1-0-0", "mp-1-0-1"], -6.75),
    "one floor of MPtrj": ({"mp-1-0-0": FRAME, "mp-1-0-1": FRAME}, ["mp-1-0-0", "mp-1-0-1"], -6.75),
    "WBM": ({"material_id": "wbm-1-1", "computed_structure_entry": ENTRY}, ["wbm-1-1"], -6.75),
    "WBM by columns": (
        {
            "material_id": {"0": "wbm-1-1", "1": "wbm-1-2"},
            "computed_structure_entry": {"0": ENTRY, "1": ENTRY},
        },
        ["wbm-1-1", "wbm-1-2"],
        -6.75,
    ),
    "WBM initial": ({"material_id": "wbm-1-1", "initial_structure": STRUCTURE}, ["wbm-1-1"], None),
    "structures by id": ({"a": STRUCTURE, "b": STRUCTURE}, ["a", "b"], None),
    "task": (TASK, ["mp-1"], None),
    "tasks": ([TASK, TASK], ["mp-1", "mp-1~2"], None),
    "summary": ({"data": [SUMMARY], "meta": {}}, ["mp-1"], None),
    "thermo": ({"material_id": "mp-1", "entries": {"GGA": ENTRY}}, ["mp-1"], -6.75),
    "OPTIMADE": ({"data": OPTIMADE, "meta": {"x": {}}}, ["o-1"], None),
    "OPTIMADE list": ({"meta": {}, "data": [OPTIMADE, OPTIMADE]}, ["o-1", "o-1~2"], None),
    "JARVIS": ([JARVIS], ["JVASP-1"], None),
    "JARVIS cartesian": (CARTESIAN, ["JVASP-1"], None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(tmp_path, name):
    data, ids, energy = SHAPES[name]
    (tmp_path / "x.json").write_text(json.dumps(data))
    (tmp_path / "x.jsonl").write_text(json.dumps(data) + "\n")
    (tmp_path / "lines.json").write_text(json.dumps(data, indent=1) + "\n" + json.dumps(data))
    for records in (list(read(tmp_path / "x.json")), list(read(tmp_path / "x.jsonl"))):
        assert [record.id for record in records] == ids
        for record in records:
            assert record.reason is None
            assert record.energy_ev == energy
            np.testing.assert_array_equal(record.crystal.numbers, [11, 17])
            np.testing.assert_allclose(record.crystal.cell, SALT.lattice.matrix, atol=1e-9)
            np.testing.assert_allclose(record.crystal.positions, SALT.cart_coords, atol=1e-9)
    assert len(list(read(tmp_path / "lines.json"))) == 2 * len(ids)
    if isinstance(data, dict):
        assert [record.id for record in read(data)] == ids


def test_what_stands_beside_a_structure_counts_in_every_document():
    told = {"REF_energy": -6.75, "e_above_hull": 0.02, "license": "CC BY-NC 4.0"}
    for charge, energy in ((0, -6.75), (2, None)):
        values = {**told, "charge": charge}
        flags = {"licence_by_nc"} | ({"charged_cell"} if charge else set())
        documents = [{**OPTIMADE, "attributes": {**OPTIMADE["attributes"], **values}}, {**JARVIS, **values}]
        documents.append(
            {
                "numbers": [11, 17],
                "positions": SALT.cart_coords.tolist(),
                "cell": SALT.lattice.matrix.tolist(),
                "pbc": [True] * 3,
                "key_value_pairs": values,
            }
        )
        for document in documents:
            (record,) = read(document, energy_key="REF_energy")
            assert (record.reason, record.energy_ev, set(record.flags)) == (None, energy, flags)
            assert record.hull_distance_ev_per_atom == 0.02
            assert charge == 0 or "charged (+2)" in record.label_reason


def test_labels_that_are_no_pbe_energies_have_a_reason():
    reasons = {
        name: next(read(data)).label_reason for name, data in (("t", TASK), ("s", SUMMARY), ("j", JARVIS))
    }
    assert "GGA_GGA+U entry" in reasons["t"]
    assert "GGA_GGA+U entry" in reasons["s"]
    assert "OptB88vdW" in reasons["j"]
    (record,) = read(TASK, energy_key="energy")
    assert (record.energy_ev, record.run_type) == (-6.75, "GGA")


def test_ase_json(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = SinglePointCalculator(atoms, energy=-6.75)
    ase_write(tmp_path / "x.json", [atoms, atoms], format="json")
    records = list(read(tmp_path / "x.json"))
    assert [(record.id, record.energy_ev) for record in records] == [("x.json#0", -6.75), ("x.json#1", -6.75)]
    np.testing.assert_allclose(records[0].crystal.positions, atoms.positions)
    np.testing.assert_allclose(records[0].crystal.cell, atoms.cell.array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"detail": "Invalid API key"}, "answer of a server ('Invalid API key')"),
        ({"errors": [{"status": "404", "detail": "no such id"}]}, "no such id"),
        ({"data": [], "meta": {}}, "empty"),
        ({"sites": []}, "molecule"),
        ({**OPTIMADE, "attributes": {**OPTIMADE["attributes"], "dimension_types": [1, 1, 0]}}, "slab"),
        (
            {**OPTIMADE, "attributes": {**OPTIMADE["attributes"], "species_at_sites": ["X", "Cl"]}},
            "'X' is no",
        ),
        ({**JARVIS, "atoms": {"lattice_mat": 3, "coords": "x", "elements": ["H"]}}, "damaged"),
        ({"a": STRUCTURE, "b": {"oops": 1}}, "neither"),
        ([[[[[[ENTRY]]]]]], "nested too deeply"),
        ("text", "neither"),
    ],
)
def test_what_holds_no_structure_has_a_reason(tmp_path, data, words):
    (tmp_path / "x.json").write_text(json.dumps(data))
    assert words in list(read(tmp_path / "x.json"))[-1].reason


def test_many_entries_need_the_memory_of_one(tmp_path):
    import tracemalloc

    entry = json.dumps(ENTRY)
    (tmp_path / "x.json").write_text('{"entries": [' + ",".join([entry] * 5_000) + "]}")
    assert (tmp_path / "x.json").stat().st_size > 5_000_000
    tracemalloc.start()
    records = read(tmp_path / "x.json")
    for _ in range(300):
        assert next(records).reason is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(VALUES, max_size=6), size=st.integers(1, 40))
def test_values_are_those_of_json_wherever_the_chunks_end(values, size):
    text = json.dumps(values, ensure_ascii=False, indent=size % 3 or None).encode()

    class Dripping(io.BytesIO):
        def read(self, n=-1):
            return super().read(size if n is None or n < 0 else min(n, size))

    reader = JsonReader(Dripping(text), 10_000)
    assert [reader.value() for _ in reader.items()] == values
    assert reader.peek() == ""
    reader = JsonReader(Dripping(text[:-1]), 10_000)
    with pytest.raises(StructureError):
        [reader.value() for _ in reader.items()]


def test_numbers_beside_a_structure_in_a_row_of_a_table_are_passed_over():
    table = {"index": [0], "columns": ["structure", "e_form"], "data": [[STRUCTURE, -1.0], [STRUCTURE, None]]}
    records = list(parse_json(io.BytesIO(json.dumps(table).encode())))
    assert [record.crystal is not None for record in records] == [True, True, False]
