"""Tables of a comparison from records of splits, by hand."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.benchmark.folder import against_product
from mace_bounds.benchmark.metrics import (
    MIN_STRUCTURES_OF_WORST,
    RATIO,
    flag_table,
    group_table,
    method_table,
)


def record(split, source_hits):
    """Record of a split with given hits of 95 % intervals: {source: (n, hits)}."""
    groups = {"source": {k: [n, h, 10.0 * n, 20.0 * n] for k, (n, h) in source_hits.items()}}
    n, h = np.sum(list(source_hits.values()), axis=0)
    groups |= {"all": {"all": [int(n), float(h), 10.0 * n, 20.0 * n]}}
    groups |= {"flag": {"any": [10, 4.0, 100.0, 200.0]}}
    metrics = {"coverage_95": h / n, "interval_score_95_mev_per_atom": 20.0}
    found = {"metrics": metrics, "groups": groups, "n_bytes": 8, "reason": None}
    return {"split": split, "kind": "composition", "methods": {"constant": found}}


def test_the_worst_group_needs_enough_different_structures():
    records = [
        record("a", {"big": (100, 96), "small": (50, 10)}),
        record("b", {"big": (100, 90), "small": (50, 10)}),
    ]
    distinct = {
        ("composition", "source", "big"): MIN_STRUCTURES_OF_WORST,
        ("composition", "source", "small"): 99,
    }
    groups = group_table(records, distinct, [0.95])
    assert groups.set_index(["by", "group"]).loc[("source", "big"), "coverage_95"] == pytest.approx(0.93)
    assert groups.set_index(["by", "group"]).loc[("source", "small"), "coverage_95"] == pytest.approx(0.2)
    splits = pd.DataFrame(
        {
            "split": ["a", "b"],
            "kind": "composition",
            "method": "constant",
            "n_test": 150,
            "n_bytes": 8,
            "reason": None,
        }
        | {"interval_score_ratio": [1.0, 1.0]}
    )
    table = method_table(splits, groups)
    assert (table.loc[0, "worst_source"], table.loc[0, "worst_source_structures"]) == (
        "big",
        MIN_STRUCTURES_OF_WORST,
    )


def test_flags_are_judged_by_the_misses_they_hold():
    groups = group_table([record("a", {"one": (100, 90)})], {}, [0.95])
    row = flag_table(groups).iloc[0]
    assert row["share_flagged"] == pytest.approx(0.1)  # 10 of 100, of which 4 are hit: 6 of the 10 misses
    assert row["share_of_misses_flagged"] == pytest.approx(0.6)
    assert row["coverage_95_flagged"] == pytest.approx(0.4)
    assert row["coverage_95_unflagged"] == pytest.approx(86 / 90)


def test_what_may_be_chance_is_not_distinguishable():
    """The corrected t-test by hand: n = 4, 20 of 80 rows tested, so that |mean| > 3.182 sd sqrt(1/4 + 1/3) counts."""
    product = np.array([0.8, 0.9, 1.0, 0.9])
    wobble = np.array([-1.0, 1.0, -1.0, 1.0]) * np.sqrt(3 / 4)  # sd 1
    limit = 3.182446 * np.sqrt(1 / 4 + 20 / 60)
    scores = {
        "mace_bounds": product,
        "llpr": product - 0.01 * (1.01 * limit + wobble),
        "quantile": product - 0.01 * (0.99 * limit + wobble),
        "constant": product + 0.1,
        "committee": np.array([np.nan, 0.9, np.nan, np.nan]),
    }
    rows = [(f"s{i}", method, x) for method, values in scores.items() for i, x in enumerate(values)]
    table = pd.DataFrame(rows, columns=["split", "method", RATIO]).assign(
        n_fit=40, n_calibration=20, n_test=20
    )
    assert against_product(table) == {
        "llpr": "better",
        "quantile": "not distinguishable",
        "constant": "worse",
    }
    assert against_product(table[table["split"] == "s0"]) == {}
