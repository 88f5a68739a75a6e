"""Grades and flags of novelty: planted cases with the real network, rates of false alarm, tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from helpers.toy_table import toy_table
from mace_bounds.backbones import load_model
from mace_bounds.bounds import bounds_table
from mace_bounds.calibration import FitConfig, Novelty, fit_head, fit_novelty, load_head
from mace_bounds.calibration.inputs import head_inputs
from mace_bounds.features import AtomRows, FeatureRows, Manifest, extract_rows
from mace_bounds.structures import read

RADII = {"Li": 0.76, "Na": 1.02, "K": 1.38, "Mg": 0.72, "Ca": 1.0, "Sr": 1.18}
RADII |= {"F": 1.33, "Cl": 1.81, "Br": 1.96, "O": 1.4, "S": 1.84, "Se": 1.98}
CATIONS, ANIONS = list(RADII)[:6], list(RADII)[6:]
SALTS = [(c, a) for i, c in enumerate(CATIONS) for j, a in enumerate(ANIONS) if (i + j) % 3 == 0]
GLOBAL, LOCAL, ATOM, LOCAL_ATOM = range(4)


def salt(cation, anion):
    return bulk(cation + anion, "rocksalt", 2.0 * (RADII[cation] + RADII[anion]), cubic=True)


def rattled(atoms, rng, sigma=0.1):
    hot = atoms.copy()
    hot.positions += rng.normal(0.0, sigma, hot.positions.shape)
    return hot


def strained(atoms, strain):
    out = atoms.copy()
    out.set_cell(out.cell @ (np.eye(3) + strain), scale_atoms=True)
    return out


@pytest.fixture(scope="module")
def featurise():
    model = load_model("mini", device="cpu")

    def rows(atoms):
        return extract_rows(list(read(atoms)), model, atoms=True)

    return rows


def inputs(rows):
    return head_inputs(rows, composition=True).x


@pytest.fixture(scope="module")
def hot(featurise):
    rng = np.random.default_rng(0)
    return featurise([rattled(salt(*pair), rng) for pair in SALTS for _ in range(28)])


@pytest.fixture(scope="module")
def novelty(hot):
    return fit_novelty(hot, inputs(hot), 0)


def beyond(novelty, rows, grade, tier=0):
    """Share of structures beyond a grade's threshold."""
    return float(
        np.mean(novelty.grade(rows, inputs(rows)).grades[:, grade] > novelty.thresholds[tier, grade])
    )


def test_training_structures_and_their_atoms_are_inside(novelty, hot):
    said = novelty.grade(hot, inputs(hot))
    assert said.grades.max() <= 1.0 + 1e-9
    assert said.novelty.max() <= 1.0


def test_strained_crystals_among_hot_ones_are_flagged_by_their_atoms(novelty, featurise):
    rng = np.random.default_rng(1)
    again = featurise([rattled(salt(*pair), rng) for pair in SALTS for _ in range(8)])
    false_alarms = beyond(novelty, again, LOCAL_ATOM)
    # nominal 1 %; of 96 structures more than 5 would have a chance below 0.1 %
    assert false_alarms <= 5 / 96
    shear = np.array([[0.0, 0.15, 0.0], [0.15, 0.0, 0.0], [0.0, 0.0, 0.0]])
    strains = [-0.08 * np.eye(3), 0.08 * np.eye(3), np.diag([0.0, 0.0, -0.15]), shear]
    cold = featurise([strained(salt(*pair), strain) for pair in SALTS for strain in strains])
    assert beyond(novelty, cold, LOCAL_ATOM) > 0.9
    assert np.mean(novelty.grade(cold, inputs(cold)).novelty > 1.0) > 0.9


def test_elements_that_never_met_are_flagged(novelty, featurise):
    rng = np.random.default_rng(3)
    pairs = [("Na", "Mg"), ("K", "Ca"), ("F", "O"), ("Cl", "Se")]
    rows = featurise([rattled(salt(*pair), rng, 0.05) for pair in pairs for _ in range(3)])
    said = novelty.grade(rows, inputs(rows))
    assert said.unseen_pair.all()
    assert beyond(novelty, rows, GLOBAL, tier=1) == 1.0
    # a pair of the kinds that do meet is not far out, and only the list of pairs tells it
    missing = next((c, a) for c in CATIONS for a in ANIONS if (c, a) not in SALTS)
    usual = featurise([rattled(salt(*missing), rng, 0.05) for _ in range(3)])
    assert novelty.grade(usual, inputs(usual)).unseen_pair.all()


def test_pairs_are_no_flag_where_new_ones_are_common(novelty, featurise):
    common = replace(novelty, rates={"measured": {"unseen_pair": 0.5}})
    rows = featurise([salt("Na", "Mg")])
    assert not common.grade(rows, inputs(rows)).unseen_pair.any()


def toy_rows(n, seed, *, atoms=False, columns=5):
    """Normal features and compositions without meaning: any two sets of rows are exchangeable."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, n)
    x = rng.standard_normal((n, columns))
    metal = rng.integers(20, 23, n)
    hashes = [f"{rng.integers(2**60):x}" for _ in range(n)]
    table = toy_table(
        0.05 * rng.standard_normal(n),
        size,
        [[8, z] for z in metal],
        source="toy",
        formula=[f"F{seed}-{i // 2}" for i in range(n)],
        structure_hash=hashes,
    )
    kept = AtomRows(rng.standard_normal((size.sum(), columns)).astype(np.float32), size) if atoms else None
    return FeatureRows(table, x * size[:, None], kept)


def test_false_alarms_come_at_the_nominal_rate():
    train, test = toy_rows(1200, 0, atoms=True), toy_rows(3000, 1, atoms=True)
    measured = fit_novelty(train, inputs(train), 0).measured(test, inputs(test)).rates["measured"]
    for name in ("gamma", "gamma_local", "gamma_atom", "gamma_atom_local", "any_grade"):
        # the threshold comes from about 600 held out, the rate from 3000: standard error 0.4 + 0.2 %
        assert 0.001 < measured[name] < 0.025
    assert measured["unseen_pair"] == 0.0


def test_the_atom_that_is_far_out_is_named():
    train, test = toy_rows(400, 8, atoms=True), toy_rows(30, 9, atoms=True)
    first = np.cumsum(test.atoms.counts) - test.atoms.counts
    place = np.random.default_rng(0).integers(0, test.atoms.counts)
    values = test.atoms.values.copy()
    values[first + place] = 30.0
    test = replace(test, atoms=AtomRows(values, test.atoms.counts))
    said = fit_novelty(train, inputs(train), 0).grade(test, inputs(test))
    assert np.array_equal(said.atom, place)
    assert (said.novelty > 1.0).all()


def test_without_atoms_only_structures_are_graded():
    train, test = toy_rows(300, 2), toy_rows(50, 3)
    said = fit_novelty(train, inputs(train), 0).grade(test, inputs(test))
    assert np.isnan(said.grades[:, ATOM:]).all()
    assert np.isfinite(said.grades[:, :ATOM]).all()
    assert (said.atom == -1).all()
    assert np.isfinite(said.novelty).all()
    train = toy_rows(300, 2, atoms=True)
    without = fit_novelty(train, inputs(train), 0).grade(test, inputs(test))
    assert np.isnan(without.grades[:, ATOM:]).all()


def test_the_order_of_the_rows_does_not_matter():
    train, test = toy_rows(400, 4, atoms=True), toy_rows(50, 5, atoms=True)
    order = np.random.default_rng(0).permutation(400)
    ends = np.cumsum(train.atoms.counts)
    values = np.concatenate([train.atoms.values[ends[k] - train.atoms.counts[k] : ends[k]] for k in order])
    atoms = AtomRows(values, train.atoms.counts[order])
    shuffled = FeatureRows(train.table.iloc[order].reset_index(drop=True), train.features[order], atoms)
    one, two = (fit_novelty(rows, inputs(rows), 0) for rows in (train, shuffled))
    np.testing.assert_allclose(one.thresholds, two.thresholds, rtol=1e-9)
    np.testing.assert_allclose(
        one.grade(test, inputs(test)).grades, two.grade(test, inputs(test)).grades, rtol=1e-7
    )


def test_it_survives_as_tensors(novelty, hot):
    again = Novelty.from_tensors(novelty.to_tensors(), novelty.to_config())
    one, two = novelty.grade(hot, inputs(hot)), again.grade(hot, inputs(hot))
    for name in ("grades", "atom", "novelty", "unseen_pair"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert again.rates == novelty.rates


def test_heads_carry_it_or_do_without(tmp_path):
    manifest = Manifest("toy", "d" * 64, "Default", "readout", tuple("abcde"), (0.0,) * 6, "float64", 8, {})
    rows, new = toy_rows(400, 6, atoms=True), toy_rows(20, 7, atoms=True)
    far = replace(new, atoms=AtomRows(new.atoms.values * np.float32(20.0), new.atoms.counts))
    head = fit_head(rows, manifest, FitConfig(seed=1, conformal="split", ellipsoid=False)).head
    loaded = load_head(head.save(tmp_path / "new", "card"))
    table = bounds_table(far, loaded)
    assert table["flags"].str.contains("extrapolates").all()
    assert (table["novelty"] > 1.0).all()
    assert np.array_equal(table["gamma_atom"], bounds_table(far, head)["gamma_atom"])
    assert table["novel_atom"].between(0, far.table["n_atoms"] - 1).all()
    without = load_head(replace(head, novelty=None).save(tmp_path / "without", "card"))
    assert without.novelty is None
    assert (
        bounds_table(far, without)[["gamma", "gamma_atom_local", "novelty", "novel_atom"]]
        .isna()
        .all(axis=None)
    )
