"""Neighbour lists: the edges of ase, in any cell of the same lattice."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.hard_cells import HARD_CELLS, crystal
from helpers.mace_builds import real_crystals
from mace_bounds.backbones.graph import MAX_CUBES, Graph, build_graph
from mace_bounds.structures import Crystal

CRYSTALS = HARD_CELLS | {f"crystal {k}": c for k, c in enumerate(real_crystals(8))}
UNIMODULAR = np.array([[1, 7, -3], [0, 1, 11], [0, 0, 1]])


def edges(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sender, receiver and vector of every edge: both directions of each pair."""
    first, second = graph.pairs
    vector = graph.positions[first] - graph.positions[second] + graph.shifts
    return (
        np.concatenate([second, first]),
        np.concatenate([first, second]),
        np.concatenate([vector, -vector]),
    )


def edge_set(crystal: Crystal, i: np.ndarray, j: np.ndarray, towards: np.ndarray) -> set[tuple[int, ...]]:
    """Sender, receiver and lattice translation of every edge; each must be there once."""
    translations = (towards - crystal.positions[j] + crystal.positions[i]) @ np.linalg.inv(crystal.cell)
    assert np.abs(translations - np.rint(translations)).max(initial=0.0) < 1e-7
    rows = np.column_stack([i, j, np.rint(translations)]).astype(int).tolist()
    edges = {(*row,) for row in rows}
    assert len(edges) == len(rows)
    return edges


@pytest.mark.parametrize("cutoff", [0.7, 2.5, 5.0, 6.0])
@pytest.mark.parametrize("name", CRYSTALS)
def test_edges_are_those_of_ase(name, cutoff):
    crystal = CRYSTALS[name]
    i, j, towards = neighbor_list("ijD", crystal.to_atoms(), cutoff)
    graph = build_graph(crystal, cutoff)
    assert edge_set(crystal, *edges(graph)) == edge_set(crystal, i, j, towards)


@pytest.mark.parametrize("name", CRYSTALS)
def test_pairs_are_sorted_by_their_first_atom_which_is_the_later_one(name):
    graph = build_graph(CRYSTALS[name], 5.0)
    first, second = graph.pairs
    assert (np.diff(first) >= 0).all()
    assert (second <= first).all()
    assert (np.linalg.norm(graph.shifts[first == second], axis=1) > 0.5).all()
    assert graph.pairs.flags.c_contiguous
    assert graph.shifts.flags.c_contiguous


def test_an_isolated_atom_has_no_edges():
    graph = build_graph(Crystal(np.array([3]), np.zeros((1, 3)), 30 * np.eye(3)), 5.0)
    assert graph.pairs.shape == (2, 0)
    assert graph.shifts.shape == (0, 3)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.lists(st.integers(-9, 9), min_size=3, max_size=3),
    st.floats(-40.0, 40.0),
)
def test_any_cell_of_the_lattice_and_any_origin_gives_the_same_lengths(seed, n, steps, move):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.0, 7.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    assume(abs(np.linalg.det(cell)) > 4.0)
    first = Crystal(np.ones(n), rng.random((n, 3)) @ cell, cell)
    skew = np.array([[1, steps[0], steps[1]], [0, 1, steps[2]], [0, 0, 1]])
    wraps = rng.integers(-5, 6, (n, 3)) @ cell
    second = Crystal(np.ones(n), first.positions + wraps + move, skew @ cell)
    lengths = [np.sort(np.linalg.norm(edges(build_graph(c, 4.5))[2], axis=1)) for c in (first, second)]
    inner = [values[values < 4.5 - 1e-9] for values in lengths]
    assert np.allclose(*inner, rtol=0, atol=1e-9)


def test_a_needle_of_a_cell_takes_no_longer_than_a_cube():
    cube = crystal([4.0, 4.1, 4.2], 3)
    needle = Crystal(cube.numbers, cube.positions, np.linalg.matrix_power(UNIMODULAR, 2) @ cube.cell)
    start = time.perf_counter()
    graph = build_graph(needle, 6.0)
    assert time.perf_counter() - start < 0.5  # minutes where images of the given cell are counted
    assert graph.n_edges == build_graph(cube, 6.0).n_edges


def test_atoms_in_a_huge_box():
    spread = crystal([900.0, 900.0, 900.0], 40)
    pair = Crystal(np.ones(2), np.array([[1.0, 1.0, 1.0], [999.0, 1.0, 1.0]]), 1000.0 * np.eye(3))
    assert MAX_CUBES < (1000.0 / 6.0) ** 3
    assert build_graph(spread, 6.0).n_edges == 0
    graph = build_graph(pair, 6.0)
    assert np.allclose(np.linalg.norm(edges(graph)[2], axis=1), [2.0, 2.0])
