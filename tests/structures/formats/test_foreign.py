"""What is not read is named, with what to do."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write as ase_write
from ase.io.formats import ioformats

from mace_bounds.structures import read
from mace_bounds.structures.formats import FORMATS
from mace_bounds.structures.formats.foreign import FOREIGN

ATOMS = bulk("NaCl", "rocksalt", a=5.64)
WRITTEN = {
    "gen": ("x.gen", "DFTB+"),
    "espresso-in": ("x.pwi", "Quantum ESPRESSO"),
    "proteindatabank": ("x.pdb", "PDB"),
    "aims": ("geometry.in", "FHI-aims"),
    "lammps-data": ("x.lmp", "LAMMPS"),
    "cube": ("x.cube", "cube"),
    "res": ("x.res", "SHELX"),
    "magres": ("x.magres", "Magres"),
    "cfg": ("x.cfg", "AtomEye"),
}


@pytest.mark.filterwarnings("ignore:FHI-aims:FutureWarning")
@pytest.mark.parametrize("format", WRITTEN)
def test_what_ase_can_convert(tmp_path, format):
    name, word = WRITTEN[format]
    options = {"pseudopotentials": {"Na": "Na.UPF", "Cl": "Cl.UPF"}} if format == "espresso-in" else {}
    ase_write(tmp_path / name, ATOMS, format=format, **options)
    (record,) = read(tmp_path / name)
    assert word in record.reason
    assert f"ase convert -i {format} {name} structures.extxyz" in record.reason


@pytest.mark.parametrize("format", ["gen", "espresso-in", "proteindatabank", "magres", "cfg"])
def test_some_are_known_by_their_content(tmp_path, format):
    options = {"pseudopotentials": {"Na": "Na.UPF", "Cl": "Cl.UPF"}} if format == "espresso-in" else {}
    ase_write(tmp_path / "unnamed", ATOMS, format=format, **options)
    assert WRITTEN[format][1] in next(read(tmp_path / "unnamed")).reason


def test_castep(tmp_path):
    text = "# made by hand\n\n%BLOCK LATTICE_CART\n4 0 0\n0 4 0\n0 0 4\n%ENDBLOCK LATTICE_CART\n"
    for name in ("x.cell", "unnamed"):
        (tmp_path / name).write_text(text)
        assert f"`ase convert -i castep-cell {name} structures.extxyz`" in next(read(tmp_path / name)).reason


def test_binary_and_strange_contents(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = 1
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", np.zeros(3))
    pd.to_pickle({"a": 1}, tmp_path / "x.pkl")
    (tmp_path / "x.html").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (tmp_path / "x.lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n")
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "x.txt").write_text("data_x\n", encoding="utf-16")
    words = {
        "x.h5": "HDF5", "x.parquet": "Parquet", "x.npy": "NumPy", "x.pkl": "pickle", "x.html": "web page",
        "x.lfs": "Git LFS", "x.pdf": "PDF", "x.txt": "UTF-16",
    }  # fmt: skip
    for name, word in words.items():
        for shown in (name, "x.cif", "x.extxyz", "POSCAR"):
            (tmp_path / shown).write_bytes((tmp_path / name).read_bytes())
            assert word in next(read(tmp_path / shown)).reason


@pytest.mark.parametrize(
    "name", ["POTCAR", "INCAR", "CHGCAR", "KPOINTS.relax1", "WAVECAR", "LOCPOT", "DOSCAR.gz"]
)
def test_other_files_of_vasp(tmp_path, name):
    (tmp_path / name).write_text("ENCUT = 520")
    assert "give the vasprun.xml or CONTCAR" in next(read(tmp_path / name)).reason


FOREIGN_JSON = {
    "AiiDA": {
        "cell": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]], "pbc1": True, "pbc2": True, "pbc3": True,
        "kinds": [{"mass": 28.0855, "name": "Si", "symbols": ["Si"], "weights": [1.0]}],
        "sites": [{"kind_name": "Si", "position": [0.0, 0.0, 0.0]}],
    },
    "OQMD": {"data": [{"name": "Si", "unit_cell": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "sites": ["Si @ 0 0 0"]}]},
    "AFLOW": [{"compound": "Si2", "auid": "aflow:1", "positions_fractional": [[0, 0, 0]], "species": ["Si"]}],
    "NOMAD": {"run": [{"program": {"name": "VASP"}, "system": [{"atoms": {"labels": ["Si"]}}]}], "metadata": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN_JSON)
def test_json_of_others_is_named(name, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(FOREIGN_JSON[name]))
    (record,) = read(tmp_path / "x.json")
    assert name in record.reason
    assert "which is not read; " in record.reason


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("x.vesta", "#VESTA_FORMAT_VERSION 3.5.4\n\nCRYSTAL\n\nTITLE\nNaCl\n", "VESTA"),
        ("x.txt", "#VESTA_FORMAT_VERSION 3.5.4\n\nCRYSTAL\n\nTITLE\nNaCl\n", "VESTA"),
        (
            "x.xsd",
            '<?xml version="1.0" encoding="latin1"?>\n<!DOCTYPE XSD []>\n<XSD></XSD>',
            "Materials Studio",
        ),
        ("x.pcr", "COMM NaCl\n", "FullProf"),
        ("x.EXP", "     DESCR   NaCl\n", "GSAS"),
        ("phonopy.yaml", "phonopy:\n  version: 2.20\n", "YAML"),
        ("x.cmtx", "TITL Halite\n", "CrystalMaker"),
    ],
)
def test_native_files_of_programs_are_named(name, text, word, tmp_path):
    (tmp_path / name).write_text(text)
    assert word in next(read(tmp_path / name)).reason


def test_the_list_is_sound():
    suffixes = [suffix for foreign in FOREIGN for suffix in foreign.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert not set(suffixes) & {suffix for format in FORMATS.values() for suffix in format.suffixes}
    for foreign in FOREIGN:
        if "-i " in foreign.remedy:
            key = foreign.remedy.split("-i ")[1].split()[0]
            assert ioformats[key].can_read, key
