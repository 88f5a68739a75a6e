"""vasprun.xml and OUTCAR against pymatgen and ase, on the files that ase tests itself with."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import ase.io
import ase.test
import numpy as np
import pytest
from pymatgen.io.vasp.outputs import Vasprun

from mace_bounds.structures import read

DATA = Path(ase.test.__file__).parent / "testdata" / "vasp"
XML = (DATA / "vasprun_dfpt.xml").read_text(encoding="latin-1")
OUT = (DATA / "OUTCAR_example_1").read_text()
POTENTIAL = "PAW_PBE"


def of_xml(tmp_path, text, **options):
    (tmp_path / "vasprun.xml").write_text(text, encoding="latin-1")
    return list(read(tmp_path / "vasprun.xml", **options))


def of_outcar(tmp_path, text):
    (tmp_path / "OUTCAR").write_text(text)
    return list(read(tmp_path / "OUTCAR"))


def test_vasprun_as_pymatgen_reads_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Vasprun(str(DATA / "vasprun_dfpt.xml"), parse_potcar_file=False)
    for name, data in (
        ("vasprun.xml", XML.encode("latin-1")),
        ("vasprun.relax1.xml.gz", gzip.compress(XML.encode("latin-1"))),
    ):
        (tmp_path / name).write_bytes(data)
        (record,) = read(tmp_path / name)
        assert (record.id, record.run_type, record.label_reason) == (name, "GGA", None)
        assert record.energy_ev == pytest.approx(float(run.final_energy), abs=1e-8)
        np.testing.assert_allclose(record.crystal.positions, run.final_structure.cart_coords, atol=1e-8)
        np.testing.assert_allclose(record.crystal.cell, run.final_structure.lattice.matrix, atol=1e-8)


def changed(text, **tags):
    for tag, value in tags.items():
        kind = "logical" if value in ("T", "F") else "string"
        line = f'  <i type="{kind}" name="{tag}">{value}</i>\n'
        text = text.replace("<incar>\n", "<incar>\n" + line, 1)
        before, name, after = text.rpartition(f'name="{tag}"')
        if name and "<parameters>" in before:
            text = before + name + ">" + value + after[after.index("</i>") :]
    return text


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"GGA": "PS"}, "PBEsol"),
        ({"METAGGA": "R2SCAN"}, "R2SCAN"),
        ({"LHFCALC": "T"}, "GGA"),
        ({"IVDW": "12"}, "vdW"),
        ({"LUSE_VDW": "T"}, "rVV10"),
        ({"ML_LMLFF": "T"}, "machine-learned"),
        ({"NELM": "3"}, "converge within NELM = 3"),
    ],
)
def test_what_is_not_pbe_keeps_its_geometry_and_loses_its_label(tmp_path, tags, word):
    (record,) = of_xml(tmp_path, changed(XML, **tags))
    if tags == {"LHFCALC": "T"}:
        return
    assert record.crystal is not None
    assert record.energy_ev is None
    assert word in record.label_reason


def test_outcar_as_ase_reads_it(tmp_path):
    atoms = ase.io.read(DATA / "OUTCAR_example_1", format="vasp-out")
    (record,) = of_outcar(tmp_path, OUT)
    assert record.energy_ev == atoms.get_potential_energy()  # ase: sigma to 0
    assert record.run_type == "GGA"
    np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
    np.testing.assert_allclose(record.crystal.positions, atoms.positions)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("GGA     =    --", "GGA     =    PS", "'PS'"),
        ("METAGGA=      F", "METAGGA=  R2SCAN", "R2SCAN"),
        ("LHFCALC =     F", "LHFCALC =     T", "hybrid"),
        ("NELM   =    120", "NELM   =     10", "NELM = 10"),
        ("PAW_PBE", "PAW", "LDA"),
        ("   GGA     =", "   IVDW = 11\n   GGA     =", "vdW"),
    ],
)
def test_outcars_that_are_not_pbe(tmp_path, old, new, word):
    assert old in OUT
    (record,) = of_outcar(tmp_path, OUT.replace(old, new))
    assert record.crystal is not None
    assert record.energy_ev is None
    assert word in record.label_reason


def test_outcar_with_u(tmp_path):
    text = OUT.replace(
        "   GGA     =",
        " LDA+U is selected, type is set to LDAUTYPE =  2\n U (eV) LDAUU =   6.2\n   GGA     =",
        1,
    )
    (record,) = of_outcar(tmp_path, text)
    assert record.run_type == "GGA+U"
    assert record.label_kind == "uncorrected GGA+U (U in eV: Ni 6.2), sigma to 0"


def test_cut_files_have_a_reason(tmp_path):
    for end in (300, 5_000, len(XML) // 2):
        assert of_xml(tmp_path, XML[:end])[-1].reason
    for end in (300, 20_000, len(OUT) // 2):
        assert of_outcar(tmp_path, OUT[:end])[-1].reason
    (record,) = of_xml(tmp_path, '<?xml version="1.0"?><other/>')
    assert record.reason is not None


def test_one_output_stands_for_a_run(tmp_path, caplog):
    (tmp_path / "vasprun.xml").write_text(XML, encoding="latin-1")
    (tmp_path / "OUTCAR").write_text(OUT)
    (tmp_path / "POSCAR").write_text("x")
    (tmp_path / "POTCAR").write_text("x")
    assert [record.id for record in read(tmp_path)] == ["vasprun.xml"]
    assert "3 of 4 files" in caplog.text
    assert "2 beside the output of a VASP run that is read, 1 VASP's pseudopotentials" in caplog.text
