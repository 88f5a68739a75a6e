"""Crystals to the batched graph that mace's forward takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from mace_bounds.structures import Crystal


@dataclass(frozen=True, eq=False)
class Graph:
    """One crystal and its directed edges within the cutoff.

    Attributes
    ----------
    crystal : Crystal
    edge_index : ndarray of int64, shape (2, n_edges)
        Sender and receiver of each edge.
    unit_shifts : ndarray of float64, shape (n_edges, 3)
        Lattice translation of the receiver, in units of the cell vectors.
    """

    crystal: Crystal
    edge_index: NDArray[np.int64]
    unit_shifts: NDArray[np.float64]


def build_graph(crystal: Crystal, cutoff: float) -> Graph:
    """Periodic neighbour list within ``cutoff`` Å, each atom's own images included (matscipy)."""
    from matscipy.neighbours import neighbour_list

    senders, receivers, shifts = neighbour_list(
        "ijS", pbc=[True] * 3, cell=crystal.cell, positions=crystal.positions, cutoff=cutoff
    )
    edges = np.stack([senders, receivers]).astype(np.int64)
    return Graph(crystal, edges, shifts.astype(np.float64))


def pack(graphs: Iterable[Graph], max_edges: int) -> Iterator[list[Graph]]:
    """Cut a sequence into runs of at most ``max_edges`` edges; a larger graph stands alone."""
    batch: list[Graph] = []
    edges = 0
    for graph in graphs:
        size = graph.edge_index.shape[1]
        if batch and edges + size > max_edges:
            yield batch
            batch, edges = [], 0
        batch.append(graph)
        edges += size
    if batch:
        yield batch


def collate(
    graphs: Sequence[Graph], atomic_numbers: Sequence[int], head: int, dtype: torch.dtype, device: str
) -> dict[str, torch.Tensor]:
    """Join graphs into the dictionary that mace's forward takes (``mace.data.AtomicData`` batched)."""
    import torch

    sizes = [len(g.crystal.numbers) for g in graphs]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    position = np.full(max(atomic_numbers) + 1, -1)
    position[list(atomic_numbers)] = np.arange(len(atomic_numbers))
    elements = torch.as_tensor(position[np.concatenate([g.crystal.numbers for g in graphs])])
    unit_shifts = np.concatenate([g.unit_shifts for g in graphs])
    shifts = np.concatenate([g.unit_shifts @ g.crystal.cell for g in graphs])
    floats = {
        "positions": np.concatenate([g.crystal.positions for g in graphs]),
        "shifts": shifts,
        "unit_shifts": unit_shifts,
        "cell": np.concatenate([g.crystal.cell for g in graphs]),
    }
    data = {key: torch.as_tensor(value, dtype=dtype, device=device) for key, value in floats.items()}
    data["node_attrs"] = torch.nn.functional.one_hot(elements, len(atomic_numbers)).to(device, dtype)
    data["edge_index"] = torch.as_tensor(
        np.concatenate([g.edge_index + o for g, o in zip(graphs, offsets, strict=False)], axis=1),
        device=device,
    )
    data["batch"] = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(sizes)).to(device)
    data["ptr"] = torch.as_tensor(offsets, device=device)
    data["head"] = torch.full((len(graphs),), head, dtype=torch.int64, device=device)
    return data
