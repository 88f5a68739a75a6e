"""One verb, many sources; a bad file in a bulk run is a row."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write
from pymatgen.core import Lattice, Molecule, Structure

from mace_bounds.errors import SourceError
from mace_bounds.structures import Crystal, Record, read

COPPER = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])


@pytest.fixture
def folder(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    root = tmp_path / "crystals"
    (root / "sub").mkdir(parents=True)
    ase_write(root / "b.cif", atoms)
    ase_write(root / "sub" / "POSCAR", atoms, format="vasp")
    ase_write(root / "a.extxyz", [atoms, atoms], format="extxyz")
    (root / "c.json").write_text(COPPER.to_json())
    (root / "empty.cif").write_text("")
    (root / "garbage.vasp").write_bytes(bytes(range(256)) * 4)
    (root / "notes.txt").write_text("not a structure")
    for name in ("b.cif", "c.json", "a.extxyz"):
        (root / f"{name}.gz").write_bytes(gzip.compress((root / name).read_bytes()))
    shutil.copy(root / "sub" / "POSCAR", root / "sub" / "x.vasp")
    (root / "sub" / "x.vasp.gz").write_bytes(gzip.compress((root / "sub" / "POSCAR").read_bytes()))
    return root


def test_folder_is_read_recursively_in_order(folder):
    records = {record.id: record for record in read(folder)}
    assert list(records) == [
        "a.extxyz#0", "a.extxyz#1", "a.extxyz.gz#0", "a.extxyz.gz#1", "b.cif", "b.cif.gz", "c.json", "c.json.gz",
        "empty.cif", "garbage.vasp", "sub/POSCAR", "sub/x.vasp", "sub/x.vasp.gz",
    ]  # fmt: skip
    bad = {name: record.reason for name, record in records.items() if record.crystal is None}
    assert list(bad) == ["empty.cif", "garbage.vasp"]
    assert "empty" in bad["empty.cif"]
    assert "binary" in bad["garbage.vasp"]
    formulas = {record.crystal.formula for record in records.values() if record.crystal is not None}
    assert formulas == {"NaCl", "Cu"}


def test_patterns_lists_and_labels(folder, monkeypatch):
    assert [record.id for record in read(str(folder / "*.cif"))] == ["b.cif", "empty.cif"]
    assert [r.id for r in read(str(folder / "**" / "*.vasp"))] == ["garbage.vasp", "sub/x.vasp"]
    monkeypatch.chdir(folder)
    paths = ["sub/POSCAR", "b.cif", "missing.cif", folder / "sub" / "x.vasp"]
    records = list(read(paths))
    assert [record.id for record in records] == ["sub/POSCAR", "b.cif", "missing.cif", "sub/x.vasp"]
    assert "does not exist" in records[2].reason
    assert [record.id for record in read(["sub/POSCAR"])] == ["POSCAR"]
    (folder / "nothing").mkdir()
    good, bad = read(["b.cif", "nothing"])
    assert good.reason is None
    assert "the folder nothing holds no CIF, " in bad.reason


def test_what_names_nothing_is_an_error_at_once(folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    for source in ("no/such/file.cif", folder / "*.res", tmp_path / "nothing", [], 3, b"x", None, "a\0b"):
        with pytest.raises(SourceError, match=r"^[^;]+; [^;]+\.$"):
            read(source)


def test_standard_input_is_recognised(folder, monkeypatch):
    for name in ("b.cif", "c.json", "sub/POSCAR", "a.extxyz", "a.extxyz.gz"):
        stream = io.TextIOWrapper(io.BytesIO((folder / name).read_bytes()))
        monkeypatch.setattr(sys, "stdin", stream)
        records = list(read("-"))
        assert [record.reason for record in records] == [None] * len(records)
        assert records[0].id == ("stdin#0" if "extxyz" in name else "stdin")
        assert records[0].source == "stdin"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"what is this")))
    assert "format is unknown" in next(read("-")).reason


def test_objects():
    atoms = bulk("Cu")
    atoms.info.update(id="mine", energy=-3.5, run_type="GGA")
    (record,) = read(atoms)
    assert (record.id, record.energy_ev, record.run_type) == ("mine", -3.5, "GGA")
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-4.5)
    crystal = Crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    records = list(
        read([atoms, COPPER, crystal, COPPER.as_dict(), molecule("H2O"), Molecule("O", [[0, 0, 0]]), 7])
    )
    assert [record.energy_ev for record in records] == [-4.5] + [None] * 6
    assert [record.crystal is not None for record in records] == [True] * 4 + [False] * 3
    assert [record.id for record in records] == [f"structure#{i}" for i in range(7)]
    assert "cell" in records[4].reason
    assert "molecule" in records[5].reason
    assert "type int is no structure" in records[6].reason
    slab = Atoms("Cu", cell=np.eye(3) * 5, pbc=[True, True, False])
    assert "all three directions" in next(read(slab)).reason


def test_records_pass_through_and_ids_become_unique():
    atoms = bulk("Cu")
    crystal = Crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    records = [
        Record("x", "s", crystal, energy_ev=-1.0),
        Record("x~2", "s", crystal),
        Record("x", "s", crystal),
    ]
    result = list(read(records))
    assert [record.id for record in result] == ["x", "x~2", "x~3"]
    assert [record.flags for record in result] == [(), (), ("duplicate_id",)]
    assert result[0].energy_ev == -1.0
    again = list(read(result))
    assert [record.flags for record in again] == [(), (), ("duplicate_id",)]


def test_limits_of_the_model():
    (record,) = read(COPPER, elements={1, 8})
    assert "Cu" in record.reason
    assert record.crystal is None
    (record,) = read(COPPER * (2, 2, 2), max_atoms=4)
    assert "8 atoms, more than 4" in record.reason


def test_printable_ids_and_reasons(tmp_path):
    text = '1\nLattice="4 0 0 0 4 0 0 0 4" id="a\x1b[31mb\u202ec\x07"\nCu 0 0 0\n1\nLattice="\x1b[1m"\nCu 0 0 0\n'
    path = tmp_path / "x.extxyz"
    path.write_text(text)
    first, second = read(path)
    assert first.id == "a [31mb c"
    assert second.reason.isprintable()


def test_wrong_suffix_and_damaged_gzip(tmp_path, folder):
    wrong = tmp_path / "x.cif"
    shutil.copy(folder / "sub" / "POSCAR", wrong)
    assert "looks like POSCAR" in next(read(wrong)).reason
    unknown = tmp_path / "x.dat"
    shutil.copy(folder / "b.cif", unknown)
    assert next(read(unknown)).reason is None
    unknown.write_text("no idea")
    assert "format is unknown" in next(read(unknown)).reason
    data = (folder / "c.json.gz").read_bytes()
    for damage, word in ((data[:-30], "cut off"), (data[:20] + b"\xff" * 40 + data[60:], "damaged")):
        (tmp_path / "x.json.gz").write_bytes(damage)
        (record,) = read(tmp_path / "x.json.gz")
        assert word in record.reason
    empty = tmp_path / "e.extxyz"
    empty.write_text("\n\n")
    assert "empty" in next(read(empty)).reason


def test_a_bad_entry_does_not_stop_the_list(tmp_path):
    good, bad = COPPER.as_dict(), COPPER.as_dict()
    bad["sites"] = "oops"
    (tmp_path / "x.json").write_text(json.dumps([good, bad, good]))
    assert [record.reason is None for record in read(tmp_path / "x.json")] == [True, False, True]


def test_a_file_of_frames_is_read_as_it_comes(tmp_path, monkeypatch):
    from mace_bounds.structures import containers

    path = tmp_path / "f.extxyz.gz"
    buffer = io.StringIO()
    ase_write(buffer, [bulk("NaCl", "rocksalt", a=5.64)] * 500, format="extxyz")
    path.write_bytes(gzip.compress(buffer.getvalue().encode()))
    lines, plain = [], containers.open_lines
    monkeypatch.setattr(
        containers, "open_lines", lambda *stream: (lines.append(1) or line for line in plain(*stream))
    )
    records = read(path)
    assert next(records).reason is None
    assert len(lines) <= 8  # two frames of four lines, to tell whether there are several
    assert 1 + sum(record.reason is None for record in records) == 500


def test_many_equal_ids():
    atoms = bulk("Cu")
    atoms.info["id"] = "x"
    ids = [record.id for record in read([atoms] * 300)]
    assert ids == ["x", *(f"x~{k}" for k in range(2, 301))]


def test_the_natural_trap_is_seen_by_the_helper(shared_data):
    from mace_bounds.structures import suspect_label

    residuals = [-0.05, 0.2, -12.3, -69.0]
    if shared_data is not None:
        frames = list(read(shared_data / "mp_devset_frames.extxyz.gz"))
        assert len(frames) == 158
        per_atom = [frame.energy_ev / len(frame.crystal.numbers) for frame in frames]
        assert sum(energy < -12 for energy in per_atom) > 20  # no PBE energy of a crystal is that low in MP
    assert [suspect_label(r) for r in residuals] == [False, False, True, True]
