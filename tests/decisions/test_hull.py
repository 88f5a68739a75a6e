"""Hulls of many draws: the same distances as pymatgen's phase diagrams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition, Element
from pymatgen.entries.computed_entries import ComputedEntry

from mace_bounds.decisions import cheapest_mixtures, hull_distances
from mace_bounds.decisions.hull import _by_highs


def fractions_of(formulas):
    out = np.zeros((len(formulas), 118))
    for row, formula in zip(out, formulas, strict=True):
        for element, share in Composition(formula).fractional_composition.items():
            row[Element(str(element)).Z - 1] = share
    return out


def made_entries(seed, elements="Li Fe O", n=15):
    random = np.random.default_rng(seed)
    symbols = elements.split()
    formulas = [*symbols, *symbols[:1]]
    for _ in range(n):
        counts = random.integers(0, 5, len(symbols))
        counts[random.integers(len(symbols))] += 1
        formulas.append("".join(f"{s}{c}" for s, c in zip(symbols, counts, strict=True) if c))
    return formulas, random.normal(-2, 0.5, len(formulas))


@given(st.integers(0, 10**6), st.sampled_from(["Li O", "Li Fe O", "Li Fe P O", "Li Na Fe P O"]))
@settings(max_examples=6, deadline=None)
def test_distances_are_those_of_pymatgen(seed, elements):
    formulas, energies = made_entries(seed, elements)
    entries = [
        ComputedEntry(f, e * Composition(f).num_atoms) for f, e in zip(formulas, energies, strict=True)
    ]
    diagram = PhaseDiagram(entries)
    x = fractions_of(formulas)
    found = hull_distances(x, energies[None], x, energies[None], np.arange(len(x))).distance[0]
    expected = [diagram.get_e_above_hull(entry) for entry in entries]
    np.testing.assert_allclose(np.maximum(found, 0), expected, atol=1e-9)
    stable = [
        k for k, entry in enumerate(entries) if entry in diagram.stable_entries and not entry.is_element
    ]
    for k in stable[:1]:
        others = PhaseDiagram([entry for j, entry in enumerate(entries) if j != k])
        assert found[k] == pytest.approx(others.get_e_above_hull(entries[k], allow_negative=True), abs=1e-9)


def test_every_draw_has_its_own_hull():
    formulas, energies = made_entries(3, "Li Fe P O", 40)
    x = fractions_of(formulas)
    draws = energies + np.random.default_rng(0).normal(0, 0.3, (50, len(x)))
    together = hull_distances(x, draws, x, draws, np.arange(len(x)))
    for d in (0, 17, 49):
        alone = hull_distances(x, draws[d : d + 1], x, draws[d : d + 1], np.arange(len(x)))
        np.testing.assert_allclose(together.distance[d], alone.distance[0], atol=1e-12)
    for c in range(len(x)):
        if np.count_nonzero(x[c]) == 1:
            continue  # an element may be its own reference
        shares, phases = together.shares[c], together.phases[c]
        np.testing.assert_allclose(
            np.einsum("nd,nde->ne", shares, x[phases]), np.broadcast_to(x[c], (50, 118)), atol=1e-9
        )
        assert not (phases[shares > 0] == c).any()
        mixed = np.take_along_axis(draws, np.maximum(phases, 0), axis=1)
        np.testing.assert_allclose(
            draws[:, c] - (shares * mixed).sum(axis=1), together.distance[:, c], atol=1e-9
        )


def test_highs_finds_the_same_mixture():
    formulas, energies = made_entries(5)
    x = fractions_of(formulas)
    elements = np.flatnonzero(x.sum(axis=0))
    parts, costs = np.concatenate([x[:, elements], np.eye(3)]), np.concatenate([energies, np.full(3, 1e4)])
    target = x[10]
    basis = _by_highs(np.arange(len(x), len(x) + 3), target[elements], parts, costs)
    shares = np.linalg.solve(parts[basis].T, target[elements])
    expected = cheapest_mixtures(target, x, energies[None]).energy[0]
    assert shares @ costs[basis] == pytest.approx(expected, abs=1e-9)


def test_a_composition_that_no_phases_have_has_no_distance():
    x = fractions_of(["Li", "Li2O", "Fe2O3"])
    found = hull_distances(x[2:], np.zeros((1, 1)), x[:2], np.zeros((1, 2)), np.array([-1]))
    assert np.isnan(found.distance).all()
    assert (found.phases[0] == -1).all()
