"""The label guard at the source, case by case."""

from __future__ import annotations

import copy
import json

import pytest
from pymatgen.entries.computed_entries import ComputedStructureEntry

from helpers.mp_server import document_of, entry
from mace_bounds.errors import LabelError
from mace_bounds.materials_project import check_entry, entry_of
from mace_bounds.structures import read


@pytest.fixture
def document():
    return document_of(entry("mp-7", "Fe-O", 2, run_type="GGA+U", correction=-3.2))


def only(document, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(entry_of(document, "2025.09.25")) + "\n")
    (record,) = read(path)
    return record


def edited(document, edit):
    changed = copy.deepcopy(document)
    edit(changed, changed["entries"]["GGA+U"])
    return changed


def test_a_good_document_gives_its_entry_as_it_is(document, tmp_path):
    kept = entry_of(document, "2025.09.25")
    source = document["entries"]["GGA+U"]
    assert {k: v for k, v in kept.items() if k != "data"} == {k: v for k, v in source.items() if k != "data"}
    assert kept["data"] == {
        **source["data"],
        "thermo_type": "GGA_GGA+U",
        "energy_above_hull": 0.0,
        "license": "BY-C",
        "database_version": "2025.09.25",
    }
    record = only(document, tmp_path)
    pymatgens = ComputedStructureEntry.from_dict(kept)  # pymatgen's word for uncorrected
    assert record.energy_ev == pymatgens.uncorrected_energy == source["energy"]
    assert pymatgens.energy == pytest.approx(source["energy"] - 3.2)
    assert record.label_kind == "uncorrected GGA+U"
    assert record.run_type == "GGA+U"
    assert (record.label_reason, record.flags, record.id) == (None, (), "mp-7-GGA+U")


def other_energy(_d, e):
    e["energy"] += 4 * 0.5


def corrected(_d, e):
    e["energy"] += e["correction"]


def other_volume(_d, e):
    e["structure"]["lattice"]["matrix"][0][0] *= 1.01


def other_sites(_d, e):
    e["structure"]["sites"].pop()
    e["energy"] *= 0.75


def other_species(_d, e):
    e["structure"]["sites"][0]["species"][0]["element"] = "Co"


CASES = {
    "r2SCAN hull": (lambda d, _e: d.update(thermo_type="R2SCAN"), "thermo type is \'R2SCAN'"),
    "mixed hull": (lambda d, _e: d.update(thermo_type="GGA_GGA+U_R2SCAN"), "thermo type is \'GGA_GGA+U_R2SCAN'"),
    "no kind of hull": (lambda d, _e: d.pop("thermo_type"), "names no thermo type"),
    "r2SCAN entry": (
        lambda _d, e: (e["parameters"].update(run_type="r2SCAN"), e["data"].pop("run_type")),
        "run type is \'r2SCAN'",
    ),
    "r2SCAN in its data": (lambda _d, e: e["data"].update(run_type="R2SCAN"), "run type is \'R2SCAN'"),
    "document of an r2SCAN energy": (
        lambda d, e: (d.update(energy_type="R2SCAN"), d["entries"].update(R2SCAN=e)),
        "run type is \'R2SCAN'",
    ),
    "energy of a run that is not there": (lambda d, _e: d.update(energy_type="GGA"), "entries of GGA+U only"),
    "entry of another run": (lambda _d, e: e["parameters"].update(run_type="GGA"), "is of the run type GGA, not GGA+U"),
    "no entries": (lambda d, _e: d.update(entries={}), "without entries"),
    "corrected energy": (corrected, "is the corrected one"),
    "energy of another calculation": (other_energy, "another calculation"),
    "energy that is no number": (lambda _d, e: e.update(energy=None), "no finite energy"),
    "LDA potentials": (
        lambda _d, e: e["parameters"]["potcar_spec"][0].update(titel="PAW Fe 06Sep2000"),
        "the pseudopotentials are of",
    ),
    "another cell": (other_volume, "geometry of another calculation"),
    "another number of atoms": (other_sites, "geometry of another calculation"),
    "other atoms": (other_species, "geometry of another calculation"),
    "another task": (lambda _d, e: e["data"].update(task_id="mp-1"), "of calculation mp-97, the entry of mp-1"),
    "structure's origin elsewhere": (
        lambda d, _e: d["origins"].append({"name": "structure", "task_id": "mp-8"}),
        "the document's structure is of",
    ),
    "no structure of its own": (lambda _d, e: e.pop("structure"), "no structure of its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_label_is_refused_with_the_remedy(document, tmp_path, case):
    edit, words = CASES[case]
    changed = edited(document, edit)
    found = changed["entries"].get(changed["energy_type"])
    with pytest.raises(LabelError, match=r"^[^\n;]+; (take|correct) [^\n;]+\.$"):
        check_entry(changed, found)
    record = only(changed, tmp_path)
    assert record.energy_ev is None
    assert words in (record.label_reason or entry_of(changed)["data"]["label_refused"])
    assert (record.crystal is None) == (
        case in ("no entries", "no structure of its own", "energy of a run that is not there")
    )


def test_the_structure_beside_the_entries_is_never_taken(document, tmp_path):
    summary_like = edited(document, lambda _d, e: e.pop("structure"))
    summary_like["structure"] = document["entries"]["GGA+U"]["structure"]
    record = only(summary_like, tmp_path)
    assert record.crystal is None
    assert "without structure" in record.reason


def test_rounding_and_new_ids_are_no_reason_to_refuse(document):
    good = edited(document, lambda d, _e: d.update(volume=round(d["volume"], 2)))
    good["uncorrected_energy_per_atom"] = round(good["uncorrected_energy_per_atom"], 3)
    good["origins"][0]["task_id"] = "mp-aaaabbbb"
    assert "label_refused" not in entry_of(good)["data"]


def test_ytterbium_and_licence_are_flagged_and_kept(tmp_path):
    record = only(document_of(entry("mp-3", "O-Yb")), tmp_path)
    assert (record.flags, record.energy_ev) == (("yb_3_potential",), -8.0003)
    old = document_of(entry("mp-3", "O-Yb"))
    old["entries"]["GGA"]["parameters"]["potcar_spec"][1]["titel"] = "PAW_PBE Yb_2 06Sep2000"
    assert only(old, tmp_path).flags == ()
    closed = document_of(entry("mp-4", "Cl-Na"), builder_meta={"license": "BY-NC"})
    record = only(closed, tmp_path)
    assert (record.flags, record.energy_ev) == (("licence_by_nc",), -8.0004)


@pytest.mark.parametrize("damage", [None, 3, "x", [], {}])
def test_damaged_documents_are_rows_too(tmp_path, document, damage):
    for key in ("entries", "origins", "builder_meta", "energy_type", "volume"):
        record = only({**document, key: damage}, tmp_path)
        assert record.energy_ev is None or key in ("origins", "builder_meta", "volume")
