"""The splits of a comparison: nothing that is tested has been seen."""

import numpy as np
import pandas as pd
import pytest

from helpers.comparisons import run, split_head, split_rows, splits_of
from mace_bounds import FeatureStore
from mace_bounds.errors import HeadError
from mace_bounds.structures import composition_key, composition_keys, compositions_in


def test_no_composition_and_no_chemical_system_straddles_a_split(tiny_store):
    table = FeatureStore(tiny_store).read().table
    splits = splits_of(table, 3, 4)
    assert [split.name for split in splits[:3]] == [f"composition-{seed:04d}" for seed in range(3)]
    tested = np.zeros(len(table), dtype=int)
    for split in splits:
        new = "formula" if split.kind == "composition" else "chemical_system"
        used = set(table[new][split.fit | split.calibration])
        assert not used & set(table[new][split.test])
        assert not set(table["formula"][split.fit]) & set(table["formula"][split.calibration])
        assert split.fit.any()
        assert split.calibration.any()
        tested += split.test if split.kind == "system" else 0
    assert (tested == 1).all()


def test_the_product_is_fitted_on_the_rows_of_the_split(tiny_store):
    rows = FeatureStore(tiny_store).read()
    for split in splits_of(rows.table, 1, 3, drop_subsystems=True)[:2]:
        head = split_head(tiny_store, rows, split)
        for mask, keys in (
            (split.fit, head.fit_compositions),
            (split.calibration, head.calibration_compositions),
        ):
            assert np.array_equal(composition_keys(rows.table["formula"][mask].tolist()), keys)


def test_subsystems_are_left_out_on_request(tiny_store):
    table = FeatureStore(tiny_store).read().table
    elements = [set(system.split("-")) for system in table["chemical_system"]]
    for split in splits_of(table, 0, 6, drop_subsystems=True):
        tested = [elements[i] for i in np.flatnonzero(split.test)]
        used = [elements[i] for i in np.flatnonzero(split.fit | split.calibration)]
        assert not any(one <= other for one in used for other in tested)
        assert used


def test_few_systems_are_left_out_one_at_a_time():
    table = pd.DataFrame(
        {"formula": ["Li", "LiO", "Li2O", "Na"], "chemical_system": ["Li", "Li-O", "Li-O", "Na"]}
    )
    splits = splits_of(table, 0, 10)
    assert [table["chemical_system"][split.test].unique().tolist() for split in splits] == [
        ["Li"],
        ["Li-O"],
        ["Na"],
    ]


def test_the_test_rows_can_be_restricted_to_compositions(tiny_store, tiny_model_folder, tmp_path):
    table = FeatureStore(tiny_store).read().table
    keys = composition_keys([f for f in table["formula"] if int(composition_key(f)) % 2])
    options = {"n_splits": 1, "methods": ("llpr",)}
    some = run(tiny_store, tiny_model_folder, tmp_path / "some", test_keys=keys, **options)
    _, split, _ = split_rows(tiny_store)
    wanted = compositions_in(table["formula"].tolist(), keys)
    assert some.splits["n_test"].unique().tolist() == [(split.test & wanted).sum()]
    assert some.splits["n_fit"].unique().tolist() == [split.fit.sum()]
    with pytest.raises(HeadError, match="leave none to test on"):
        run(
            tiny_store,
            tiny_model_folder,
            tmp_path / "none",
            test_keys=np.array([1], dtype=np.uint64),
            **options,
        )
