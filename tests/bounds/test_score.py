"""Bounds of a few structures: the same numbers however they are asked for."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mace_bounds import load_model, score
from mace_bounds.bounds import concat, open_pair, score_batches
from mace_bounds.errors import HeadError, SourceError
from mace_bounds.structures import composition_key


@pytest.fixture(scope="module")
def table(labelled_crystals, tiny_model_folder, tiny_fit):
    return score(labelled_crystals, model=tiny_model_folder, head=tiny_fit.folder)


def test_bounds_bracket_what_they_say(table, labelled_crystals, tiny_model_folder):
    from mace.calculators import MACECalculator

    module = load_model(tiny_model_folder, dtype="float64").module
    atoms = labelled_crystals[3].copy()
    atoms.calc = MACECalculator(models=module, device="cpu", default_dtype="float64")
    row = table.iloc[3]
    assert row["energy_model_ev"] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert row["energy_lower_ev"] == pytest.approx(
        row["energy_model_ev"] + len(atoms) * row["lower_mev_per_atom"] / 1000
    )
    wanted = (labelled_crystals[3].info["REF_energy"] - row["energy_model_ev"]) / len(atoms) * 1000
    assert row["error_mev_per_atom"] == pytest.approx(wanted)
    assert row["inside"] == (row["lower_mev_per_atom"] <= wanted <= row["upper_mev_per_atom"])


def test_batches_change_nothing(table, labelled_crystals, tiny_model_folder, tiny_fit):
    model, head = open_pair(tiny_model_folder, tiny_fit.folder)
    parts = list(score_batches(labelled_crystals[:11], model, head, batch=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    names = ["energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom", "support_lower_mev_per_atom"]
    np.testing.assert_allclose(concat(parts)[names], table[names].iloc[:11], rtol=1e-5, atol=1e-3)


def test_training_compositions_are_told_apart(table, labelled_crystals):
    seen = np.array([bool(atoms.info["in_training"]) for atoms in labelled_crystals])
    assert (table["seen_in"] == "model_training").to_numpy().tolist() == seen.tolist()
    assert table["flags"].str.contains("in_training").to_numpy().tolist() == seen.tolist()


def test_the_flag_of_the_models_training_does_not_depend_on_the_head(
    labelled_crystals, tiny_model_folder, whole_fit
):
    table = score(labelled_crystals, model=tiny_model_folder, head=whole_fit.folder)
    seen = np.array([bool(atoms.info["in_training"]) for atoms in labelled_crystals])
    assert table["flags"].str.contains("in_training").tolist() == seen.tolist()
    keys = [composition_key(atoms.info["formula"]) for atoms in labelled_crystals]
    fit, calibration = whole_fit.head.fit_compositions, whole_fit.head.calibration_compositions
    free = np.where(seen, "model_training", "unseen")
    wanted = np.where(np.isin(keys, fit), "fit", np.where(np.isin(keys, calibration), "calibration", free))
    assert table["seen_in"].tolist() == wanted.tolist()
    assert {"fit", "calibration", "model_training"} <= set(
        wanted[seen]
    )  # rows of both kinds of use are there


def test_a_structure_that_cannot_be_scored_is_a_row_with_a_reason(tiny_model_folder, tiny_fit):
    sound, broken = (
        bulk("Al", "fcc", 4.05),
        Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True),
    )
    table = score([broken, sound], model=tiny_model_folder, head=tiny_fit.head)
    assert table["reason"].notna().tolist() == [True, False]
    assert np.isnan(table["lower_mev_per_atom"].iloc[0])
    assert np.isfinite(table["lower_mev_per_atom"].iloc[1])


def test_levels_and_sources_are_checked(tiny_model_folder, tiny_fit):
    with pytest.raises(HeadError, match=r"levels .*, not for 0\.5"):
        score(bulk("Al"), model=tiny_model_folder, head=tiny_fit.folder, level=0.5)
    with pytest.raises(SourceError):
        score("does-not-exist.cif", model=tiny_model_folder, head=tiny_fit.folder)


def test_when_nothing_can_be_scored_every_row_says_why(tiny_model_folder, tiny_fit):
    broken = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True)
    table = score(broken, model=tiny_model_folder, head=tiny_fit.head)
    assert table["reason"].tolist()[0].startswith("expected")
    assert table["upper_mev_per_atom"].isna().all()
