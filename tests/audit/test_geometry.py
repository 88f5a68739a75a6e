"""Space groups, densities and volumes of textbook crystals; the table is kept and read again."""

import numpy as np
import pytest
from ase.build import bulk

from mace_bounds.audit._geometry import crystal_system, geometry_table, kept_geometry, space_group
from mace_bounds.structures import Record, read


def labelled(atoms, name):
    atoms.info |= {"id": name, "REF_energy": -1.0}
    return atoms


@pytest.fixture
def crystals():
    return [
        labelled(bulk("NaCl", "rocksalt", 5.64), "salt"),
        labelled(bulk("Mg"), "magnesium"),
        labelled(bulk("Si"), "silicon"),
    ]


def test_textbook_crystals(crystals):
    table = geometry_table(read(crystals))
    assert table["space_group"].tolist() == ["225 Fm-3m", "194 P6_3/mmc", "227 Fd-3m"]
    assert table["crystal_system"].tolist() == ["cubic", "hexagonal", "cubic"]
    np.testing.assert_allclose(table["density_g_per_cm3"], [2.16, 1.74, 2.33], rtol=0.01)
    np.testing.assert_allclose(table["volume_per_atom_a3"], [5.64**3 / 8, 23.2, 5.43**3 / 8], rtol=0.01)


@pytest.mark.parametrize(
    "number, name",
    [
        (1, "triclinic"),
        (3, "monoclinic"),
        (74, "orthorhombic"),
        (75, "tetragonal"),
        (167, "trigonal"),
        (168, "hexagonal"),
        (230, "cubic"),
    ],
)
def test_crystal_systems(number, name):
    assert crystal_system(number) == name


def test_a_cell_without_volume_is_unknown(crystals):
    crystal = next(iter(read([crystals[0]]))).crystal
    broken = type(crystal)(crystal.numbers, crystal.positions, np.zeros((3, 3)))
    assert space_group(broken) == ("unknown", "unknown")


def test_rows_without_label_or_structure_have_no_symmetry(crystals):
    del crystals[0].info["REF_energy"]
    table = geometry_table([*read(crystals[:1]), Record("x", "y", reason="broken")])
    assert table["space_group"].isna().all()
    assert table["density_g_per_cm3"].notna().tolist() == [True, False]


def test_it_is_computed_once(crystals, tmp_path):
    path, ids = tmp_path / "geometry.parquet", ["salt", "magnesium", "silicon"]
    first = kept_geometry(path, ids, read(crystals))
    again = kept_geometry(path, ids, iter(()))
    assert again["space_group"].tolist() == first["space_group"].tolist()
    assert kept_geometry(path, ["other"], read(crystals)) is None
