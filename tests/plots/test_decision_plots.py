"""Plots of decisions: what stands where."""

import numpy as np
import pandas as pd
import pytest

from mace_bounds.plots import (
    plot_binary_hull,
    plot_hull_distances,
    plot_phase_diagram,
    plot_probability_reliability,
    plot_ternary_hull,
)


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


SHARES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [0.5, 0.25, 0.25]])


def test_distances_in_a_ternary_diagram_are_those_of_pymatgen():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    random = np.random.default_rng(4)
    shares = np.concatenate([SHARES, random.dirichlet(np.ones(3), 12)])
    energy = np.concatenate([[0, 0, 0, -0.6, -0.2, -0.3], random.uniform(-0.5, 0.3, 12)])
    entries = [
        PDEntry(Composition(dict(zip(("Li", "Fe", "O"), 8 * f, strict=True))), 8 * e)
        for f, e in zip(shares, energy, strict=True)
    ]
    diagram = PhaseDiagram(entries)
    expected = [1000 * diagram.get_e_above_hull(entry) for entry in entries]
    p = np.linspace(1, 0, len(energy))
    ax = plot_ternary_hull(shares, energy, p, ("Li", "Fe", "O"))
    points = ax.collections[0]
    order = np.argsort(-p, kind="stable")[::-1]
    np.testing.assert_allclose(points.get_array(), np.clip(expected, 0, 200)[order], atol=1e-6)
    np.testing.assert_allclose(np.sort(points.get_alpha()), np.linspace(0.15, 1, len(p)))
    place = np.column_stack([shares[:, 1] + shares[:, 2] / 2, np.sqrt(0.75) * shares[:, 2]])[order]
    np.testing.assert_allclose(points.get_offsets(), place, atol=1e-12)
    stable = len(diagram.stable_entries)
    corners = {tuple(np.round(end, 9)) for line in ax.lines for end in line.get_xydata()}
    assert len(corners) == stable


def tables(formulas, energies, std):
    phases = pd.DataFrame({"id": formulas, "formula": formulas, "energy_ev_per_atom": energies})
    table = phases.assign(
        std_energy_ev_per_atom=std, std_ev_per_atom=std, e_above_hull_ev_per_atom=0.0, reason=None
    )
    return table, phases.assign(std_ev_per_atom=0.0)


def test_a_phase_diagram_of_tables():
    table, phases = tables(["Li", "O2", "Li2O", "LiO3"], [-2.0, -5.0, -4.5, -3.0], 0.1)
    ax = plot_phase_diagram(table, phases)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [1 / 3, -1.5], [1, 0]], atol=1e-12)
    bars = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(bars, [[0, 0], [1, 0], [1 / 3, -1.5], [0.75, 1.25]], atol=1e-12)
    table, phases = tables(["Li", "O2", "Fe", "LiFeO2"], [-2.0, -5.0, -8.0, -6.5], 0.1)
    ax = plot_phase_diagram(table, phases)
    assert {"Fe", "Li", "O"} <= {text.get_text() for text in ax.texts}
    assert any("LiFeO2" in text.get_text() and "± 100" in text.get_text() for text in ax.texts)


def test_a_phase_diagram_needs_a_phase_of_each_element():
    for formulas, why in (
        (["Li", "Li2O"], "none is of O alone"),
        (["Li"], "two or three elements, and this has 1"),
        (["Li", "O2", "Fe", "P", "LiFePO4"], "two or three elements, and this has 4"),
    ):
        with pytest.raises(ValueError, match=why):
            plot_phase_diagram(*tables(formulas, [-1.0] * len(formulas), 0.1))
