"""What is odd about where atoms sit: hand-made cells, and crystals of the textbook that are not odd."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, make_supercell, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.structures import Crystal, check, structure_flags


def flags(atoms: Atoms) -> tuple[str, ...]:
    crystal = Crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    return structure_flags(crystal, check(crystal, max_atoms=2000))


def layers(gap: float, n: int = 3) -> Atoms:
    slab = fcc111("Al", (1, 1, n), a=4.05)
    slab.center(vacuum=gap / 2, axis=2)
    slab.pbc = True
    return slab


def boxed(name: str, side: float) -> Atoms:
    return Atoms(molecule(name), cell=np.eye(3) * side, pbc=True)


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Cs", "bcc", 6.05),  # the largest holes of any element
        bulk("Al", "fcc", 4.05),
        bulk("C", "diamond", 3.57),
        bulk("NaCl", "rocksalt", 5.69),
        bulk("CsCl", "cesiumchloride", 4.12),
        bulk("CsI", "cesiumchloride", 4.56),
        Atoms(
            "C2",
            cell=[[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 3.35]],
            scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0]],
            pbc=True,
        ),
        layers(2.338),  # the distance of the planes: no gap at all
    ],
)
def test_crystals_of_the_textbook_are_not_odd(atoms):
    assert flags(atoms) == ()


@pytest.mark.parametrize(
    "atoms",
    [layers(10.0), layers(20.0), boxed("H2O", 10.0), boxed("C6H6", 15.0), graphene(vacuum=8.0)],
)
def test_slabs_sheets_and_molecules_are_in_vacuum(atoms):
    atoms.pbc = True
    assert flags(atoms) == ("vacuum",)


def test_the_empty_share_of_a_slab_in_closed_form():
    """Empty is what is farther than 2.5 Å + 1.21 Å (Al) from the outer planes: 5 % of a slab of 3 planes from 8.0 Å."""
    planes = 2 * 4.05 / np.sqrt(3)
    limit = (0.05 * planes + 2 * 3.71) / 0.95
    assert flags(layers(limit - 0.6)) == ()
    assert flags(layers(limit + 0.6)) == ("vacuum",)


@pytest.mark.parametrize(
    ("pair", "distance", "close"),
    [
        ("Au2", 1.35, True),  # 1.36 + 1.36 Å
        ("Au2", 1.37, False),
        ("BiTe", 1.42, True),  # 1.48 + 1.38 Å
        ("BiTe", 1.44, False),
        ("H2", 0.51, False),  # 0.31 + 0.31 Å
        ("CsH", 1.37, True),  # 2.44 + 0.31 Å
    ],
)
def test_half_of_the_covalent_radii(pair, distance, close):
    atoms = Atoms(pair, positions=[[0, 0, 0], [distance, 0, 0]], cell=np.eye(3) * 4.0, pbc=True)
    assert ("close_atoms" in flags(atoms)) == close


def test_an_atom_may_be_close_to_its_own_image():
    atoms = Atoms("Cs", cell=np.diag([2.3, 6.0, 6.0]), pbc=True)
    assert flags(atoms) == ("close_atoms",)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_flags_do_not_depend_on_the_cell(seed):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 11, 3)) @ (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)))
    atoms = Atoms(
        rng.choice([1, 8, 13, 55], 3), scaled_positions=rng.uniform(0, 1, (3, 3)), cell=cell, pbc=True
    )
    crystal = Crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    matrix = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    other = make_supercell(atoms, matrix)
    other = Crystal(other.numbers, other.positions, other.cell.array)
    found, again = set(structure_flags(crystal)), set(structure_flags(other))
    assert found - {"vacuum"} == again - {"vacuum"}  # the share of empty volume is counted on another grid


def oxide(metal: str, spacing: float, bond: float, n_metal: int = 1) -> Atoms:
    """A simple cubic lattice of metal atoms with a pair of oxygen atoms in the middle."""
    middle = np.full(3, spacing / 2)
    half = np.array([bond / 2, 0, 0])
    pair = [middle - half, middle + half]
    metals = [[0, 0, 0], [spacing / 2, spacing / 2, 0]][:n_metal]
    return Atoms(f"{metal}{n_metal}O2", positions=[*metals, *pair], cell=np.eye(3) * spacing, pbc=True)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (oxide("Ba", 4.2, 1.49), ("peroxide",)),
        (oxide("Na", 4.2, 1.33), ("superoxide",)),
        (oxide("Ti", 4.2, 1.49), ("peroxide",)),  # whatever the formula
        (oxide("Ba", 4.2, 2.1), ("plain_oxide",)),
        (oxide("Li", 4.2, 2.1, 2), ("plain_oxide",)),
        (oxide("Ti", 4.2, 2.1), ()),
        (bulk("MgO", "rocksalt", 4.2), ()),
        (oxide("Ba", 4.2, 1.49) * (2, 1, 1), ("peroxide",)),
        (Atoms("O2", positions=[[0, 0, 0], [1.22, 0, 0]], cell=np.eye(3) * 3.0, pbc=True), ()),
    ],
)
def test_oxides_are_told_apart_as_pymatgen_does(atoms, expected):
    from pymatgen.core.structure_analyzer import oxide_type
    from pymatgen.io.ase import AseAtomsAdaptor

    assert flags(atoms) == expected
    kind = oxide_type(AseAtomsAdaptor.get_structure(atoms), 1.05)
    assert kind == (expected[0] if expected and expected != ("plain_oxide",) else kind)
    assert (kind in ("peroxide", "superoxide")) == (expected not in ((), ("plain_oxide",)))


def test_bonds_across_the_boundary_are_seen():
    atoms = oxide("Ba", 4.2, 1.49)
    atoms.positions += [1.9, 0.3, 2.0]
    atoms.wrap()
    assert flags(atoms) == ("peroxide",)
    assert structure_flags(Crystal(atoms.numbers, atoms.positions, atoms.cell.array)) == ("peroxide",)
