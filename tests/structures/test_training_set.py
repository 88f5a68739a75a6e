"""What a model was trained on, from lists of formulas, tables and structures."""

import bz2

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from mace_bounds.errors import SourceError
from mace_bounds.structures import composition_keys, joined_keys, read_compositions

WANTED = composition_keys(["NaCl", "LiFePO4", "D2O".replace("D", "H"), "Si"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "# formulas\nNa4Cl4\nLi1 Fe1 P1 O4  # olivine\n\nD2O\nSi8\nSi\n"),
        ("a.csv", 'id,Formula,n\n1,ClNa,2\n2,LiFePO4,7\n3,"H2 O1",3\n4,Si2,2\n5,,\n'),
        ("a.tsv", "\ufeffformula_pretty\tid\nNaCl\t1\nFeLiO4P\t2\nH4O2\t3\nSi\t4\n"),
        ("a.txt.bz2", "NaCl\nLiFePO4\nH2O\nSi\n"),
    ],
)
def test_lists_of_formulas(name, text, tmp_path):
    data = text.encode()
    (tmp_path / name).write_bytes(bz2.compress(data) if name.endswith("bz2") else data)
    assert np.array_equal(read_compositions(tmp_path / name), WANTED)


def test_structures_of_any_source(tmp_path):
    write(tmp_path / "t.extxyz", [bulk("NaCl", "rocksalt", 5.64), bulk("Si"), bulk("Si", cubic=True)])
    assert np.array_equal(read_compositions(tmp_path / "t.extxyz"), composition_keys(["NaCl", "Si"]))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "POSCAR", bulk("Si"))
    assert np.array_equal(read_compositions(str(tmp_path / "folder")), composition_keys(["Si"]))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.txt", "NaCl\nnonsense!\n", "line 2 of .*'nonsense!', is no formula"),
        ("a.txt", "Li0.5O\n", "whole numbers"),
        ("a.txt", "# nothing\n", "holds no composition"),
        ("a.csv", "id,name\n1,NaCl\n", "no column of formulas"),
    ],
)
def test_what_is_no_list_is_refused(name, text, why, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=why):
        read_compositions(tmp_path / name)
    for missing in ("-", tmp_path / "none.txt"):
        with pytest.raises(SourceError):
            read_compositions(missing)


def test_what_is_known_is_joined_and_nothing_known_stays_so():
    some, more = composition_keys(["NaCl", "Si"]), composition_keys(["Si", "Ge"])
    assert np.array_equal(joined_keys(some, None, more), composition_keys(["NaCl", "Si", "Ge"]))
    assert joined_keys(None, some) is some
    assert joined_keys(None, None) is None
