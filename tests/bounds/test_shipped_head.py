"""The head that ships with mini: it loads, belongs to mini and scores, whichever version wrote it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from pymatgen.core import Lattice
from pymatgen.core import Structure as PymatgenStructure

from mace_bounds import load_model
from mace_bounds.bounds import BoundsPredictor, find_head, load_head
from mace_bounds.bounds.library import SHIPPED
from mace_bounds.columns import GRADES
from mace_bounds.decisions import joint_model
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings, FeatureStore


@pytest.fixture(scope="module")
def predictor():
    return BoundsPredictor("mini")


@pytest.fixture(scope="module")
def exact_predictor():
    return BoundsPredictor("mini", settings=ExtractSettings(dtype="float64"))


def test_it_is_the_one_that_is_found_for_mini(predictor):
    head = predictor.head
    assert find_head("mini").name == "mini"
    assert head.identity.model_digest == predictor.model.digest
    assert load_head("mini").digest == head.digest
    assert set(head.levels) >= {0.68, 0.9, 0.95}
    for row in head.provenance["coverage"]:
        assert row["n"] > 500  # rows of unseen compositions: a standard error of 2 % or less
        assert row["coverage"] > row["level"] - 0.04


@pytest.mark.parametrize("name", ["mini", "chgnet", "mace-mpa-0-published", "mace-mp-0-published"])
def test_joint_errors_of_every_shipped_head_are_its_own(name):
    model = joint_model(load_head(name))
    assert {row.likeness for row in model.reliability} >= {"independent", "copula", "pops"}
    assert "reaction" in model.scores


def test_it_bounds_crystals(predictor):
    crystals = [bulk("NaCl", "rocksalt", 5.69), bulk("Cu", "fcc", 3.63), bulk("MgO", "rocksalt", 4.26)]
    narrow, wide = (predictor.predict(crystals, level) for level in (0.68, 0.95))
    assert wide["reason"].isna().all()
    assert (wide["lower_mev_per_atom"] < narrow["lower_mev_per_atom"]).all()
    assert (narrow["lower_mev_per_atom"] < narrow["upper_mev_per_atom"]).all()
    assert (narrow["upper_mev_per_atom"] < wide["upper_mev_per_atom"]).all()
    # crystals of the textbook: bounds that say something, about a model that is not far off
    assert (wide["upper_mev_per_atom"] - wide["lower_mev_per_atom"] < 1500).all()
    assert not wide["flags"].str.contains("extrapolates|unseen_element").any()


def same_crystal_in_other_cells(structure):
    """Cells of one crystal: pymatgen's and ase's own, and hand-made ones."""
    primitive, niggli = structure.get_primitive_structure(), structure.get_reduced_structure("niggli")
    left = structure.copy()
    left.make_supercell([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # two vectors swapped: left-handed
    skewed = structure * [[1, 1, 0], [0, 1, 0], [0, -1, 1]]
    permuted = type(structure).from_sites(list(structure)[::-1])
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.37, 0.11, 0.83], to_unit_cell=False)
    return {
        "primitive": primitive,
        "niggli": niggli,
        "left-handed": left,
        "skewed": skewed,
        "permuted": permuted,
        "moved": moved,
        "supercell 2x1x1": structure * [2, 1, 1],
        "supercell 2x2x2": structure * [2, 2, 2],
    }


@pytest.mark.parametrize("name", ["Si", "LiFePO4", "CsPbI3"])
def test_the_same_crystal_has_the_same_bounds_in_all_its_cells(exact_predictor, name):
    """To 1e-6 meV/atom in float64; the energies themselves agree to some 1e-11 meV/atom."""
    columns = [
        *("expected_error_mev_per_atom", "std_mev_per_atom", "lower_mev_per_atom", "upper_mev_per_atom"),
        *("support_lower_mev_per_atom", "support_upper_mev_per_atom"),
    ]
    structure = {
        "Si": lambda: PymatgenStructure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]),
        "LiFePO4": lambda: PymatgenStructure.from_spacegroup(
            "Pnma",
            Lattice.orthorhombic(10.33, 6.01, 4.69),
            ["Li", "Fe", "P", "O", "O", "O"],
            [
                [0, 0, 0],
                [0.282, 0.25, 0.975],
                [0.095, 0.25, 0.418],
                [0.097, 0.25, 0.743],
                [0.457, 0.25, 0.206],
                [0.166, 0.046, 0.285],
            ],
        ),
        "CsPbI3": lambda: PymatgenStructure.from_spacegroup(
            "Pm-3m", Lattice.cubic(6.29), ["Cs", "Pb", "I"], [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]
        ),
    }[name]()
    cells = same_crystal_in_other_cells(structure)
    table = exact_predictor.predict([structure, *cells.values()])
    assert table["reason"].isna().all()
    first = table.iloc[0]
    for cell, (_, row) in zip(cells, table.iloc[1:].iterrows(), strict=True):
        for column in columns:
            assert row[column] == pytest.approx(first[column], abs=1e-6), (cell, column)
        assert row["flags"] == first["flags"]
        assert row["novelty"] == pytest.approx(first["novelty"], rel=1e-6)


def test_what_cannot_be_is_flagged_and_gets_no_bound_of_use(predictor):
    gold = Atoms("Au2", positions=[[0, 0, 0], [0.6, 0, 0]], cell=np.eye(3) * 8, pbc=True)
    slab = fcc111("Al", (1, 1, 1), a=4.05, vacuum=8.0)
    slab.pbc = True
    table = predictor.predict([gold, slab, bulk("Al", "fcc", 4.05)])
    assert {"close_atoms", "unusual_energy"} <= set(table["flags"][0].split(";"))
    assert "vacuum" in table["flags"][1]
    assert "in_training" not in table["flags"][1]  # as the bulk is: nothing like it
    assert not {"close_atoms", "vacuum", "unusual_energy", "no_useful_bound"} & set(
        table["flags"][2].split(";")
    )


def test_grades_are_there_as_far_as_the_head_has_them(predictor):
    head = predictor.head
    row = predictor.predict(bulk("NaCl", "rocksalt", 5.69)).iloc[0]
    assert np.isfinite(row["extrapolation_grade"])
    structures = head.novelty is not None
    atoms = structures and head.novelty.wants_atoms
    wanted = dict.fromkeys(GRADES[:2], structures) | dict.fromkeys([*GRADES[2:], "novel_atom"], atoms)
    assert {name: bool(pd.notna(row[name])) for name in wanted} == wanted


def test_golden_energies_tell_a_model_that_was_built_in_another_way():
    head = load_head(SHIPPED / "mini")
    golden = head.identity.golden
    assert golden.elements == load_model("mini", device="cpu").atomic_numbers
    store = FeatureStore(SHIPPED.parent / "stores" / "mace-mpa-0-published")
    assert store.manifest.golden.difference(golden) == ""
    spoiled = replace(golden, energies_ev_per_atom=tuple(e + 0.01 for e in golden.energies_ev_per_atom))
    other = replace(head, identity=replace(head.identity, golden=spoiled))
    with pytest.raises(HeadError, match=r"built in another way: .* differ by up to 0.01 eV/atom"):
        BoundsPredictor("mini", other)
