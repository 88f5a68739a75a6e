"""Crystals to the batched graph that a forward takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Graph:
    """One crystal and its directed edges within the cutoff, sorted by receiver.

    The vector of an edge is ``positions[receiver] - positions[sender] + shift``, as mace has it. Every edge has its
    reverse, with exactly the opposite shift; but where a length is the cutoff to round-off, one may be missing.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray of float64, shape (n_atoms, 3)
        Å, inside of a cell.
    edge_index : ndarray of int64, shape (2, n_edges)
        Sender and receiver of each edge.
    shifts : ndarray of float64, shape (n_edges, 3)
        Lattice translation in each edge's vector, Å.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    edge_index: NDArray[np.int64]
    shifts: NDArray[np.float64]

    @property
    def n_atoms(self) -> int:
        """Atoms of the crystal."""
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        """Directed edges within the cutoff."""
        return int(self.edge_index.shape[1])


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Several graphs joined into one without edges between them, as tensors on one device.

    Attributes
    ----------
    elements : tensor of int64, shape (n_atoms,)
        Place of each atom's element in the model's list.
    positions : tensor of float64, shape (n_atoms, 3)
        Å.
    senders, receivers : tensor of int64, shape (n_edges,)
        Atoms of each edge; edges are sorted by receiver.
    shifts : tensor of float64, shape (n_edges, 3)
        Lattice translation of each edge, Å: its vector is ``positions[receiver] - positions[sender] + shift``.
    row_starts : tensor of int64, shape (n_atoms + 1,)
        Edges ``row_starts[i]`` to ``row_starts[i + 1]`` end at atom i.
    crystal_of_atom : tensor of int64, shape (n_atoms,)
    n_crystals : int
    """

    elements: torch.Tensor
    positions: torch.Tensor
    senders: torch.Tensor
    receivers: torch.Tensor
    shifts: torch.Tensor
    row_starts: torch.Tensor
    crystal_of_atom: torch.Tensor
    n_crystals: int


def batch_graphs(graphs: Sequence[Graph], atomic_numbers: Sequence[int], device: str = "cpu") -> GraphBatch:
    """Join graphs; ``atomic_numbers`` is the model's list of elements, which must know every atom."""
    import torch

    sizes = np.array([g.n_atoms for g in graphs])
    first_atoms = np.cumsum(sizes) - sizes
    place = np.full(max(atomic_numbers) + 1, -1)
    place[list(atomic_numbers)] = np.arange(len(atomic_numbers))
    edges = np.concatenate([g.edge_index for g in graphs], axis=1)
    edges += np.repeat(first_atoms, [g.n_edges for g in graphs])
    row_starts = np.zeros(sizes.sum() + 1, dtype=np.int64)
    np.cumsum(np.bincount(edges[1], minlength=len(row_starts) - 1), out=row_starts[1:])

    def tensor(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return GraphBatch(
        elements=tensor(place[np.concatenate([g.numbers for g in graphs])]),
        positions=tensor(np.concatenate([g.positions for g in graphs])),
        senders=tensor(edges[0]),
        receivers=tensor(edges[1]),
        shifts=tensor(np.concatenate([g.shifts for g in graphs])),
        row_starts=tensor(row_starts),
        crystal_of_atom=tensor(np.repeat(np.arange(len(graphs)), sizes)),
        n_crystals=len(graphs),
    )


def mace_data(batch: GraphBatch, n_elements: int, head: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the dictionary that mace's own forward takes for energies (``mace.data.AtomicData`` batched)."""
    import torch

    counts = torch.bincount(batch.crystal_of_atom, minlength=batch.n_crystals)
    return {
        "positions": batch.positions.detach().to(dtype),  # mace marks its positions for gradients
        "shifts": batch.shifts.to(dtype),
        "edge_index": torch.stack([batch.senders, batch.receivers]),
        "node_attrs": torch.nn.functional.one_hot(batch.elements, n_elements).to(dtype),
        "batch": batch.crystal_of_atom,
        "ptr": torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        "head": torch.full_like(counts, head),
        # Looked up by mace, but in use for virials and stresses only.
        "cell": batch.positions.new_zeros((3 * batch.n_crystals, 3), dtype=dtype),
    }
