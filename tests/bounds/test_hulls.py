"""Hulls of a predictor: fixed and uncertain phases, the guard, corrections, entries."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from mace_bounds import BoundsPredictor
from mace_bounds.bounds import HullSettings
from mace_bounds.columns import HULLS, names
from mace_bounds.decisions import HullPrior, mp2020_corrections, oxide_types_of
from mace_bounds.features import FeatureRows, FeatureStore
from mace_bounds.structures import Crystal, structure_flags

SETTINGS = HullSettings(corrections=False, n_draws=200)


@pytest.fixture(scope="module")
def predictor(tiny_fit, tiny_model_folder):
    return BoundsPredictor(tiny_model_folder, head=tiny_fit.head)


@pytest.fixture(scope="module")
def rows(tiny_store):
    """Crystals of four elements, and the elements themselves."""
    every = FeatureStore(tiny_store).read().scored()
    inside = every.table["elements"].map(lambda e: set(e) <= {3, 8, 11, 26})
    chosen = every.take(inside.to_numpy())
    extra = chosen.take(np.arange(4))
    table = extra.table.copy()
    table["elements"] = [np.array([z]) for z in (3, 8, 11, 26)]
    table["counts"] = [np.array([1])] * 4
    table["formula"], table["id"] = ["Li", "O2", "Na", "Fe"], [f"element-{k}" for k in range(4)]
    table["structure_hash"] = [f"element-{k}" for k in range(4)]
    table["n_atoms"] = 1
    table["energy_ev"] = table["energy_model_ev"] = -3.0
    size = extra.table["n_atoms"].to_numpy(dtype=float)
    joined = pd.concat([chosen.table, table], ignore_index=True)
    joined["flags"] = [()] * len(joined)
    return FeatureRows(joined, np.concatenate([chosen.features, extra.features / size[:, None]]))


def entries(table, column):
    return [
        ComputedEntry({int(z): int(n) for z, n in zip(e, c, strict=True)}, energy, entry_id=name)
        for e, c, energy, name in zip(
            table["elements"], table["counts"], table[column], table["id"], strict=True
        )
    ]


def unflagged(predictor):
    """The same predictor without the guard's flags, which random features raise."""
    table = predictor.table

    def plain(rows, level=None, *, detailed=False):
        return table(rows, level, detailed=detailed).assign(flags=None)

    predictor.table = plain
    return predictor


@pytest.fixture
def unguarded(predictor):
    yield unflagged(predictor)
    del predictor.table


def test_the_middle_is_pymatgens_distance(unguarded, rows):
    found = unguarded.hull(rows, None, SETTINGS)
    centre = unguarded.decision_rows(rows)
    energies = rows.table["energy_model_ev"] + centre.joint.marginals.middle * rows.table["n_atoms"]
    labels = rows.table["energy_ev"]
    for k in (0, 3, len(rows.table) - 5):
        others = rows.table.drop(index=k).assign(energy=labels.drop(index=k))
        entry = entries(rows.table.assign(energy=energies).iloc[[k]], "energy")[0]
        expected = PhaseDiagram(entries(others, "energy")).get_e_above_hull(entry, allow_negative=True)
        row = found.table.iloc[k]
        assert row["e_above_hull_ev_per_atom"] == pytest.approx(expected, abs=1e-9)
        assert row["lower_ev_per_atom"] <= row["upper_ev_per_atom"]
    assert set(names(HULLS)) <= set(found.table.columns)
    assert found.table["vertex"].isna().all()  # labelled phases are fixed


def test_distances_of_fixed_phases_have_the_width_of_the_bounds(unguarded, rows):
    found = unguarded.hull(rows, None, HullSettings(corrections=False, n_draws=2000))
    single = unguarded.table(rows)
    width = (found.table["upper_ev_per_atom"] - found.table["lower_ev_per_atom"]).to_numpy()
    expected = (single["upper_mev_per_atom"] - single["lower_mev_per_atom"]).to_numpy() / 1000
    np.testing.assert_allclose(np.median(width / expected), 1.0, atol=0.1)
    uncertain = unguarded.hull(rows, None, HullSettings(corrections=False, n_draws=200, energies="model"))
    assert uncertain.bias_ev_per_atom > 0  # the minimum of noisy energies is too low
    assert uncertain.table["vertex"].notna().any()


def test_a_planted_atom_does_not_shape_the_hull(predictor, rows):
    planted = rows.table.iloc[[-3]].copy()  # oxygen
    planted["id"] = planted["structure_hash"] = "planted"
    planted["energy_ev"] = planted["energy_model_ev"] = -25.0
    planted["flags"] = [("isolated_atoms",)]
    many = FeatureRows(
        pd.concat([rows.table, planted], ignore_index=True),
        np.concatenate([rows.features, rows.features[[-3]]]),
    )
    found = predictor.hull(many, None, HullSettings(corrections=False, n_draws=100, energies="dft"))
    assert "planted" in found.guarded["id"].tolist()
    assert any("planted" in sentence or "more" in sentence for sentence in found.notes)
    without = predictor.hull(rows, None, HullSettings(corrections=False, n_draws=100, energies="dft"))
    n = len(without.table)
    np.testing.assert_allclose(
        found.table["e_above_hull_ev_per_atom"][:n], without.table["e_above_hull_ev_per_atom"], atol=1e-12
    )
    oxides = [k for k, e in enumerate(rows.table["elements"]) if 8 in e and len(e) > 1]
    assert found.table["flags"].iloc[oxides].str.contains("hull_guarded").any()


def test_probabilities_are_said_only_where_distances_are_known(unguarded, rows, monkeypatch):
    model = replace(unguarded.joint_model, prior=None)
    monkeypatch.setitem(unguarded.__dict__, "joint_model", model)
    none = unguarded.hull(rows, None, SETTINGS)
    assert none.table["p_stable"].isna().all()
    assert any("No probability" in sentence for sentence in none.notes)
    assert any("missing among them makes distances too small" in sentence for sentence in none.notes)
    prior = HullPrior(
        np.linspace(-0.02, 0.5, 60), np.zeros(60, dtype=bool), 60, np.full(4, 0.1), np.full(4, 0.2)
    )
    monkeypatch.setitem(unguarded.__dict__, "joint_model", replace(model, prior=prior))
    table = unguarded.hull(rows, None, SETTINGS).table.dropna(subset="e_above_hull_ev_per_atom")
    p = table[["p_stable", "p_within_25mev", "p_within_50mev", "p_within_100mev"]].to_numpy()
    assert (np.diff(p, axis=1) >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1
    worse = replace(prior, brier=np.array([0.3, 0.1, 0.1, 0.1]))
    monkeypatch.setitem(unguarded.__dict__, "joint_model", replace(model, prior=worse))
    said = unguarded.hull(rows, None, SETTINGS).table
    assert said["p_stable"].isna().all()  # no better than a guess: not said
    assert said["p_within_25mev"].notna().any()
    assert p[:, 0].mean() < (none.distance_ev_per_atom <= 0).mean()  # few crystals are below the hull


@pytest.mark.parametrize(
    ("formula", "run_type"),
    [("Li2Fe4O8", None), ("LiCl", "GGA"), ("Fe2O3", "GGA+U"), ("Na4", None), ("CoF2", None)],
)
def test_corrections_are_those_of_pymatgen(formula, run_type):
    metals = {"Fe": 5.3, "Co": 3.32}
    u = {str(e): metals[str(e)] for e in Composition(formula).elements if str(e) in metals}
    parameters = {
        "run_type": "GGA+U" if u else "GGA",
        "hubbards": u,
        "is_hubbard": bool(u),
        "software": "vasp",
    }
    entry = ComputedEntry(formula, -30.0, parameters=parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a structure peroxides are known by their formula alone
        expected = (
            MaterialsProject2020Compatibility(check_potcar=False).process_entry(entry).correction_per_atom
        )
    found = mp2020_corrections([formula], [run_type], [None])
    assert found.ev_per_atom[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("formula", "bond"), [("NaO2", 1.33), ("BaO2", 1.49), ("BaO2", 2.1), ("TiO2", 1.49)])
def test_corrections_of_oxides_are_those_of_their_structure(formula, bond):
    a, metal = 4.2, formula.removesuffix("O2")
    x = [0.5 - bond / 2 / a, 0.5 + bond / 2 / a]
    structure = Structure(np.eye(3) * a, [metal, "O", "O"], [[0, 0, 0], [x[0], 0.5, 0.5], [x[1], 0.5, 0.5]])
    entry = ComputedStructureEntry(structure, -20.0, parameters={"run_type": "GGA", "hubbards": {}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = MaterialsProject2020Compatibility(check_potcar=False).process_entry(entry)
    flags = structure_flags(
        Crystal(np.array(structure.atomic_numbers), structure.cart_coords, structure.lattice.matrix)
    )
    found = mp2020_corrections([formula], ["GGA"], oxide_types_of([flags]))
    assert found.ev_per_atom[0] == pytest.approx(done.correction_per_atom, abs=1e-12)
    assert found.ev_per_atom[0] != 0
