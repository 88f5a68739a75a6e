"""Crystals to CHGNet's graph: pairs within 6 Å, and angles between bonds of less than 3 Å at one atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones.graph import Graph, build_graph
from mace_bounds.errors import StructureError
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    import torch

CUTOFF_A, BOND_CUTOFF_A = 6.0, 3.0
MAX_ANGLES = 5_000_000  # of one crystal; a cell of 500 atoms at usual densities has a hundred thousand


@dataclass(frozen=True, eq=False)
class AngleGraph:
    """Pairs of one crystal, and its angles.

    A pair is two directed edges: ``p`` from its first atom, and ``n_pairs + p`` from its second.
    """

    graph: Graph
    vectors: NDArray[np.float64]  # shape (n_pairs, 3): from the second atom to the first, Å
    angles: NDArray[np.int64]  # shape (2, n_angles): two different short edges from one atom, in either order

    @property
    def n_atoms(self) -> int:
        """Atoms of the crystal."""
        return self.graph.n_atoms

    @property
    def n_edges(self) -> int:
        """Directed edges within the cutoff, and angles: what a graph takes to keep."""
        return self.graph.n_edges + self.n_angles

    @property
    def n_angles(self) -> int:
        """Ordered pairs of short edges that start at one atom."""
        return int(self.angles.shape[1])


def build_angle_graph(crystal: Crystal) -> AngleGraph:
    """Graph of a crystal.

    Raises
    ------
    StructureError
        If an atom has no neighbour within the cutoff, or atoms are so close that there are more than
        :data:`MAX_ANGLES` angles.
    """
    graph = build_graph(crystal, CUTOFF_A)
    first, second = graph.pairs
    alone = graph.n_atoms - len(np.union1d(first, second))
    if alone:
        raise StructureError(
            f"{alone} of {graph.n_atoms} atoms have no neighbour within {CUTOFF_A:g} Å, and CHGNet has no energy of "
            "isolated atoms; check the geometry, or use another model."
        )
    vectors = graph.positions[first] - graph.positions[second] + graph.shifts
    short = np.flatnonzero((vectors**2).sum(axis=1) < BOND_CUTOFF_A**2)
    edges = np.concatenate([short, short + len(first)])
    centres = np.concatenate([first[short], second[short]])
    edges = edges[np.argsort(centres, kind="stable")]
    counts = np.bincount(centres, minlength=graph.n_atoms)
    n_angles = int((counts * (counts - 1)).sum())
    if n_angles > MAX_ANGLES:
        raise StructureError(
            f"{n_angles:,} angles between bonds of less than {BOND_CUTOFF_A:g} Å are more than the {MAX_ANGLES:,} that "
            "CHGNet can be run with here; check the geometry, or give a smaller cell."
        )
    return AngleGraph(graph, vectors, edges[_ordered_pairs(counts)])


def _ordered_pairs(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of two different things of one group, shape (2, n); groups of these sizes lie one after the other."""
    start = np.repeat(np.cumsum(counts) - counts, counts)  # of the group, for every thing
    size = np.repeat(counts, counts)
    left = np.repeat(np.arange(len(size)), size)
    right = np.arange(len(left)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(start, size)
    return np.stack([left, right])[:, left != right]


@dataclass(frozen=True, eq=False)
class AngleBatch:
    """Several graphs joined into one, as tensors on one device; directed edges as in :class:`AngleGraph`."""

    numbers: torch.Tensor  # shape (n_atoms,): atomic numbers
    crystal_of_atom: torch.Tensor  # shape (n_atoms,)
    centre: torch.Tensor  # shape (2 n_pairs,): the atom at which a directed edge starts
    neighbour: torch.Tensor  # shape (2 n_pairs,)
    vectors: torch.Tensor  # shape (n_pairs, 3): Å, float64
    left: torch.Tensor  # shape (n_angles,): directed edge
    right: torch.Tensor  # shape (n_angles,)
    n_crystals: int


def batch_angle_graphs(graphs: Sequence[AngleGraph], device: str) -> AngleBatch:
    """Join graphs."""
    import torch

    n_atoms = np.array([g.n_atoms for g in graphs])
    n_pairs = np.array([len(g.vectors) for g in graphs])
    first_atom, first_pair = np.cumsum(n_atoms) - n_atoms, np.cumsum(n_pairs) - n_pairs
    total = int(n_pairs.sum())
    pairs = np.concatenate([g.graph.pairs + at for g, at in zip(graphs, first_atom, strict=True)], axis=1)
    # an edge from the second atom comes after all pairs, now of all graphs
    angles = np.concatenate(
        [
            np.where(g.angles < n, g.angles + at, g.angles - n + total + at)
            for g, n, at in zip(graphs, n_pairs, first_pair, strict=True)
        ],
        axis=1,
    )

    def tensor(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return AngleBatch(
        numbers=tensor(np.concatenate([g.graph.numbers for g in graphs])),
        crystal_of_atom=tensor(np.repeat(np.arange(len(graphs)), n_atoms)),
        centre=tensor(pairs.reshape(-1)),
        neighbour=tensor(pairs[::-1].reshape(-1)),
        vectors=tensor(np.concatenate([g.vectors for g in graphs])),
        left=tensor(angles[0]),
        right=tensor(angles[1]),
        n_crystals=len(graphs),
    )
