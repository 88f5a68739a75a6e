"""Neighbour lists and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from mace_builds import real_crystals

from mace_bounds.features._graph import Graph, build_graph, collate, pack
from mace_bounds.structures import Crystal


@pytest.mark.parametrize("cutoff", [2.5, 5.0])
def test_edges_are_those_of_ase(cutoff):
    for crystal in real_crystals(8):
        graph = build_graph(crystal, cutoff)
        i, j, shift = neighbor_list("ijS", crystal.to_atoms(), cutoff)
        wanted = sorted(zip(i, j, *shift.T, strict=True))
        got = sorted(zip(*graph.edge_index, *graph.unit_shifts.astype(int).T, strict=True))
        assert got == wanted


def test_an_isolated_atom_has_no_edges():
    graph = build_graph(Crystal(np.array([3]), np.zeros((1, 3)), 30 * np.eye(3)), 5.0)
    assert graph.edge_index.shape == (2, 0)
    assert graph.unit_shifts.shape == (0, 3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 60))
def test_pack_keeps_order_and_limit(sizes, limit):
    crystal = Crystal(np.array([1]), np.zeros((1, 3)), np.eye(3))
    graphs = [Graph(crystal, np.zeros((2, n), dtype=np.int64), np.zeros((n, 3))) for n in sizes]
    batches = list(pack(graphs, limit))
    assert [g for batch in batches for g in batch] == graphs
    assert all(len(b) == 1 or sum(g.edge_index.shape[1] for g in b) <= limit for b in batches)


def test_collate_offsets_and_shifts():
    crystals = real_crystals(3)
    graphs = [build_graph(c, 4.0) for c in crystals]
    data = collate(graphs, list(range(1, 95)), 1, torch.float64, "cpu")
    assert data["ptr"].tolist() == np.cumsum([0, *(len(c.numbers) for c in crystals)]).tolist()
    assert data["head"].tolist() == [1, 1, 1]
    numbers = data["node_attrs"].argmax(1).numpy() + 1
    assert numbers.tolist() == [z for c in crystals for z in c.numbers]
    sender, receiver = data["edge_index"]
    assert torch.equal(data["batch"][sender], data["batch"][receiver])
    lengths = (data["positions"][receiver] - data["positions"][sender] + data["shifts"]).norm(dim=1)
    assert float(lengths.max()) <= 4.0
