# ruff: noqa: E501  one kind a line
"""Spellings of CIFs and contradictions in them, kind by kind; the truth is from pymatgen's space groups or counted."""

from __future__ import annotations

import re

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from mace_bounds.structures.formats.cif import parse_cif
from mace_bounds.structures.formats.cif.groups import named_groups

CELL = {"cubic": (4.156, 4.156, 4.156, 90, 90, 90), "hex": (4.395, 4.395, 30.44, 90, 90, 120)}
CELL |= {"rhomb": (10.4575, 10.4575, 10.4575, 24.265, 24.265, 24.265), "salt": (5.64, 5.64, 5.64, 90, 90, 90)}
CELL |= {"mono": (5.15, 5.21, 5.32, 90, 99.2, 90), "diamond": (3.567,) * 3 + (90,) * 3}
CELL |= {"caesium": (4.12,) * 3 + (90,) * 3, "mg": (3.209, 3.209, 5.211, 90, 90, 120)}
LAB6, SALT = ["La1 La 0 0 0", "B1 B 0.5 0.5 0.199"], ["Na1 Na 0 0 0", "Cl1 Cl 0.5 0.5 0.5"]
CSCL = ["Cs1 Cs 0 0 0", "Cl1 Cl 0.5 0.5 0.5"]
BI2TE3 = ["Bi1 Bi 0 0 0.4", "Te1 Te 0 0 0", "Te2 Te 0 0 0.2097"]
BI2TE3_R = ["Bi1 Bi 0.4 0.4 0.4", "Te1 Te 0 0 0", "Te2 Te 0.2097 0.2097 0.2097"]
ZRO2 = ["Zr1 Zr 0.2754 0.0395 0.2083", "O1 O 0.07 0.3317 0.3447", "O2 O 0.4496 0.7569 0.4792"]
FM3M = [op.triplet() for op in gemmi.SpaceGroup("F m -3 m").operations()]
PM3M = [op.triplet() for op in gemmi.SpaceGroup("P m -3 m").operations()]


def cif(cell, rows, head="", ops=(), columns="label type_symbol fract_x fract_y fract_z"):
    """Return a CIF of some lines before the sites, operations, and rows."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    text = (
        "data_x\n" + "".join(f"_cell_{n} {v}\n" for n, v in zip(names, CELL[cell], strict=True)) + head + "\n"
    )
    if ops:
        text += "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{op}'\n" for op in ops)
    return text + "loop_\n" + "".join(f"_atom_site_{c}\n" for c in columns.split()) + "\n".join(rows) + "\n"


def crystal(text):
    (record,) = parse_cif(text)
    assert record.reason is None, record.reason
    return record.crystal


def reason(text):
    (record,) = parse_cif(text)
    assert record.crystal is None
    assert record.reason.endswith(".")
    assert record.reason.count(";") == 1
    return record.reason


def named(name):
    return f"_symmetry_space_group_name_H-M '{name}'\n"


@pytest.mark.parametrize("name", ["Pm3m", "P m 3 m", "P m -3 m", "PM-3M", "p m -3 m", "P 4/m -3 2/m", "Pm\\bar{3}m", "Pm3̄m",
                                  "P m −3 m", "P m -3 m (221)", "P m -3 m (No. 221)", "P_m_-3_m"])  # fmt: skip
def test_cubic_names(name):
    assert len(crystal(cif("cubic", LAB6, named(name))).numbers) == 7


@pytest.mark.parametrize("line", [
    "_symmetry_Int_Tables_number 221", "_space_group.IT_number 221", "_symmetry_space_group_name_Hall '-P 4 2 3'",
    "_SPACE_GROUP_NAME_H-M_ALT 'P m -3 m'", "_space_group_name_Schoenflies Oh^1", "_symmetry_Int_Tables_number 221\n_space_group.IT_coordinate_system_code ?", "_symmetry_space_group_name_H-M P m -3 m",
])  # fmt: skip
def test_other_tags_of_the_group(line):
    assert len(crystal(cif("cubic", LAB6, line)).numbers) == 7


@pytest.mark.parametrize(("name", "cell", "rows", "n"), [
    ("R -3 m", "hex", BI2TE3, 15), ("R-3mh", "hex", BI2TE3, 15), ("R -3 m HR", "hex", BI2TE3, 15),
    ("R -3 m :H", "hex", BI2TE3, 15), ("R -3 2/m", "hex", BI2TE3, 15), ("R -3 m", "rhomb", BI2TE3_R, 5),
    ("R -3 m RS", "rhomb", BI2TE3_R, 5), ("R-3m:R", "rhomb", BI2TE3_R, 5),
    ("R -3 m (rhombohedral axes)", "rhomb", BI2TE3_R, 5), ("P 21/c", "mono", ZRO2, 12), ("P2(1)/c", "mono", ZRO2, 12),
    ("P2~1~/c", "mono", ZRO2, 12), ("P 1 21/c", "mono", ZRO2, 12), ("P 1 21/c 1", "mono", ZRO2, 12), ("P2_1/c:b1", "mono", ZRO2, 12),
    ("P2<sub>1</sub>/c", "mono", ZRO2, 12), ("$P2_{1}/c$", "mono", ZRO2, 12), ("P2₁/c", "mono", ZRO2, 12),
    ("F d -3 m :1", "diamond", ["C1 C 0 0 0"], 8), ("F d -3 m S", "diamond", ["C1 C 0 0 0"], 8),
    ("F d -3 m Z", "diamond", ["C1 C 0.125 0.125 0.125"], 8), ("Fd-3m:2", "diamond", ["C1 C 0.125 0.125 0.125"], 8),
    ("F d -3 m {origin @ centre (-3m)}", "diamond", ["C1 C 0.125 0.125 0.125"], 8),
    ("F d -3 m (origin choice 2)", "diamond", ["C1 C 0.125 0.125 0.125"], 8), ("F 41/d -3 2/m :1", "diamond", ["C1 C 0 0 0"], 8),
])  # fmt: skip
def test_names_with_settings(name, cell, rows, n):
    assert len(crystal(cif(cell, rows, named(name))).numbers) == n


def test_an_open_origin_is_decided_by_the_formula_or_refused():
    text = cif("diamond", ["C1 C 0 0 0"], named("F d -3 m"))
    assert "leaves open" in reason(text)
    assert (
        len(crystal(text.replace("loop_", "_chemical_formula_sum C\n_cell_formula_units_Z 8\nloop_")).numbers)
        == 8
    )


def test_operations_at_another_origin_are_the_named_group():
    ops = ["x,y,z", "1/2+x,1/2-y,-z", "-x,1/2+y,1/2-z", "1/2-x,-y,1/2+z"]  # of the International Tables
    other = ["x,y,z", "1/2+x,-y,-z", "1/2-x,1/2+y,1/2-z", "-x,1/2-y,1/2+z"]  # the origin on a screw axis
    rows = ["Si1 Si 0.11 0.27 0.31"]
    for listed in (ops, other):
        assert len(crystal(cif("cubic", rows, named("P 21 21 21"), listed)).numbers) == 4
    assert "names the space group" in reason(
        cif("mono", ZRO2, named("P 1 21/n 1"), ["x,y,z", "-x,-y,-z", "-x,y+1/2,-z+1/2", "x,-y+1/2,z+1/2"])
    )


def test_every_tabulated_symbol_means_its_own_group():
    for entry in gemmi.spacegroup_table():
        for symbol in (entry.xhm(), entry.xhm().replace(" ", "")):
            (group,) = named_groups(symbol)
            assert group.number == entry.number
            assert group.key == {op.triplet() for op in entry.operations()}


@pytest.mark.parametrize("group", range(1, 231, 6))
def test_every_kind_of_group_expands_as_pymatgen_does(group):
    standard = next(g for g in gemmi.spacegroup_table() if g.number == group and g.is_reference_setting())
    lengths, angles = [6.0, 7.0, 8.0], [80.0, 95.0, 100.0]
    system = standard.crystal_system_str()
    if system != "triclinic":
        angles = [
            90,
            100 if system == "monoclinic" else 90,
            120 if system in ("trigonal", "hexagonal") else 90,
        ]
    if system not in ("triclinic", "monoclinic", "orthorhombic"):
        lengths = [6.0, 6.0, 6.0 if system == "cubic" else 8.0]
    CELL["now"] = (*lengths, *angles)
    point = [0.1234, 0.3045, 0.3456]
    lattice = Lattice.from_parameters(*CELL["now"])
    images = [gemmi.Op(op.triplet()).apply_to_xyz(point) for op in standard.operations()]
    (record,) = parse_cif(cif("now", ["Fe1 Fe 0.1234 0.3045 0.3456"], named(standard.xhm())))
    read = record.crystal
    if read is None:  # two of the copies are closer than 0.5 Å
        distances = lattice.get_all_distances(images, images)
        assert distances[np.triu_indices(len(images), 1)].min() < 0.5
        return
    assert len(read.numbers) == len(images) == len(list(standard.operations()))
    assert Structure(lattice, ["Fe"] * len(images), images).volume == pytest.approx(read.volume)
    far = lattice.get_all_distances(np.linalg.solve(read.cell.T, read.positions.T).T, images)
    assert far.min(axis=0).max() < 1e-6


@pytest.mark.parametrize("digits", [2, 3, 4, 6])
def test_rounded_special_positions_are_one_site(digits):
    ops = [op.triplet() for op in gemmi.SpaceGroup("P 63/m m c").operations()]
    row = f"Mg1 Mg {1 / 3:.{digits}f} {2 / 3:.{digits}f} 0.25"
    got = crystal(cif("mg", [row], ops=ops))
    assert len(got.numbers) == 2
    shift = np.linalg.solve(got.cell.T, got.positions[1] - got.positions[0])
    assert (
        np.abs((shift % 1.0) - [1 / 3, 2 / 3, 0.5]).max() < 1e-9
        or np.abs((shift % 1.0) - [2 / 3, 1 / 3, 0.5]).max() < 1e-9
    )


SPELLINGS = {
    "upper case": lambda text: "\n".join(line.upper() if line[:1] in "_dl" and " " not in line else line for line in text.split("\n")),
    "dots": lambda text: text.replace("_cell_", "_cell.").replace("_atom_site_", "_atom_site."),
    "data_ in a text field": lambda text: text.replace("data_x\n", "data_x\n_note\n;\ndata_y\n_cell_length_a 1\n;\n"),
    "byte order mark": lambda text: "\ufeff".encode() + text.encode(),
    "Latin-1": lambda text: text.replace("data_x\n", "data_x\n_author 'Müller'\n").encode("latin-1"),
    "typographic minus": lambda text: text.replace("-", "−").encode(),
    "no-break space": lambda text: text.replace(" 0 0 0", " 0\u00a0 0 0").encode(),
    "Ctrl-Z": lambda text: text.encode() + b"\x1a",
    "carriage returns": lambda text: text.replace("\n", "\r").encode(),
    "isotopes and charges": lambda text: text.replace("Na1 Na", "Na1 23Na+").replace("Cl1 Cl", "Cl1 Cl1-"),
    "upper-case types": lambda text: text.replace("Na1 Na", "Na1 NA").replace("Cl1 Cl", "Cl1 CL"),
    "unknown types": lambda text: text.replace("Na1 Na", "Na1 ?").replace("Cl1 Cl", "Cl1 ."),
    "fractions": lambda text: text.replace("0.5 0.5 0.5", "1/2 5.0E-1 .5000(3)"),
    "moments": lambda text: text + "loop_\n_atom_site_moment_label\n_atom_site_moment_crystalaxis_x\n",
    "bibliography": lambda text: text + "data_notes\n_journal_year 1999\n",
    "pymatgen's formula": lambda text: text.replace("loop_", "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4\nloop_", 1),
    "identity left out": lambda text: text.replace("'x,y,z'\n", ""),
    "magnetic": lambda text: text.replace("_symmetry_equiv_pos_as_xyz", "_space_group_symop_magn_operation.xyz").replace("'\n", ",+1'\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_spellings_of_rock_salt(kind):
    assert crystal(SPELLINGS[kind](cif("salt", SALT, ops=FM3M))).counts == {11: 4, 17: 4}


FORMULA = "_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 4\n"
CONTRADICTIONS = {
    "hydrogen": (cif("cubic", ["N1 N 0.5 0.5 0.5", "Cl1 Cl 0 0 0"], "_chemical_formula_sum 'Cl H4 N'"), "add the hydrogen"),
    "hydrogen in parentheses": (cif("cubic", LAB6, "_chemical_formula_structural 'La B (O H)3'"), "has hydrogen|is not what"),
    "ratio": (cif("salt", SALT, "_chemical_formula_sum 'Cl2 Na'", FM3M), "Cl4 Na4"),
    "Z": (cif("salt", SALT, FORMULA), "Z = 4"),
    "identity only": (cif("salt", SALT, named("F m -3 m"), ["x,y,z"]), "names the space group 'F m -3 m'"),
    "one atom of two": (cif("mono", ["Co1 Co 0.1 0.2 0.3"], named("P 1 2/m 1"), ["x,y,z"]), "names the space group"),
    "other group": (cif("salt", SALT, named("P 4/m m m"), FM3M), "192 listed operations are F m -3 m's"),
    "two names": (cif("salt", SALT, named("F m -3 m") + "_space_group_IT_number 221"), "two space groups"),
    "no group": (cif("salt", SALT, ops=FM3M[:100]), "no group"),
    "metric": (cif("hex", BI2TE3, ops=["x,y,z", "z,x,y", "y,z,x"]), "do not fit its cell"),
    "unknown name": (cif("salt", SALT, named("Q 4 x")), "'Q 4 x' is not known"),
    "system": (cif("salt", SALT, "_symmetry_cell_setting cubic"), "is cubic, but names no space group"),
    "volume": (cif("salt", SALT, "_cell_volume 200.1", FM3M), "200.1"),
    "density": (cif("salt", SALT, "_exptl_crystal_density_diffrn 2.16"), "density"),
    "two lengths": (cif("salt", SALT, "_cell.length_a 5.7", FM3M), "twice"),
    "multiplicity": (cif("salt", ["Na1 Na 0 0 0 6", "Cl1 Cl 0.5 0.5 0.5 4"], ops=FM3M,
                         columns="label type_symbol fract_x fract_y fract_z symmetry_multiplicity"), "multiplicity 6"),
    "attached": (cif("caesium", ["O1 O 0 0 0 2"], columns="label type_symbol fract_x fract_y fract_z attached_hydrogens"),
                 "attached hydrogens"),
    "water": (cif("salt", ["Li1 0.5 0.5 0", "OW1 0.5 0.5 0.5"], columns="label fract_x fract_y fract_z"), "no hydrogen"),
    "hydroxyl type of a metal": (
        cif("salt", ["Cu1 OH 0.5 0.5 0", "H2 H 0.5 0.5 0.5"]),
        "'Cu1' has the type 'OH', which is another atom",
    ),
    "hydroxyl type": (cif("salt", ["Al1 Al 0.5 0.5 0", "O1 OH 0.5 0.5 0.5"]), "'O1' is water or hydroxyl"),
    "label T": (cif("salt", ["T1 0 0 0"], columns="label fract_x fract_y fract_z"), "'T1'"),
    "label NA": (cif("salt", ["NA1 0 0 0"], columns="label fract_x fract_y fract_z"), "'NA1'"),
    "mixed": (cif("salt", ["M1 '0.5Na + 0.5K' 0 0 0"]), "no single chemical element"),
    "alternatives": (cif("caesium", ["Cs1 Cs 0 0 0 .", "Cl1 Cl .5 .5 .4 1", "Cl2 Cl .5 .5 .6 2"],
                         columns="label type_symbol fract_x fract_y fract_z disorder_group"), "alternatives"),
    "about an axis": (cif("caesium", ["Cs1 Cs 0 0 0 -1"], columns="label type_symbol fract_x fract_y fract_z disorder_group"),
                      "alternatives"),
    "occupancy": (cif("caesium", ["Cs1 Cs 0 0 0 48"], columns="label type_symbol fract_x fract_y fract_z occupancy"), "48"),
    "part": (cif("caesium", ["Cs1 Cs 0 0 0 0.97"], columns="label type_symbol fract_x fract_y fract_z occupancy"), "'Cs1'"),
    "Cartesian": (cif("caesium", CSCL, columns="label type_symbol Cartn_x Cartn_y Cartn_z"), "Cartesian"),
    "superspace": (cif("caesium", CSCL, "_cell_modulation_dimension 1"), "modulated"),
    "comma": (cif("caesium", ["Cs1 Cs 0,25 0 0"]), "'0,25'"),
    "cell": (cif("salt", SALT).replace("_cell_length_c 5.64", "_cell_length_c ?"), "add all six"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictions_are_refused(kind):
    text, words = CONTRADICTIONS[kind]
    assert re.search(words, reason(text)) or words in reason(text)


@pytest.mark.parametrize(
    ("formula", "label", "z"),
    [("H2 O", "HO1", 1), ("Ho2 O", "HO1", 67), ("H2 O", "Ho1", 1), ("H2 O", "HOh1", 1), ("D2 O", "D1", 1)],
)
def test_the_formula_decides_what_a_label_means(formula, label, z):
    rows = [f"{label} 0.2 0 0", f"{label} 0.8 0 0", "O1 0 0 0"]
    text = cif("cubic", rows, f"_chemical_formula_sum '{formula}'", columns="label fract_x fract_y fract_z")
    assert crystal(text).counts == {z: 2, 8: 1}


def test_rows_that_are_no_atoms_are_left_out():
    rows = [
        *(f"{row} 1 d" for row in CSCL),
        "H1 H ? ? ? 1 d",
        "Q1 Xx 0.3 0 0 1 dum",
        "H9 H 0.5 0.5 0.1 0.0 d",
    ]
    columns = "label type_symbol fract_x fract_y fract_z occupancy calc_flag"
    (record,) = parse_cif(cif("caesium", rows, "_chemical_formula_sum 'Cl Cs'", columns=columns))
    assert record.crystal.counts == {17: 1, 55: 1}
    assert record.flags == ("symmetry_assumed", "sites_left_out")


def test_two_oxidation_states_on_one_site_are_one_atom():
    rows = ["Fe1 Fe2+ 0 0 0 0.5", "Fe2 Fe3+ 0 0 0 0.5", "O1 O2- 0.5 0.5 0.5 0.9999"]
    assert crystal(
        cif("cubic", rows, columns="label type_symbol fract_x fract_y fract_z occupancy")
    ).counts == {8: 1, 26: 1}


@settings(max_examples=25, deadline=None)
@given(
    st.text(max_size=300),
    st.sampled_from(
        ["", "_cell_formula_units_Z ", "_chemical_formula_sum ", "loop_\n_atom_site_occupancy\n"]
    ),
)
def test_whatever_is_put_into_a_file_is_one_sentence_or_a_crystal(junk, tag):
    for record in parse_cif(cif("salt", SALT, tag + junk, FM3M)):
        assert (record.crystal is None) != (record.reason is None)
        assert record.reason is None or (record.reason.isprintable() and record.reason.count(";") == 1)


UREA = """C1 C 0 0.5 0.326
O1 O 0 0.5 0.5953
N1 N 0.1459 0.6459 0.1766
H1 H 0.2575 0.7575 0.2827
H2 H 0.1441 0.6441 -0.038
N1A N 0.8541 0.3541 0.1766
H1A H 0.7425 0.2425 0.2827
H2A H 0.8559 0.3559 -0.038"""


def urea(claims):
    """As the Cambridge database exports it: the molecule completed by symmetry, beside the operations."""
    lengths = "".join(f"_cell_length_{axis} {5.565 if axis != 'c' else 4.684}\n" for axis in "abc")
    angles = "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    columns = "".join(
        f"_atom_site_{name}\n" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    )
    group = "_symmetry_space_group_name_H-M 'P -4 21 m'\n"
    return next(parse_cif(f"data_x\n{claims}{group}{lengths}{angles}loop_\n{columns}{UREA}\n"))


def test_a_molecule_that_was_completed_is_one_where_formula_and_z_say_so():
    formula = "_chemical_formula_sum 'C1 H4 N2 O1'\n_cell_formula_units_Z "
    assert dict(urea(f"{formula}2\n").crystal.counts) == {6: 2, 8: 2, 7: 4, 1: 8}
    assert "is not what the sites give" in urea(f"{formula}3\n").reason
    assert "two atoms are" in urea("").reason
