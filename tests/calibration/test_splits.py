import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mace_bounds.calibration import assign_splits, group_folds
from mace_bounds.errors import HeadError
from mace_bounds.structures import composition_key, composition_keys, compositions_in

FORMULAS = [f"Li{i}Fe{j}O{i + j}" for i in range(1, 60) for j in range(1, 60)]
SHARES = {"fit": 0.6, "calibrate": 0.25, "test": 0.15}


def test_a_group_goes_where_its_hash_falls():
    # computed here from the definition, not with the package's helper
    expected = []
    for group in ("NaCl", "Fe2O3", "LiFePO4", "Si"):
        u = int(hashlib.sha256(f"7:{group}".encode()).hexdigest()[:16], 16) / 2**64
        expected.append("fit" if u < 0.6 else "calibrate" if u < 0.85 else "test")
    assert assign_splits(["NaCl", "Fe2O3", "LiFePO4", "Si"], SHARES, 7).tolist() == expected


def test_shares_hold_within_binomial_error():
    split = assign_splits(FORMULAS, SHARES, 0)
    for name, share in SHARES.items():
        error = np.sqrt(share * (1 - share) / len(FORMULAS))
        assert abs(np.mean(split == name) - share) < 4 * error


def test_a_zero_share_gets_nothing():
    assert set(assign_splits(FORMULAS, {"fit": 1.0, "test": 0.0}, 3)) == {"fit"}


@given(st.lists(st.sampled_from(FORMULAS[:50]), min_size=1), st.integers(0, 5), st.randoms())
def test_no_group_straddles_and_order_and_growth_do_not_matter(groups, seed, random):
    split = assign_splits(groups, SHARES, seed)
    home = dict(zip(groups, split, strict=True))
    assert all(home[group] == name for group, name in zip(groups, split, strict=True))
    more = [*groups, *FORMULAS[50:80]]
    random.shuffle(more)
    again = dict(zip(more, assign_splits(more, SHARES, seed), strict=True))
    assert all(again[group] == home[group] for group in groups)


def test_folds_keep_groups_together_and_fill_evenly():
    folds = group_folds(FORMULAS * 2, 5, 1)
    np.testing.assert_array_equal(folds[: len(FORMULAS)], folds[len(FORMULAS) :])
    counts = np.bincount(folds, minlength=5)
    assert counts.size == 5
    assert counts.min() > 0.17 * len(folds)


def test_folds_and_splits_of_one_seed_are_independent():
    in_test = assign_splits(FORMULAS, {"fit": 0.5, "test": 0.5}, 0) == "test"
    low_fold = group_folds(FORMULAS, 2, 0) == 0
    assert abs(np.corrcoef(in_test, low_fold)[0, 1]) < 4 / np.sqrt(len(FORMULAS))


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}])
def test_bad_shares_are_refused(shares):
    with pytest.raises(HeadError, match="sum to 1"):
        assign_splits(["NaCl"], shares, 0)


def test_one_fold_is_refused():
    with pytest.raises(HeadError, match="1 folds are too few"):
        group_folds(["NaCl"], 1, 0)


def test_composition_keys_are_the_first_eight_bytes_of_sha256():
    # sha256sum of "abc" is FIPS 180's example ba7816bf 8f01cfea ...
    assert composition_key("abc") == 0xBA7816BF8F01CFEA
    keys = composition_keys(["abc", "NaCl", "abc"])
    assert keys.dtype == np.uint64
    assert keys.size == 2
    assert composition_key("abc") in keys


def test_formulas_are_found_among_keys_in_their_own_order():
    keys = composition_keys(["NaCl", "MgO"])
    assert compositions_in(["MgO", "KCl", "NaCl", "MgO"], keys).tolist() == [True, False, True, True]
    assert compositions_in(["MgO", "KCl"], None).tolist() == [False, False]
    assert compositions_in([], keys).size == 0
