"""Differences of a predictor: what cancels, what is balanced, and what stands in the tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mace_bounds import BoundsPredictor
from mace_bounds.columns import DIFFERENCES, names
from mace_bounds.decisions.choosing import DifferenceScores
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.features import FeatureRows, FeatureStore


@pytest.fixture(scope="module")
def predictor(tiny_fit, tiny_model_folder):
    return BoundsPredictor(tiny_model_folder, head=tiny_fit.head)


@pytest.fixture(scope="module")
def rows(tiny_store):
    return FeatureStore(tiny_store).read().scored()


def polymorphs(rows, n=12):
    """The first rows, twice: as they are and as other structures of the same compositions."""
    table = pd.concat([rows.table[:n], rows.table[:n]], ignore_index=True)
    table["id"] = [f"a{i}" for i in range(n)] + [f"b{i}" for i in range(n)]
    features = np.concatenate([rows.features[:n], 1.02 * rows.features[:n]])
    table.loc[n:, "energy_model_ev"] += 0.03 * table.loc[n:, "n_atoms"]
    return FeatureRows(table, features)


def test_polymorphs_have_a_row_for_every_pair(predictor, rows):
    table = predictor.differences(polymorphs(rows), "polymorphs")
    counts = polymorphs(rows).table["formula"].value_counts()
    assert len(table) == int((counts * (counts - 1) // 2).sum())
    assert set(names(DIFFERENCES)) <= set(table.columns)
    assert (table["model_mev_per_atom"] <= 1e-9).all()  # the lower by the model comes first
    assert (table["lower_mev_per_atom"] < table["value_mev_per_atom"]).all()
    assert table["reason"].isna().all()


def test_a_reaction_does_not_depend_on_how_it_is_written(predictor, rows):
    table = predictor.differences(polymorphs(rows), ["a0 -> b0", "b0 -> a0", "3 a0 -> 3 b0"])
    first, back, scaled = (table.iloc[k] for k in range(3))
    for name in ("value", "std", "lower", "upper"):
        assert first[f"{name}_mev_per_atom"] == pytest.approx(scaled[f"{name}_mev_per_atom"], abs=1e-9)
    assert first["value_mev_per_atom"] == pytest.approx(-back["value_mev_per_atom"], abs=1e-9)
    assert first["lower_mev_per_atom"] == pytest.approx(-back["upper_mev_per_atom"], abs=1e-9)
    assert first["probability_lower"] == pytest.approx(1 - back["probability_lower"], abs=1e-9)


def test_a_shift_for_each_element_changes_no_reaction(predictor, rows):
    many = polymorphs(rows)
    shift = np.random.default_rng(0).normal(0, 1, 119)
    moved = many.table.copy()
    extra = [
        sum(shift[z] * n for z, n in zip(e, c, strict=True))
        for e, c in zip(moved["elements"], moved["counts"], strict=True)
    ]
    moved["energy_model_ev"] += extra
    moved["energy_ev"] += extra
    reactions = [f"a{i} -> b{i}" for i in range(8)]
    before = predictor.differences(many, reactions)
    after = predictor.differences(FeatureRows(moved, many.features), reactions)
    for name in ("value", "lower", "upper", "std", "dft"):
        np.testing.assert_allclose(before[f"{name}_mev_per_atom"], after[f"{name}_mev_per_atom"], atol=1e-9)


def test_formation_energies_have_the_bounds_of_the_structures(predictor, rows):
    elements = {"Li", "Na", "O", "F", "Fe", "Ti", "Cl", "S", "Mg", "Al"}
    references = dict.fromkeys(elements, -2.0)
    table = predictor.differences(rows, "formation", references=references)
    single = predictor.table(rows)
    n = rows.table["n_atoms"].to_numpy()
    np.testing.assert_allclose(
        table["lower_mev_per_atom"] / 1000 - 2.0, single["energy_lower_ev"] / n, atol=1e-9
    )
    np.testing.assert_allclose(table["dft_mev_per_atom"] / 1000 - 2.0, single["energy_dft_ev"] / n, atol=1e-9)
    assert (table["kind"] == "single").all()
    less = predictor.differences(rows, "formation", references={"Li": -2.0})
    assert less["reason"].dropna().str.contains("the references have no").all()
    assert len(less) == len(rows.table)


def test_structures_behind_formulas_are_named_and_u_is_not_mixed_in_silence(predictor, rows):
    few = rows.take(np.arange(3))
    table = few.table.assign(
        formula=["Fe", "O2", "FeO"],
        id=["iron", "oxygen", "oxide"],
        elements=[np.array([26]), np.array([8]), np.array([8, 26])],
        counts=[np.array([2]), np.array([2]), np.array([2, 2])],
        n_atoms=[2, 2, 4],
        run_type=[None, "GGA", "GGA+U"],
    )
    found = predictor.differences(
        FeatureRows(table, few.features), ["2Fe + O2 -> 2FeO", "oxide -> oxide", "O2 -> O2"]
    )
    assert found["structures"].tolist() == ["iron;oxygen;oxide", "oxide;oxide", "oxygen;oxygen"]
    assert ["mixed_hubbard" in flags for flags in found["flags"]] == [True, False, False]
    formation = predictor.differences(
        FeatureRows(table, few.features), "formation", references={"Fe": -8.0, "O": -4.9}
    )
    assert ["mixed_hubbard" in flags for flags in formation["flags"]] == [False, False, True]


def test_a_bad_reaction_is_a_row_with_its_reason(predictor, rows):
    table = predictor.differences(polymorphs(rows), ["a0 -> nothing", "a0 + a1", "a0 -> b0"])
    assert table["reason"].notna().tolist() == [True, True, False]
    assert "no structure of the source" in table["reason"][0]
    assert table["value_mev_per_atom"].isna().tolist() == [True, True, False]


def test_a_head_without_joint_errors_says_independence(tiny_fit, tiny_model_folder, rows):
    plain = BoundsPredictor(tiny_model_folder, head=replace(tiny_fit.head, beside={}))
    table = plain.differences(polymorphs(rows), "polymorphs")
    assert table["flags"].str.contains("difference_not_calibrated").all()
    for side in ("lower", "upper"):
        np.testing.assert_allclose(table[f"{side}_mev_per_atom"], table[f"independent_{side}_mev_per_atom"])


def test_one_difference_and_its_balance(predictor, labelled_crystals):
    a = labelled_crystals[0]
    b = a.copy()
    b.set_cell(1.03 * np.asarray(a.cell), scale_atoms=True)
    b.info["id"] = "stretched"
    found = predictor.difference([(a, 1), (b, -1)])
    assert found.kind == "polymorph"
    assert found.lower_mev_per_atom < found.value_mev_per_atom < found.upper_mev_per_atom
    assert 0 < found.probability_lower < 1
    with pytest.raises(StructureError, match="do not balance"):
        predictor.difference([(a, 1), (b, -2)])
    draws = predictor.draws([a, b], n=300, seed=1)
    assert draws.shape == (300, 2)


def scan(rows, n=4):
    """Some crystals, each at its volume and at one that is smaller by a tenth."""
    many = polymorphs(rows, n)
    many.table.loc[n:, "volume_a3"] *= 0.9
    return many


def taught(predictor):
    """The same predictor, whose head knows that 95 % of errors of strained crystals are below three widths."""
    scores = DifferenceScores(np.linspace(0.01, 3.0, 400), np.ones(400), 400)
    model = predictor.joint_model
    out = BoundsPredictor(predictor.model, head=predictor.head)
    out.__dict__["joint_model"] = replace(model, scores={**model.scores, "strained": scores})
    return out, scores


def test_volumes_of_one_crystal_have_widths_by_strain(predictor, rows):
    known, scores = taught(predictor)
    table = known.differences(scan(rows), "volumes")
    own = scan(rows).table
    expected = own.groupby(["formula", "n_atoms"]).size()
    assert len(table) == int((expected * (expected - 1) // 2).sum())
    assert set(table["kind"]) == {"strained"}
    std = dict(zip(own["id"], known.decision_rows(scan(rows)).joint.marginals.std, strict=True))
    pair = table[(table["id_a"].str[1:] == table["id_b"].str[1:])].iloc[0]
    smaller = min(std[pair["id_a"]], std[pair["id_b"]])
    half = 1000 * scores.half_width(0.95) * smaller * np.hypot(np.log(0.9), 0.05)
    assert 0.5 * (pair["upper_mev_per_atom"] - pair["lower_mev_per_atom"]) == pytest.approx(half, rel=1e-9)
    apart = known.differences(scan(rows), "polymorphs").set_index(["id_a", "id_b"])
    assert set(apart["kind"]) == {"polymorph"}  # unless they are said to be one crystal


def test_volumes_that_are_not_known_or_taught_are_not_strained(predictor, rows):
    known, _ = taught(predictor)
    old = scan(rows)
    old.table["volume_a3"] = np.nan
    assert set(known.differences(old, "volumes")["kind"]) == {"polymorph"}
    table = predictor.differences(scan(rows), "volumes")
    assert table["flags"].str.contains("difference_not_calibrated").all()
    np.testing.assert_allclose(table["upper_mev_per_atom"], table["independent_upper_mev_per_atom"])


def test_another_kind_of_difference_is_refused(predictor, rows):
    with pytest.raises(HeadError, match="'volumes'"):
        predictor.differences(polymorphs(rows), "isomers")
