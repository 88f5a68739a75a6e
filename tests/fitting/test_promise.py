"""What cards and screens say of sources left out and of flagged rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mace_bounds.fitting import Measured, sources_left_out
from mace_bounds.fitting.promise import flagged_coverage, left_out_sentence
from mace_bounds.fitting.text_tables import flagged_and_others
from mace_bounds.levels import Levels

STUDY = {
    "guarantee": "every-source",
    "why": "",
    "left_out": [
        {
            "source": name,
            "n": n,
            "coverage": {"0.9": 0.9125, "0.95": share},
            "median_width_mev_per_atom": 520.9,
            "interval_score_mev_per_atom": score,
            "constant_score_mev_per_atom": 1000.0,
        }
        for name, n, share, score in (("WBM", 1768, 0.9401, 900.0), ("MPtrj", 209, 0.9234, 500.0))
    ],
}


def test_the_table_has_a_line_for_each_source_and_one_for_their_mean():
    assert sources_left_out({"sources_left_out": STUDY}).rows == [
        ("WBM", "1,768", "91.2 % at 90 %, 94.0 % at 95 %", "521", "0.90"),
        ("MPtrj", "209", "91.2 % at 90 %, 92.3 % at 95 %", "521", "0.50"),
        ("mean over sources", "1,977", "", "", "0.70"),
    ]
    assert sources_left_out({}).rows == sources_left_out({"sources_left_out": {"left_out": []}}).rows == []
    assert "kind and power" in left_out_sentence({"sources_left_out": STUDY})


def test_flagged_rows_are_counted_by_source():
    table = pd.DataFrame(
        {
            "source": ["a", "a", "a", "b", None],
            "flags": ["extrapolates", "", "in_training", "unseen_pair;in_training", None],
            "error_mev_per_atom": [9.0, 1.0, 9.0, 1.0, 1.0],
            "lower_95_mev_per_atom": -5.0,
            "upper_95_mev_per_atom": 5.0,
        }
    )
    rows = flagged_coverage([Measured(table, Levels((0.95,)))], 0.95)
    assert flagged_and_others(rows).rows == [
        ("", "0", "", "1", "100.0 %"),
        ("a", "1", "0.0 %", "2", "50.0 %"),
        ("b", "1", "100.0 %", "0", ""),
        ("all", "2", "50.0 %", "3", "66.7 %"),
    ]
    assert np.isclose(sum(row["n_flagged"] + row["n_others"] for row in rows[:-1]), 5)
