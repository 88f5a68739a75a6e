"""CIFs of ase and pymatgen, blocks, disorder, and files made to stall the parser."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write as ase_write
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from mace_bounds.structures import read
from mace_bounds.structures.formats import ReadOptions, cif
from mace_bounds.structures.formats.cif import parse_cif

P1 = (
    "data_x\n_cell_length_a 8\n_cell_length_b 8\n_cell_length_c 8\n"
    "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
)
SITES = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"


def reason(text, **options):
    (record,) = parse_cif(text, ReadOptions(**options))
    assert record.crystal is None
    assert "\n" not in record.reason
    return record.reason


def test_as_ase_writes_it(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ase_write(tmp_path / "nacl.cif", atoms)
    (record,) = read(tmp_path / "nacl.cif")
    assert (record.id, record.source, record.reason) == ("nacl.cif", "nacl.cif", None)
    assert record.crystal.formula == "NaCl"
    assert record.crystal.counts == {11: 4, 17: 4}
    assert record.crystal.volume == pytest.approx(5.64**3, rel=1e-9)
    distances = record.crystal.to_atoms().get_all_distances(mic=True)
    assert np.min(distances[distances > 0.1]) == pytest.approx(5.64 / 2, abs=1e-6)


def test_symmetry_is_expanded():
    spinel = Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(8.08), ["Mg", "Al", "O"], [[0] * 3, [0.625] * 3, [0.387] * 3]
    )
    text = str(CifWriter(spinel, symprec=0.01))
    assert text.count("\n  O") < 3
    (record,) = parse_cif(text)
    assert record.crystal.counts == {8: 32, 12: 8, 13: 16}


def test_several_blocks_give_several_records(tmp_path):
    one = str(CifWriter(Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])))
    two = str(CifWriter(Structure(Lattice.cubic(4.1), ["Au"], [[0, 0, 0]])))
    bad = P1.replace("data_x", "data_bad") + SITES + "Fe nonsense 0 0\n"
    (tmp_path / "all.cif").write_text(
        one + "\n" + bad + "\n" + two + "\n" + one + "data_notes\n_journal_year 1999\n"
    )
    records = list(read(tmp_path / "all.cif"))
    assert [record.id for record in records] == ["Cu", "bad", "Au", "Cu~2"]
    assert [record.reason is None for record in records] == [True, False, True, True]
    assert records[3].flags == ("duplicate_id",)


def test_disorder_and_missing_parts():
    disordered = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    assert "partly occupied" in reason(str(CifWriter(disordered)))
    assert "data_" in reason("hello")
    assert "atom sites" in reason(P1)
    assert "cell lengths or angles" in reason("data_x\n" + SITES + "Fe 0 0 0\n")
    assert "fractional coordinates" in reason(P1 + "loop_\n_atom_site_label\nFe\n")
    assert "not finite" in reason(P1 + SITES + "Fe 1e400 0 0\n")
    assert "absurdly" in reason(P1 + SITES + "Fe 1e30 0 0\n")
    assert "loop" in reason(P1 + SITES + "Fe 0 0 0 0\n")
    assert "no hydrogen" in reason(P1 + SITES + "Wat1 0 0 0\n")


def test_deuterium_counts_as_hydrogen():
    (record,) = parse_cif(P1 + SITES + "D1 0 0 0\nO1 0.2 0 0\n")
    assert record.crystal.counts == {1: 1, 8: 1}
    assert record.flags == ("deuterium_as_hydrogen", "symmetry_assumed")


@pytest.mark.parametrize("kind", ["rows", "operations", "quotes"])
def test_huge_files_are_refused_before_they_are_expanded(kind, monkeypatch):
    rng = np.random.default_rng(0)
    rows = "".join(f"O{i} {x:.4f} {y:.4f} {z:.4f}\n" for i, (x, y, z) in enumerate(rng.random((20_000, 3))))
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(
        f"'x+{i}/20000, y, z'\n" for i in range(20_000)
    )
    text = {
        "rows": P1 + SITES + rows,
        "operations": P1 + operations + SITES + "Fe 0 0 0\n",
        "quotes": P1 + SITES + "Fe 0 0 0\n_note " + "'a" * 300_000 + "\n",
    }[kind]
    monkeypatch.setattr(cif, "expand", None)  # what would take long is never begun
    assert re.search(r"more than|too long|line 14 of its block \(unterminated", reason(text, max_atoms=500))


def test_no_warning_escapes(recwarn):
    list(parse_cif(P1 + SITES + "Fe 0.33333 0.6667 0\n"))
    assert len(recwarn) == 0
