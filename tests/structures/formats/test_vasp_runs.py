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
        ({"LHFCALC": "T"}, "Hybrid"),
        ({"LHFCALC": "T", "AEXX": "0.25", "HFSCREEN": "0.2"}, "HSE06"),
        ({"IVDW": "12"}, "vdW"),
        ({"LUSE_VDW": "T"}, "rVV10"),
        ({"ML_LMLFF": "T"}, "machine-learned"),
        ({"NELM": "3"}, "converge within NELM = 3"),
    ],
)
def test_what_is_not_pbe_keeps_its_geometry_and_loses_its_label(tmp_path, tags, word):
    (record,) = of_xml(tmp_path, changed(XML, **tags))
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
        ("LEXCH   =     8", "LEXCH   =     2", "LEXCH = 2"),
        (" INCAR:\n", " INCAR:\n   METAGGA = R2SCAN\n   LASPH = .TRUE.\n", "R2SCAN"),  # as VASP 6 echoes it
        (" INCAR:\n", " INCAR:\n   LUSE_VDW = .TRUE.\n", "vdW"),
        (" INCAR:\n", " INCAR:\n   ML_LMLFF = .TRUE.\n", "machine-learned"),
        ("   GGA     =", "   IVDW = 11\n   GGA     =", "vdW"),
    ],
)
def test_outcars_that_are_not_pbe(tmp_path, old, new, word):
    assert old in OUT
    (record,) = of_outcar(tmp_path, OUT.replace(old, new))
    assert record.crystal is not None
    assert record.energy_ev is None
    assert word in record.label_reason


U_BLOCK = """
 LDA+U is selected, type is set to LDAUTYPE =  2
   angular momentum for each species LDAUL =     2   -1
   U (eV)           for each species LDAUU =   6.2  0.0
   J (eV)           for each species LDAUJ =   0.0  0.0
 Exchange"""


@pytest.mark.parametrize(
    ("block", "incar", "u"),
    [
        (U_BLOCK, "", "Ni 6.2"),
        (
            U_BLOCK,
            "   LDAU = .TRUE.\n   LDAUU = 5.0 0.0\n   LDAUJ = 0.0 0.0\n",
            "Ni 6.2",
        ),  # an echo comes first
        (U_BLOCK.replace("0.0  0.0", "1.0  0.0"), "", "Ni 5.2"),  # by Dudarev U - J counts
    ],
)
def test_outcar_with_u(tmp_path, block, incar, u):
    text = OUT.replace("\n Exchange", block, 1).replace(" INCAR:\n", f" INCAR:\n{incar}", 1)
    (record,) = of_outcar(tmp_path, text)
    assert record.run_type == "GGA+U"
    assert record.label_kind == f"uncorrected GGA+U (U in eV: {u}), sigma to 0"
    (record,) = of_outcar(tmp_path, text.replace("LHFCALC =     F", "LHFCALC =     T"))
    assert record.energy_ev is None
    assert "hybrid+U" in record.label_reason


def test_outcar_with_two_species_of_one_element(tmp_path):
    titles = "".join(
        f"   TITEL  = PAW_PBE {name}\n" for name in ("Ni 02Aug2007", "Ni 02Aug2007", "O 08Apr2002")
    )
    block = U_BLOCK.replace("6.2  0.0", "6.2  6.2  0.0")
    text = OUT.replace(" INCAR:\n", " INCAR:\n" + titles, 1).replace("\n Exchange", block, 1)
    (record,) = of_outcar(tmp_path, text)
    assert record.label_kind == "uncorrected GGA+U (U in eV: Ni 6.2), sigma to 0"


def test_vasprun_with_u_as_pymatgen_reads_it(tmp_path):
    """The tags as VASP writes them: vectors with one value for each species."""
    u = (
        ' <i type="logical" name="LDAU"> T  </i>\n <i type="int" name="LDAUTYPE">     2</i>\n'
        ' <v type="int" name="LDAUL">     2    -1</v>\n <v name="LDAUU">      3.25000000      0.00000000</v>\n'
        ' <v name="LDAUJ">      0.00000000      0.00000000</v>\n'
    )
    text = XML.replace("<incar>\n", "<incar>\n" + u, 1)
    text = text.replace('  <i type="logical" name="LDAU"> F  </i>\n', u, 1)
    (record,) = of_xml(tmp_path, text)
    assert record.run_type == "GGA+U"
    assert record.label_kind == "uncorrected GGA+U (U in eV: Na 3.25), sigma to 0"
    (record,) = of_xml(tmp_path, changed(text, LHFCALC="T", AEXX="0.25", HFSCREEN="0.2"))
    assert record.energy_ev is None
    assert "HSE06+U" in record.label_reason


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
