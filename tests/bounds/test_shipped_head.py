"""The head that ships with mini: it loads, belongs to mini and scores, whichever version wrote it."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from mace_bounds.bounds import BoundsPredictor, find_head, load_head
from mace_bounds.columns import GRADES


@pytest.fixture(scope="module")
def predictor():
    return BoundsPredictor("mini")


def test_it_is_the_one_that_is_found_for_mini(predictor):
    head = predictor.head
    assert find_head("mini").name == "mini"
    assert head.identity.model_digest == predictor.model.digest
    assert load_head("mini").digest == head.digest
    assert set(head.levels) >= {0.68, 0.9, 0.95}
    for row in head.provenance["coverage"]:
        assert row["n"] > 500  # rows of unseen compositions: a standard error of 2 % or less
        assert row["coverage"] > row["level"] - 0.04


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


def test_grades_are_there_as_far_as_the_head_has_them(predictor):
    head = predictor.head
    row = predictor.predict(bulk("NaCl", "rocksalt", 5.69)).iloc[0]
    assert np.isfinite(row["extrapolation_grade"])
    structures = head.novelty is not None
    atoms = structures and head.novelty.wants_atoms
    wanted = dict.fromkeys(GRADES[:2], structures) | dict.fromkeys([*GRADES[2:], "novel_atom"], atoms)
    assert {name: bool(pd.notna(row[name])) for name in wanted} == wanted
