"""Labels that are no total energies are recognised beside the model's energies; total energies never are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.structures import label_trouble

# eV/atom: Materials Project, uncorrected PBE; PBE atoms (spin-polarised) from the Delta test of VASP's potentials
ELEMENTS = {3: -1.909, 8: -4.947, 11: -1.323, 12: -1.600, 14: -5.425, 17: -1.849, 20: -2.006, 22: -7.896, 26: -8.470,
            29: -4.099, 30: -1.260, 38: -1.690, 40: -8.548, 47: -2.833, 50: -4.010, 56: -1.919}  # fmt: skip
HARTREE, RYDBERG, KJ_MOL, KCAL_MOL = 27.211386, 13.605693, 1 / 96.485332, 1 / 23.060548


def source(n=120, seed=0, error=0.05):
    """Return labels, model energies (eV), counts and the elements' energies of n made crystals."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n, 119))
    for row in counts:
        row[rng.choice(list(ELEMENTS), rng.integers(1, 4), replace=False)] = rng.integers(1, 7, 1)
        row[rng.choice(np.flatnonzero(row))] += rng.integers(0, 4)
    size = counts.sum(axis=1)
    elements = counts @ np.array([ELEMENTS.get(z, 0.0) for z in range(119)])
    model = elements + size * rng.normal(-0.6, 0.5, n)
    label = model + size * (0.01 + error * rng.standard_t(4, n))
    return label, model, counts, elements


def wrong(name, seed=0):
    """Return labels of another quantity beside the model's energies."""
    label, model, counts, elements = source(seed=seed)
    size = counts.sum(axis=1)
    rng = np.random.default_rng(seed + 1)
    zero = counts @ rng.uniform(0.5, 4.0, 119)
    core = counts @ (30.0 * np.arange(119) ** 1.5)
    made = {
        "own": model + 1e-6 * size * rng.normal(size=len(size)),
        "own, three decimals": np.round(model, 3),
        "own, shifted by atom": model + 1.3 * size,
        "own, shifted by element": np.round(model + zero, 4),
        "own, a few failed": np.where(np.arange(len(size)) % 20, model, model + 7),
        "per atom": label / size,
        "hartree": label / HARTREE,
        "rydberg": label / RYDBERG,
        "kJ/mol": label / KJ_MOL,
        "kcal/mol": label / KCAL_MOL,
        "kJ/mol per atom": label / KJ_MOL / size,
        "formation": label - elements,
        "formation per atom": (label - elements) / size,
        "cohesive per atom": (label + zero) / size,
        "all-electron hartree": (label - core) / HARTREE,
        "other pseudopotentials": label - core / 10,
    }
    return made[name], model, counts


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("own", "own", "own energies"),
        ("own, three decimals", "own", "own energies"),
        ("own, shifted by atom", "own", "constant for each atom"),
        ("own, shifted by element", "own", "constant for each element"),
        ("own, a few failed", "own", "own energies"),
        ("per atom", "per atom", "multiply them by the number of atoms"),
        ("hartree", "units", "multiply them by 27.2114"),
        ("rydberg", "units", "multiply them by 13.6057"),
        ("kJ/mol", "units", "multiply them by 0.0103643"),
        ("kcal/mol", "units", "multiply them by 0.0433641"),
        ("kJ/mol per atom", "units", "and by the number of atoms"),
        ("formation", "formation", "formation energies, relative to the elements"),
        ("formation per atom", "formation", "formation energies per atom"),
        ("cohesive per atom", "zero", "energies per atom with another zero"),
        ("all-electron hartree", "units", "hartree with another zero"),
        ("other pseudopotentials", "zero", "with another zero for each element"),
    ],
)
def test_other_quantities_are_named_with_the_remedy(name, kind, says):
    trouble = label_trouble(*wrong(name))
    assert trouble is not None
    assert trouble.kind == kind
    assert says in trouble.sentence()


# Spin-polarised PBE atoms as VASP's potentials give them, eV, to tenths.
ATOMS = {3: -0.3, 8: -1.9, 11: -0.2, 12: 0.0, 14: -0.8, 17: -0.3, 20: 0.0, 22: -2.2, 26: -3.3, 29: -0.2, 30: 0.0,
         38: 0.0, 40: -2.1, 47: -0.2, 50: -0.7, 56: 0.0}  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("by", ["cell", "atom"])
def test_cohesive_energies_of_few_crystals_with_many_elements_are_named(sign, by):
    """Fewer rows for each element than a fit by elements needs: energies of free atoms that are known will do."""
    for seed in range(5):
        label, model, counts, _ = source(80, seed)
        atoms = counts @ np.array([ATOMS.get(z, 0.0) for z in range(119)])
        # of alkali halides the two are nearly the same
        some = np.flatnonzero(atoms < -1.2 * counts.sum(axis=1))[:16]
        cohesive = sign * (label - atoms) / (1 if by == "cell" else counts.sum(axis=1))
        trouble = label_trouble(cohesive[some], model[some], counts[some])
        assert trouble is not None
        assert trouble.kind in (
            "atoms",
            "formation",
        )  # per atom they can be like formation energies of the cell
        assert trouble.kind == "atoms" or by == "atom"


@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 150), error=st.floats(0.003, 0.3), shift=st.floats(-0.5, 0.5)
)
@settings(max_examples=40, deadline=None)
def test_total_energies_pass_with_any_error(seed, n, error, shift):
    label, model, counts, _ = source(n, seed, error)
    label = label + shift * counts[:, 8]
    assert label_trouble(np.round(label, 3), model, counts) is None


@given(seed=st.integers(0, 10**6), n=st.integers(1, 100), digits=st.integers(4, 8))
@settings(max_examples=20, deadline=None)
def test_own_energies_are_seen_in_sources_of_any_size(seed, n, digits):
    _, model, counts, _ = source(n, seed)
    trouble = label_trouble(np.round(model, digits), model, counts)
    assert (trouble is not None and trouble.kind == "own") or (n < 4 and digits < 5)


def test_copies_of_one_crystal_are_not_taken_for_a_shift():
    label, model, counts, _ = source(3)
    many = np.arange(60) % 3
    assert label_trouble(label[many], model[many], counts[many]) is None


def test_a_source_of_which_a_part_is_foreign_is_left_to_the_rows():
    label, model, counts, _ = source(100)
    label[30:] -= 25.0 * counts[30:].sum(axis=1)
    assert label_trouble(label, model, counts) is None


def test_corrected_energies_are_seen_by_their_anions():
    label, model, counts, _ = source(120, error=0.02)
    counts[:, 26] = (
        0  # no correction of a metal: MP2020 takes 0.687 eV for each O and 0.614 eV for each Cl alone
    )
    oxygen, chlorine = counts[:, 8], counts[:, 17] * (counts[:, 8] == 0)
    iron = counts[:, 26] * (oxygen > 0)
    pure = (counts > 0).sum(axis=1) < 2
    corrected = label - np.where(pure, 0.0, 0.687 * oxygen + 0.614 * chlorine + 2.256 * iron)
    assert label_trouble(label, model, counts) is None
    trouble = label_trouble(corrected, model, counts)
    assert trouble is not None
    assert trouble.kind == "corrected"


def test_few_labels_are_refused_where_a_plain_conversion_makes_all_of_them_right():
    label, model, counts, _ = source(error=0.01)
    size = counts.sum(axis=1)
    for n in (1, 3, 7):
        for name, made in (("per atom", label / size), ("hartree", label / HARTREE)):
            trouble = label_trouble(made[:n], model[:n], counts[:n])
            assert trouble is not None
            assert name in trouble.what
        assert label_trouble(label[:n], model[:n], counts[:n]) is None
        assert label_trouble(label[:n] + 1.5 * size[:n], model[:n], counts[:n]) is None
    one_good = np.append(label[:3], (label / size)[3])  # one that is right as it is speaks for the unit
    assert label_trouble(one_good, model[:4], counts[:4]) is None
