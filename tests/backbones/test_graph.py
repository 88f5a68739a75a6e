"""Graphs joined to batches, and to what mace takes."""

from __future__ import annotations

import numpy as np
import torch

from helpers.mace_builds import real_crystals
from mace_bounds.backbones.graph import batch_graphs, build_graph
from mace_bounds.backbones.mace.checkpoint import mace_data
from mace_bounds.structures import Crystal

NUMBERS = [*range(94, 0, -1)]


def some_graphs():
    lonely = Crystal(np.array([18]), np.zeros((1, 3)), 30.0 * np.eye(3))
    return [build_graph(c, 4.0) for c in [*real_crystals(3), lonely, *real_crystals(5)[3:]]]


def test_a_batch_has_the_atoms_and_edges_of_its_graphs():
    graphs = some_graphs()
    batch = batch_graphs(graphs, NUMBERS)
    sizes = [g.n_atoms for g in graphs]
    assert batch.n_crystals == len(graphs)
    assert torch.bincount(batch.crystal_of_atom).tolist() == sizes
    assert [NUMBERS[e] for e in batch.elements] == [z for g in graphs for z in g.numbers]
    owner = batch.crystal_of_atom[batch.first]
    assert torch.equal(owner, batch.crystal_of_atom[batch.second])
    assert (2 * torch.bincount(owner, minlength=len(graphs))).tolist() == [g.n_edges for g in graphs]
    assert (batch.first.diff() >= 0).all()
    vectors = batch.positions[batch.first] - batch.positions[batch.second] + batch.shifts
    for k, graph in enumerate(graphs):
        first, second = graph.pairs
        wanted = graph.positions[first] - graph.positions[second] + graph.shifts
        assert np.array_equal(vectors[owner == k].numpy(), wanted)


def test_dtypes_and_layout():
    batch = batch_graphs(some_graphs(), NUMBERS)
    for name in ("elements", "first", "second", "crystal_of_atom"):
        assert getattr(batch, name).dtype == torch.int64
        assert getattr(batch, name).is_contiguous()
    for name in ("positions", "shifts"):
        assert getattr(batch, name).dtype == torch.float64
        assert getattr(batch, name).is_contiguous()


def test_data_for_mace():
    graphs = some_graphs()
    batch = batch_graphs(graphs, NUMBERS)
    data = mace_data(batch, len(NUMBERS), 1, torch.float32)
    assert data["ptr"].tolist() == np.cumsum([0, *(g.n_atoms for g in graphs)]).tolist()
    assert data["head"].tolist() == [1] * len(graphs)
    assert torch.equal(data["node_attrs"].argmax(1), batch.elements)
    assert data["node_attrs"].sum(1).tolist() == [1.0] * len(batch.elements)
    assert data["positions"].dtype == data["shifts"].dtype == torch.float32
    sender, receiver = data["edge_index"]
    lengths = (data["positions"][receiver] - data["positions"][sender] + data["shifts"]).norm(dim=1)
    assert float(lengths.max()) <= 4.0 + 1e-5
    assert torch.bincount(batch.crystal_of_atom[receiver], minlength=len(graphs)).tolist() == [
        g.n_edges for g in graphs
    ]
