"""POSCAR against pymatgen's and ase's writers, and damaged ones."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write as ase_write
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from mace_bounds.structures import read
from mace_bounds.structures.formats import ReadOptions
from mace_bounds.structures.formats.poscar import parse_poscar

LINES = ["NaCl", "1.0", "4 0 0", "0 4 0", "0 0 4", "Na Cl", "1 1", "Direct", "0 0 0", "0.5 0.5 0.5"]


def parse(text, **options):
    (record,) = parse_poscar(text, ReadOptions(**options))
    return record


def changed(**lines):
    result = list(LINES)
    for key, value in lines.items():
        result[int(key[1:])] = value
    return "\n".join(result)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", ["POSCAR", "CONTCAR.relaxed", "x.vasp", "POSCAR_1"])
def test_as_ase_writes_it(tmp_path, direct, name):
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (1, 1, 2)
    ase_write(tmp_path / name, atoms, format="vasp", direct=direct, sort=False)
    (record,) = read(tmp_path / name)
    np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
    np.testing.assert_allclose(record.crystal.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(record.crystal.cell, atoms.cell.array, atol=1e-10)


def test_selective_dynamics_and_velocities_of_pymatgen():
    structure = Structure(Lattice.hexagonal(3, 5), ["Zn", "O"], [[1 / 3, 2 / 3, 0.1], [1 / 3, 2 / 3, 0.48]])
    text = Poscar(
        structure, selective_dynamics=[[True, False, True]] * 2, velocities=[[1, 2, 3]] * 2
    ).get_str(significant_figures=14)
    record = parse(text)
    np.testing.assert_array_equal(record.crystal.numbers, [30, 8])
    np.testing.assert_allclose(record.crystal.positions, structure.cart_coords, atol=1e-10)


def test_scales():
    record = parse(changed(_1="2.0"))
    np.testing.assert_allclose(record.crystal.cell, np.eye(3) * 8)
    record = parse(changed(_1="-27.0", _7="Cartesian", _9="2 2 2"))
    np.testing.assert_allclose(record.crystal.cell, np.eye(3) * 3)
    np.testing.assert_allclose(record.crystal.positions[1], [1.5, 1.5, 1.5])
    record = parse(changed(_1="1 2 3"))
    np.testing.assert_allclose(record.crystal.cell, np.diag([4, 8, 12]))


def test_symbols_of_vasp_4_and_potentials():
    np.testing.assert_array_equal(parse(changed(_5="Fe_pv O/abc")).crystal.numbers, [26, 8])
    old = [line for i, line in enumerate(LINES) if i != 5]
    old[0] = "K Br"
    np.testing.assert_array_equal(parse("\n".join(old)).crystal.numbers, [19, 35])
    old[-2:] = ["0 0 0 Li", "0.5 0.5 0.5 F"]
    np.testing.assert_array_equal(parse("\n".join(old)).crystal.numbers, [3, 9])
    old[-2:] = ["0 0 0", "0.5 0.5 0.5"]
    for old[0] in ("no symbols here", "I O U two atoms", "K Br by hand", "K"):  # words are no symbols
        assert "VASP 4" in parse("\n".join(old)).reason


def test_elements_behind_the_coordinates_are_those_above():
    rows = ["0 0 0 {}", "0.5 0.5 0.5 {}"]
    text = changed(_5="K F", _8=rows[0].format("K"), _9=rows[1].format("{}"))
    np.testing.assert_array_equal(parse(text.format("F")).crystal.numbers, [19, 9])
    assert "are not those of the line of symbols" in parse(text.format("O")).reason
    np.testing.assert_array_equal(parse(text.format("a word")).crystal.numbers, [19, 9])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "8 lines"),
        (changed(_1="abc"), "scale"),
        (changed(_2="4 0"), "line 3"),
        (changed(_5="Na"), "symbols"),
        (changed(_5="Na Qq"), "Qq"),
        (changed(_6="1 x"), "numbers of atoms"),
        (changed(_6="1 5"), "cut off"),
        (changed(_6="0 0"), "empty"),
        (changed(_9="0.5 0.5 z"), "coordinates"),
    ],
)
def test_damage_has_a_reason(text, words):
    record = parse(text)
    assert record.crystal is None
    assert words in record.reason


def test_absurd_count_costs_nothing():
    assert "999999999" in parse(changed(_6="1 999999998"), max_atoms=500).reason


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_text_never_raises(data):
    text = list("\n".join(LINES))
    for _ in range(data.draw(st.integers(1, 6))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from("0195.-eE \nNaCSx\0é"))
    record = parse("".join(text), max_atoms=500)
    assert (record.crystal is None) == (record.reason is not None)


def test_lines_that_vasp_wraps():
    lines = ["alloy", "1", "9 0 0", "0 9 0", "0 0 9", "Fe Cr", "Fe Ni", "1 2", "1 1", "Direct"]
    rows = [f"0 0 0.{k}" for k in range(1, 6)]
    np.testing.assert_array_equal(parse("\n".join(lines + rows)).crystal.numbers, [26, 24, 24, 26, 28])


def test_pseudo_atoms_and_missing_modes_are_named():
    for name in ("H1.25", "H.75", "H0.5"):
        assert f"'{name}'" in parse(changed(_5=f"Na {name}")).reason
    assert "'1 0.5'" in parse(changed(_6="1 0.5")).reason
    reason = parse("\n".join(line for k, line in enumerate(LINES) if k != 7)).reason
    assert "line 8" in reason
    assert "'Direct' or 'Cartesian'" in reason


@pytest.mark.parametrize("fixed", [True, False])
def test_all_frames_of_an_xdatcar(tmp_path, fixed):
    frames = []
    for k in range(4):
        atoms = bulk("NaCl", "rocksalt", a=5.6 if fixed else 5.6 + 0.1 * k) * (1, 1, 2)
        atoms.rattle(0.1, seed=k)
        atoms.wrap()
        frames.append(atoms[[0, 2, 1, 3]])
    ase_write(tmp_path / "XDATCAR", frames, format="vasp-xdatcar")
    if not fixed:  # ase writes the head once; VASP before each frame where the cell changes
        text = ""
        for k, atoms in enumerate(frames):
            ase_write(tmp_path / "one", [atoms], format="vasp-xdatcar")
            text += (tmp_path / "one").read_text().replace("configuration= 1", f"configuration= {k + 1}")
        (tmp_path / "XDATCAR").write_text(text)
    records = list(read(tmp_path / "XDATCAR"))
    assert [record.id for record in records] == [f"XDATCAR#{k}" for k in range(4)]
    for record, atoms in zip(records, frames, strict=True):
        np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
        np.testing.assert_allclose(record.crystal.positions, atoms.positions, atol=1e-6)
        np.testing.assert_allclose(record.crystal.cell, atoms.cell.array, atol=1e-5)
    cut = (tmp_path / "XDATCAR").read_text().splitlines()[:-2]
    (tmp_path / "XDATCAR").write_text("\n".join(cut))
    assert [record.reason is None for record in read(tmp_path / "XDATCAR")] == [True] * 3 + [False]
    assert "more than 3" in next(read(tmp_path / "XDATCAR", max_atoms=3)).reason


def test_xsf(tmp_path):
    frames = [bulk("NaCl", "rocksalt", a=a) for a in (5.6, 5.7)]
    for name, images in (("x.xsf", frames[:1]), ("unnamed", frames)):
        ase_write(tmp_path / name, images, format="xsf")
        records = list(read(tmp_path / name))
        assert len(records) == len(images)
        np.testing.assert_allclose(records[-1].crystal.positions, images[-1].positions)
    text = (tmp_path / "x.xsf").read_text()
    for damaged in (
        text[: len(text) // 2],
        text.replace("PRIMVEC", "OTHER"),
        "CRYSTAL\n",
        text.replace(" 2 1", " x"),
    ):
        (tmp_path / "x.xsf").write_text(damaged)
        assert list(read(tmp_path / "x.xsf"))[-1].reason
