"""Differences and hulls of energies that the user brings."""

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.entries.computed_entries import ComputedEntry

from helpers.systems import labelled, magnesium_aluminium
from mace_bounds import BoundsPredictor
from mace_bounds.bounds import HullSettings
from mace_bounds.errors import HeadError, LabelError, StructureError
from mace_bounds.features import FeatureStore

PLAIN = HullSettings(corrections=False, n_draws=100)


@pytest.fixture(scope="module")
def predictor(published_head, tiny_model_folder):
    return BoundsPredictor(tiny_model_folder, published_head)


@pytest.fixture(scope="module")
def crystals(tiny_model_folder, tiny_fit):
    """Crystals of magnesium and aluminium with labels, and energies of another model beside these by id."""
    plain = magnesium_aluminium()
    model = BoundsPredictor(tiny_model_folder, tiny_fit.folder).predict(plain)["energy_model_ev"]
    size = np.array([len(atoms) for atoms in plain])
    random = np.random.default_rng(3)
    labels = model + 0.1 * random.standard_normal(len(plain)) * size
    given = labels + 0.05 * random.standard_normal(len(plain)) * size
    names = [atoms.info["id"] for atoms in plain]
    return labelled(plain, labels), dict(zip(names, given, strict=True))


def alone(crystals):
    """The same without labels."""
    out = [atoms.copy() for atoms in crystals]
    for atoms in out:
        del atoms.info["REF_energy"]
    return out


def test_differences_are_those_of_a_store_with_these_energies(
    predictor, labelled_crystals, published_store, tiny_store, published_energies
):
    reactions = ["made-0000 -> made-0000", "Li2O + Fe -> nothing"]
    for of in ("polymorphs", reactions):
        wanted = predictor.differences(str(published_store.folder), of)
        tables = [
            predictor.differences(labelled_crystals, of, energies=published_energies),
            predictor.differences(str(tiny_store), of, energies=published_energies),
            predictor.differences(
                FeatureStore(tiny_store).read(), of, energies=list(published_energies.values())
            ),
        ]
        for table in tables:
            assert table["reason"].fillna("").tolist() == wanted["reason"].fillna("").tolist()
            for name in ("model", "value", "lower", "upper", "std"):
                np.testing.assert_allclose(
                    table[f"{name}_mev_per_atom"], wanted[f"{name}_mev_per_atom"], atol=1e-3
                )
        assert set(tables[0]["model"]) == {"Another"}
        assert set(tables[0]["features_of"]) == {predictor.model.name}


def test_one_difference_has_the_energies_in_order_or_by_id(predictor, crystals):
    some, energies = crystals
    a, b = some[2], some[3]
    by_id = predictor.difference([(a, 1), (b, -1)], energies=energies)
    in_order = predictor.difference([(a, 1), (b, -1)], energies=[energies[x.info["id"]] for x in (a, b)])
    assert by_id == in_order
    expected = 1000 * (energies[a.info["id"]] - energies[b.info["id"]]) / 2
    assert by_id.model_mev_per_atom == pytest.approx(expected, abs=1e-6)
    with pytest.raises(StructureError, match="no energy was given"):
        predictor.difference([(a, 1), (b, -1)], energies={a.info["id"]: energies[a.info["id"]]})
    with pytest.raises(LabelError, match="more values"):
        predictor.difference([(a, 1), (b, -1)], energies=[1.0, 2.0, 3.0])
    with pytest.raises(HeadError, match="give the energies"):
        predictor.difference([(a, 1), (b, -1)])


def test_ids_without_energies_are_rows_with_their_reason(predictor, crystals):
    some, energies = crystals
    known = {name: energy for name, energy in energies.items() if name not in ("MgAl-rocksalt", "Mg")}
    table = predictor.differences(some, "polymorphs", energies=known)
    failed = table[table["reason"].notna()]
    assert set(failed["id_a"]) == {"MgAl-rocksalt", "Mg"}
    assert failed["reason"].str.contains("no energy was given").all()
    assert "MgAl-rocksalt" not in {*table["id_b"], *table["id_a"][table["reason"].isna()]}
    volumes = predictor.differences(some, "volumes", energies=known)
    assert set(volumes["id_a"][volumes["reason"].notna()]) == {"MgAl-rocksalt", "Mg"}
    table = predictor.differences(
        some, ["MgAl-rocksalt -> MgAl-zincblende", "Mg + Al -> MgAl"], energies=known
    )
    assert table["reason"].str.contains("no energy was given").all()
    formation = predictor.differences(some, "formation", energies=known).set_index("id_a")
    # magnesium has a label, which is all that a reference needs
    label = {atoms.info["id"]: atoms.info["REF_energy"] for atoms in some}
    row = formation.loc["MgAl-zincblende"]
    expected = (known["MgAl-zincblende"] - label["Mg"] / 2 - label["Al"]) / 2
    assert row["model_mev_per_atom"] == pytest.approx(1000 * expected, abs=1e-6)
    assert "no energy was given" in formation["reason"]["Mg"]
    assert predictor.element_references(some) == {"Mg": label["Mg"] / 2, "Al": label["Al"]}


@pytest.mark.parametrize("form", ["mapping", "array", "function"])
def test_candidates_with_given_energies_compete_with_phases_that_have_labels_alone(predictor, crystals, form):
    phases, energies = crystals
    candidates, names = alone(phases)[2:5], [atoms.info["id"] for atoms in phases]
    known = {names[k]: energies[names[k]] for k in (2, 3, 4)}
    forms = {
        "mapping": known,
        "array": list(known.values()),
        "function": lambda atoms: known[next(a.info["id"] for a in candidates if a == atoms)],
    }
    found = predictor.hull(candidates, phases, PLAIN, energies=forms[form])
    assert found.table["reason"].isna().all()
    assert found.table["id"].tolist() == list(known)
    assert any("Another gives the energy" in note for note in found.notes)
    assert len(found.phases) == len(phases)
    entries = [
        ComputedEntry(a.get_chemical_formula(), a.info["REF_energy"], entry_id=a.info["id"]) for a in phases
    ]
    expected_error = predictor.predict(candidates, energies=list(known.values()))
    for k, row in found.table.iterrows():
        others = [entry for entry in entries if entry.entry_id != row["id"]]
        entry = ComputedEntry("MgAl", expected_error["energy_expected_ev"][k])
        e_above = PhaseDiagram(others).get_e_above_hull(entry, allow_negative=True)
        assert row["e_above_hull_ev_per_atom"] == pytest.approx(e_above, abs=1e-6)


def test_phases_that_have_neither_label_nor_energy_are_named(predictor, crystals):
    some, energies = crystals
    names = [atoms.info["id"] for atoms in some]
    without = [*some[:2], *alone(some)[2:]]
    found = predictor.hull(alone(some)[2:3], without, PLAIN, energies={names[2]: energies[names[2]]})
    assert found.phases["id"].tolist() == ["Mg", "Al", names[2]]
    assert any("do not compete: 5, 5 × no energy was given" in note for note in found.notes), found.notes
    everyone = predictor.hull(alone(some)[2:3], without, PLAIN, energies=energies)
    assert len(everyone.phases) + len(everyone.guarded) == len(some)  # random features raise flags
    assert not any("do not compete" in note for note in everyone.notes)
    by_model = HullSettings(corrections=False, n_draws=100, energies="model")
    found = predictor.hull(alone(some)[2:3], some, by_model, energies={k: energies[k] for k in names[:3]})
    assert {*found.phases["id"], *found.guarded["id"]} == {"Mg", "Al", names[2]}


def test_in_one_source_what_has_a_label_alone_competes_and_is_no_candidate(predictor, crystals):
    some, energies = crystals
    known = {name: energy for name, energy in energies.items() if name.startswith("part")}
    found = predictor.hull(some, None, PLAIN, energies=known)
    table = found.table.set_index("id")
    assert table.index.tolist() == [atoms.info["id"] for atoms in some]
    assert table["reason"].isna().sum() == 3
    assert table["reason"].dropna().str.contains("no energy was given").all()
    assert len(found.phases) == len(some)
    split = predictor.hull([a for a in some if a.info["id"] in known], some, PLAIN, energies=known)
    pd.testing.assert_series_equal(
        table["e_above_hull_ev_per_atom"].dropna(),
        split.table.set_index("id")["e_above_hull_ev_per_atom"],
    )


def test_labels_that_cannot_be_right_shape_no_hull_though_no_energy_stands_beside_them(predictor, crystals):
    some, energies = crystals
    names = [atoms.info["id"] for atoms in some]
    planted = some[0].copy()
    planted.info |= {"id": "planted", "REF_energy": some[0].info["REF_energy"] - 20 * len(planted)}
    planted.set_cell(1.01 * planted.cell, scale_atoms=True)
    found = predictor.hull(alone(some)[2:4], [*some, planted], PLAIN, energies=energies)
    assert found.guarded["id"].tolist() == ["planted"]
    plain = predictor.hull(alone(some)[2:4], some, PLAIN, energies=energies)
    np.testing.assert_array_equal(
        found.table["e_above_hull_ev_per_atom"], plain.table["e_above_hull_ev_per_atom"]
    )
    assert set(found.table["id"]) == set(names[2:4])


def test_energies_cannot_be_computed_of_a_store(predictor, tiny_store):
    with pytest.raises(LabelError, match="give them by id"):
        predictor.differences(str(tiny_store), "polymorphs", energies=len)


def test_draws_of_given_energies(predictor, crystals):
    some, energies = crystals
    assert predictor.draws(some, 50, energies=energies).shape == (50, len(some))


def test_a_candidate_does_not_compete_with_itself_in_another_cell_or_with_fewer_digits(
    tiny_model_folder, tiny_fit, crystals
):
    predictor, (phases, _) = BoundsPredictor(tiny_model_folder, tiny_fit.folder), crystals
    exact = alone(phases)[2:5]
    rounded = [atoms.copy() for atoms in exact]
    for atoms in rounded:
        atoms.set_cell(np.round(atoms.cell[:], 4), scale_atoms=True)
    forms = [exact, rounded, [atoms * (1, 1, 2) for atoms in exact]]
    wanted, *others = (predictor.hull(form, phases, PLAIN).table for form in forms)
    assert (wanted["decomposition"] != "1 MgAl (100 %)").any()
    for table in others:
        np.testing.assert_allclose(
            table["e_above_hull_ev_per_atom"], wanted["e_above_hull_ev_per_atom"], atol=1e-4
        )
    twice = predictor.hull(exact, [*phases, *(atoms * (2, 1, 1) for atoms in phases[:2])], PLAIN)
    assert len(twice.phases) == len(phases)
