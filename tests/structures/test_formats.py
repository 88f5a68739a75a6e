"""The registry of formats: names, contents, help, and the page that says how to add one."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from typer.testing import CliRunner

from mace_bounds.cli import app
from mace_bounds.structures import Record, help_text, read
from mace_bounds.structures.formats import FORMATS, Format, format_of, sniff

PAGE = Path(__file__).parents[2] / "docs" / "dev" / "add-a-format.md"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.cif", "cif"),
        ("a.b.MCIF", "cif"),
        ("a.cif.gz", "cif"),
        ("POSCAR", "poscar"),
        ("CONTCAR.relaxed", "poscar"),
        ("POSCAR_1.gz", "poscar"),
        ("x.vasp", "poscar"),
        ("POSCAR.json", "json"),
        ("a.extxyz.GZ", "extxyz"),
        ("a.jsonl.gz", "jsonl"),
        ("POSCARS", None),
        ("notes.txt", None),
        ("cif", None),
    ],
)
def test_a_files_name_says_its_format(name, key):
    assert format_of(Path("folder") / name) is (FORMATS[key] if key else None)


@pytest.mark.parametrize(
    ("head", "key"),
    [
        (b"data_x\n_cell_length_a 4\n", "cif"),
        (b"\xef\xbb\xbf2\nLattice=...\n", "extxyz"),
        (b"2\nLattice=...\n29 0 0 0\n29 0 0 1\n29 0 0 2\n29 0 0 3\n", "extxyz"),
        (b"comment\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n", "poscar"),
        (b' {"energy": 1}', "json"),
        (b"[\n1]", "json"),
        (b'{"energy": 1}\n{"energy": 2}\n', "jsonl"),
        (b"no idea", None),
        (b"data_x\0", None),
        (b" \n", None),
    ],
)
def test_a_content_says_its_format(head, key):
    assert sniff(head) is (FORMATS[key] if key else None)


def test_no_two_formats_share_a_name():
    suffixes = [suffix for format in FORMATS.values() for suffix in format.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


def test_the_help_of_commands_names_every_format(monkeypatch):
    assert help_text() == (
        "CIF, extxyz, XSF, OUTCAR, XDATCAR, POSCAR, JSON entries, JSON lines, vasprun.xml, ase .traj or ase .db "
        "(packed too)"
    )
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("score", "features"):
        words = " ".join(re.sub(r"[│\s]+", " ", CliRunner().invoke(app, [command, "--help"]).output).split())
        assert help_text() in words


def test_the_example_of_the_page_is_a_format_by_one_entry(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, object] = {"__name__": "aims"}
    exec(compile(source, str(PAGE), "exec"), namespace)
    monkeypatch.setitem(FORMATS, "aims", namespace["AIMS"])
    atoms = bulk("ZnO", "wurtzite", 3.25, 5.2)
    for keyword, places in (("atom", atoms.positions), ("atom_frac", atoms.get_scaled_positions())):
        vectors = [("lattice_vector", *vector, "") for vector in atoms.cell.array]
        rows = [(keyword, *place, symbol) for place, symbol in zip(places, atoms.symbols, strict=True)]
        (tmp_path / "geometry.in").write_text(
            "# made\n" + "\n".join(" ".join(map(str, row)) for row in vectors + rows)
        )
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "geometry.in").read_bytes()))
        )
        for source in (tmp_path, tmp_path / "geometry.in", "-"):  # by its name twice, by its content
            (record,) = read(source)
            assert record.reason is None
            np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
            np.testing.assert_allclose(record.crystal.positions, atoms.positions, atol=1e-9)
            np.testing.assert_allclose(record.crystal.cell, atoms.cell.array, atol=1e-9)
    for text, words in (("atom 0 0 0 Zn\n", "no cell"), ("atom 0 0\n", "lacks numbers"), ("\n#", "no cell")):
        (tmp_path / "geometry.in").write_text(text)
        (record,) = read(tmp_path / "geometry.in")
        assert words in record.reason
    assert "FHI-aims geometry" in help_text()


def test_a_binary_format_gets_the_bytes(tmp_path, monkeypatch):
    crystal = next(read(Atoms("Cu", cell=[4, 4, 4], pbc=True))).crystal

    def parse(data, _options):
        yield Record("numbers", crystal=crystal if data == b"\0\1" else None)

    monkeypatch.setitem(
        FORMATS, "bin", Format("made-up", (".bin",), lambda head: head[:1] == b"\0", parse, takes="bytes")
    )
    (tmp_path / "x.bin").write_bytes(b"\0\1")
    (tmp_path / "x.unknown").write_bytes(b"\0\1")
    for name in ("x.bin", "x.unknown"):
        (record,) = read(tmp_path / name)
        assert (record.id, record.reason) == ("numbers", None)
