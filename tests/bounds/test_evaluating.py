"""One structure without a table: the same row, the same values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mace_bounds import BoundsPredictor
from mace_bounds.bounds import bounds_of, evaluate, expected_correction
from mace_bounds.bounds.table import one_row
from mace_bounds.calibration.centre import Centre
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import read
from mace_bounds.tables import records


@pytest.fixture(scope="module")
def predictor(tiny_model_folder, whole_fit):
    settings = ExtractSettings(dtype="float64", device="cpu")
    return BoundsPredictor(tiny_model_folder, whole_fit.folder, settings=settings)


def test_a_row_is_that_of_the_table(predictor, labelled_crystals):
    for record in list(read(labelled_crystals[:6])):
        rows = predictor.extract([record])
        row, _ = one_row(rows, predictor.head, predictor.level, predictor.training_keys)
        (wanted,) = records(predictor.table(rows))
        assert row == wanted
        assert {name: type(value) for name, value in row.items()} == {
            name: type(value) for name, value in wanted.items()
        }


def test_bounds_from_an_evaluation_are_those_of_a_prediction(predictor, labelled_crystals):
    for record in list(read(labelled_crystals[:4])):
        seen = evaluate(predictor, record.crystal)
        bounds, gamma = bounds_of(predictor, record, seen)
        wanted = predictor.bounds(record)
        assert bounds.energy_lower_ev == pytest.approx(wanted.energy_lower_ev, rel=1e-8)
        assert bounds.flags == wanted.flags
        assert gamma.shape in ((0,), (bounds.n_atoms,))


def test_the_expected_correction_is_that_of_the_head(predictor, labelled_crystals):
    head = replace(predictor.head, centre=Centre(0.6, np.linspace(-0.02, 0.03, 118)))
    correction = expected_correction(head)
    for record in list(read(labelled_crystals[:6])):
        rows = predictor.extract([record])
        added = correction.energies_ev(rows.features[0], record.crystal)
        wanted = head.intervals(rows).centre[0] * len(record.crystal.numbers)
        assert np.allclose(added, wanted, atol=1e-9)
