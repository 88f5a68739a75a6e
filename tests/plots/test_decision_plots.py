"""Plots of decisions: what stands where."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.plots import plot_binary_hull, plot_hull_distances, plot_probability_reliability


def test_hull_distances_are_sorted_and_in_mev():
    table = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "formula": ["Li2O", "FeO", "LiFeO2"],
            "e_above_hull_ev_per_atom": [0.2, -0.01, np.nan],
            "lower_ev_per_atom": [0.1, -0.1, np.nan],
            "upper_ev_per_atom": [0.3, 0.1, np.nan],
            "p_stable": [0.0, 0.6, np.nan],
            "reason": [None, None, "no phases"],
        }
    )
    ax = plot_hull_distances(table)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["FeO  b", "Li2O  a"]
    np.testing.assert_allclose(ax.collections[-1].get_offsets()[:, 0], [-10.0, 200.0])
    assert plot_hull_distances(table, ax=ax) is ax


def test_the_binary_hull_goes_through_the_lowest_phases():
    share, energy = [0.5, 0.25, 0.5, 0.75], [-1.0, -0.2, -0.4, -0.6]
    ax = plot_binary_hull(share, energy, [0.1, 0.0, 0.1, 0.1], [0.9, 0.1, 0.0, 0.7], ("Li", "O"))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [0.5, -1.0], [0.75, -0.6], [1, 0]])
    assert "O in Li" in ax.get_xlabel()
    alone = plot_binary_hull([0.5], [0.3], [0.1], [0.0], ("Li", "O"))
    np.testing.assert_allclose(alone.lines[0].get_xydata(), [[0, 0], [1, 0]])


def test_reliability_counts():
    ax = plot_probability_reliability(
        [0.05, 0.05, 0.95, 0.95, 0.95, 0.95], [False, False, True, True, True, False]
    )
    assert [text.get_text() for text in ax.texts] == ["2", "4"]
    heights = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert heights == pytest.approx([0.0, 0.75])
