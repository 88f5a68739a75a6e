"""The streaming parser against ase's reader, and against damage."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.io.extxyz import key_val_str_to_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.structures import read
from mace_bounds.structures.formats import ReadOptions
from mace_bounds.structures.formats.extxyz import parse_comment, parse_extxyz

FRAME = (
    "2\n"
    'Lattice="4 0 0 0 4.5 0 0.5 0 5" Properties=species:S:1:pos:R:3:REF_forces:R:3 id=a-1 '
    'REF_energy=-3.25 REF_stress="_JSON [[1, 2], [3, 4]]" note="x=1 \'y\'" pbc="T T T"\n'
    "Na 0.0 0.0 0.0 1 2 3\n"
    "Cl 2.0 2.25 2.5 4 5 6\n"
)


def parse(text: str, **options):
    return list(parse_extxyz(iter(text.splitlines(keepends=True)), ReadOptions(**options)))


@pytest.mark.parametrize(
    "line",
    [
        'a=1 b="two words" c',
        "a='single \"inside\"' b={1 2 3} c=[4, 5]",
        r'a="escaped \" quote" b=back\ slash',
        "a = 1",
        'a="x=y" b=x=y',
        'mixed=pre"fix and"post tail="unclosed value',
        "m=[[1,2],[3,4]] t=T f=F",
        "a =1 b= 2 c",
        '   lead="1"   ',
        "a=1 a=2",
    ],
)
def test_comment_rules_are_those_of_ase(line):
    theirs = key_val_str_to_dict(line)
    ours = parse_comment(line)
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        if isinstance(value, str):
            assert ours[key] == value
        elif isinstance(value, (bool, np.bool_)):
            assert ours[key] in (("T",) if value else ("F",))
        elif isinstance(value, list):
            assert len(ours[key].split()) == len(value)
        else:
            words = ours[key].replace(",", " ").split()
            np.testing.assert_array_equal(np.array(words, dtype=float), np.atleast_1d(value))


def test_frame_by_hand():
    (record,) = parse(FRAME)
    assert record.id == "a-1"
    assert record.energy_ev == -3.25
    assert record.label_kind == "REF_energy"
    np.testing.assert_array_equal(record.crystal.numbers, [11, 17])
    np.testing.assert_array_equal(record.crystal.positions, [[0, 0, 0], [2, 2.25, 2.5]])
    np.testing.assert_array_equal(record.crystal.cell, [[4, 0, 0], [0, 4.5, 0], [0.5, 0, 5]])


symbols = st.sampled_from(["H", "Li", "Fe", "O", "Yb", "Pu"])
number = st.floats(-50, 50, allow_nan=False)
text = st.text(st.sampled_from("ab =\"'\\[]{}é,;_"), min_size=1, max_size=12)


@st.composite
def frames(draw):
    n = draw(st.integers(1, 6))
    atoms = Atoms(
        draw(st.lists(symbols, min_size=n, max_size=n)),
        positions=draw(st.lists(st.tuples(number, number, number), min_size=n, max_size=n)),
        cell=np.diag([5.0, 6.0, 7.0])
        + np.array(draw(st.lists(st.floats(-1, 1), min_size=9, max_size=9))).reshape(3, 3),
        pbc=True,
    )
    atoms.info["REF_energy"] = draw(number)
    atoms.info["weird key"] = draw(text)
    if draw(st.booleans()):
        atoms.info["vector"] = np.array([1.5, 2.5])
        atoms.arrays["REF_forces"] = np.ones((n, 3))
    return atoms


@settings(deadline=None, max_examples=80)
@given(st.lists(frames(), min_size=1, max_size=3))
def test_round_trip_through_ase(many):
    buffer = io.StringIO()
    ase_write(buffer, many, format="extxyz")
    records = parse(buffer.getvalue())
    theirs = ase_read(io.StringIO(buffer.getvalue()), ":", format="extxyz")
    assert len(records) == len(many)
    for record, atoms in zip(records, theirs, strict=True):
        np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
        np.testing.assert_allclose(record.crystal.positions, atoms.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(record.crystal.cell, atoms.cell.array, rtol=0, atol=1e-12)
        assert record.energy_ev == pytest.approx(atoms.info["REF_energy"], abs=1e-12)


def test_energy_keys():
    body = 'Lattice="4 0 0 0 4 0 0 0 4" energy=-1 dft_energy=-2 free_energy=-3 mine=-4 bad=nan'
    frame = f"1\n{body}\nCu 0 0 0\n"
    assert parse(frame)[0].energy_ev == -2.0
    assert parse(frame, energy_key="mine")[0].energy_ev == -4.0
    absent = parse(frame, energy_key="absent")[0]
    assert absent.energy_ev is None
    assert "'absent'" in absent.label_reason
    assert absent.crystal is not None
    assert "nan" in parse(frame, energy_key="bad")[0].label_reason
    only_free = parse('1\nLattice="4 0 0 0 4 0 0 0 4" free_energy=-3\nCu 0 0 0\n')[0]
    assert only_free.energy_ev is None
    assert only_free.label_reason is None


def test_a_key_that_is_given_twice_and_differently_is_refused():
    body = '1\nLattice="4 0 0 0 4 0 0 0 4" {}\nCu 0 0 0\n'
    assert parse(body.format("energy=-1 energy=-1"))[0].energy_ev == -1.0
    assert parse(body.format("note=a energy=-1 note=b"))[0].energy_ev == -1.0
    assert "'energy' twice" in parse(body.format("energy=-1 energy=-2"))[0].reason
    assert "'Lattice' twice" in parse(body.format('Lattice="5 0 0 0 5 0 0 0 5"'))[0].reason
    assert "'mine' twice" in parse(body.format("mine=-1 mine=-2"), energy_key="mine")[0].reason
    assert parse(body.format("mine=-1 mine=-2"))[0].reason is None


@pytest.mark.parametrize(
    ("words", "label", "structure"),
    [
        ("energy_unit=eV length_unit=angstrom units=metal", True, True),
        ("energy_unit=Hartree", False, True),
        ("energy_units=kcal/mol", False, True),
        ('units="energy:Ha,length:angstrom"', False, True),
        ("unit=Ry", False, True),
        ("units=real", False, True),
        ("length_unit=Bohr", True, False),
        ("units=a.u.", True, False),
        ("positions_units=nm", True, True),  # a key that nobody uses
    ],
)
def test_units_that_are_stated(words, label, structure):
    (record,) = parse(f'1\nLattice="4 0 0 0 4 0 0 0 4" energy=-1 {words}\nCu 0 0 0\n')
    assert (record.reason is None) == structure
    if structure:
        assert (record.energy_ev == -1.0) == label
        assert label or "convert it" in record.label_reason
    else:
        assert "wanted in Å" in record.reason


def test_run_type_and_licence_of_a_frame():
    head = '1\nLattice="4 0 0 0 4 0 0 0 4" energy=-1 '
    assert "R2SCAN" in parse(head + "run_type=R2SCAN\nCu 0 0 0\n")[0].label_reason
    assert parse(head + "run_type=GGA+U\nCu 0 0 0\n")[0].run_type == "GGA+U"
    assert parse(head + 'license="CC BY-NC 4.0"\nCu 0 0 0\n')[0].flags == ("licence_by_nc",)
    assert parse(head + "id=gnome-1\nCu 0 0 0\n")[0].flags == ("licence_by_nc",)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("1\n\nCu 0 0 0\n", "no cell"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T F"\nCu 0 0 0\n', "slab"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="maybe"\nCu 0 0 0\n', "pbc"),
        ('1\nLattice="4 0 0 0 4"\nCu 0 0 0\n', "nine numbers"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nCu 0 0\n', "columns"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nCu 0 0 x\n', "positions"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nQq 0 0 0\n', "Qq"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=pos:R:3\n0 0 0\n', "Properties"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R\nCu 0 0 0\n', "Properties"),
        ('0\nLattice="4 0 0 0 4 0 0 0 4"\n', "structure is empty"),
    ],
)
def test_damaged_frame_has_a_reason_and_the_next_is_read(frame, words):
    first, second = parse(frame + FRAME)
    assert words in first.reason
    assert "\n" not in first.reason
    assert second.reason is None


def test_atomic_numbers_extra_columns_and_isotopes():
    (record,) = parse('2\nLattice="4 0 0 0 4 0 0 0 4" Properties=Z:I:1:pos:R:3\n29 0 0 0\n8 2 2 2\n')
    np.testing.assert_array_equal(record.crystal.numbers, [29, 8])
    (record,) = parse('2\nLattice="4 0 0 0 4 0 0 0 4"\nD 0 0 0 9 9\nO 2 2 2 9 9\n')
    np.testing.assert_array_equal(record.crystal.numbers, [1, 8])
    assert record.flags == ("deuterium_as_hydrogen",)
    head = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:Z:I:1:pos:R:3\n'
    np.testing.assert_array_equal(parse(head + "O 8 0 0 0\n")[0].crystal.numbers, [8])
    assert "different elements" in parse(head + "O 7 0 0 0\n")[0].reason


def test_lost_rhythm_cut_and_too_many_atoms():
    good, bad = parse(FRAME + "Cu 0 0 0\n" + FRAME)
    assert good.reason is None
    assert "number of atoms" in bad.reason
    good, bad = parse(FRAME + FRAME[: FRAME.rindex("Cl")])
    assert good.reason is None
    assert "cut off" in bad.reason
    (huge,) = parse("100001\n\n" + "Cu 0 0 0\n" * 100_001, max_atoms=100_000)
    assert "no more than 100000 are read" in huge.reason
    large, small = parse("3\nid=big\na\nb\nc\n" + FRAME, max_atoms=2)
    assert large.id == "big"
    assert "3" in large.reason
    assert small.reason is None


def test_truncated_gzip_gives_the_good_frames_then_the_reason(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(FRAME.replace("a-1", f"a-{i}").replace("-3.25", str(rng.random())) for i in range(400))
    data = gzip.compress(text.encode())
    path = tmp_path / "cut.extxyz.gz"
    path.write_bytes(data[: len(data) // 2])
    records = list(read(path))
    assert 50 < len(records) < 400
    assert all(record.reason is None for record in records[:-1])
    assert "cut off" in records[-1].reason


def test_real_frames_agree_with_ase(shared_data, tmp_path):
    if shared_data is None:
        path = tmp_path / "wbm.extxyz.gz"
        path.write_bytes(gzip.compress(FRAME.encode()))
    else:
        path = shared_data / "wbm.extxyz.gz"
    theirs = ase_read(io.StringIO(gzip.decompress(path.read_bytes()).decode()), ":", format="extxyz")
    records = list(read(path))
    assert [record.id for record in records] == [atoms.info["id"] for atoms in theirs]
    for record, atoms in zip(records, theirs, strict=True):
        np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
        np.testing.assert_allclose(record.crystal.positions, atoms.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(record.crystal.cell, atoms.cell.array, rtol=0, atol=1e-12)
        assert record.energy_ev == atoms.info["REF_energy"]


@pytest.mark.parametrize("key", ["config_type=IsolatedAtom", 'config_type="isolated_atom"', ""])
def test_isolated_atoms_are_no_labels(tmp_path, key):
    (tmp_path / "x.extxyz").write_text(
        f'1\nLattice="12 0 0 0 12 0 0 0 12" {key} REF_energy=-0.2 pbc="T T T"\nNa 0 0 0\n'
    )
    (record,) = read(tmp_path / "x.extxyz")
    assert (record.energy_ev, record.label_kind) == (None, None)
    assert "no crystal" in record.label_reason
    (tmp_path / "x.extxyz").write_text('1\nLattice="0 2 2 2 0 2 2 2 0" REF_energy=-0.2\nCu 0 0 0\n')
    assert next(read(tmp_path / "x.extxyz")).energy_ev == -0.2
