"""Crystals to their pairs of neighbours, and these to the batched graph that a forward takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.structures import reduced_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from mace_bounds.structures import Crystal


@dataclass(frozen=True, eq=False)
class Graph:
    """One crystal and its pairs of atoms within the cutoff, each pair once, in the order of their first atoms.

    The vector of a pair is ``positions[first] - positions[second] + shift``; the first atom is never the one that
    comes earlier in the crystal. A model that passes messages both ways has two edges for every pair.
    """

    numbers: NDArray[np.int64]  # shape (n_atoms,): atomic numbers
    positions: NDArray[np.float64]  # shape (n_atoms, 3): Å, inside of a cell
    pairs: NDArray[np.int64]  # shape (2, n_pairs): first and second atom of each pair
    shifts: NDArray[np.float64]  # shape (n_pairs, 3): lattice translation in each pair's vector, Å

    @property
    def n_atoms(self) -> int:
        """Atoms of the crystal."""
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        """Directed edges within the cutoff: two for every pair."""
        return 2 * int(self.pairs.shape[1])


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Several graphs joined into one without pairs between them, as tensors on one device."""

    elements: torch.Tensor  # shape (n_atoms,): place of each atom's element in the model's list
    positions: torch.Tensor  # shape (n_atoms, 3): Å
    # first, second, shape (n_pairs,): atoms of each pair, in the order of the first
    first: torch.Tensor
    second: torch.Tensor
    # shape (n_pairs, 3): lattice translation of each pair, Å: its vector is ``positions[first] -
    # positions[second] + shift``
    shifts: torch.Tensor
    crystal_of_atom: torch.Tensor  # shape (n_atoms,)
    n_crystals: int


def batch_graphs(graphs: Sequence[Graph], atomic_numbers: Sequence[int], device: str = "cpu") -> GraphBatch:
    """Join graphs; ``atomic_numbers`` is the model's list of elements, which must know every atom."""
    import torch

    sizes = np.array([g.n_atoms for g in graphs])
    first_atoms = np.cumsum(sizes) - sizes
    place = np.full(max(atomic_numbers) + 1, -1)
    place[list(atomic_numbers)] = np.arange(len(atomic_numbers))
    pairs = np.concatenate([g.pairs for g in graphs], axis=1)
    pairs += np.repeat(first_atoms, [g.pairs.shape[1] for g in graphs])

    def tensor(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return GraphBatch(
        elements=tensor(place[np.concatenate([g.numbers for g in graphs])]),
        positions=tensor(np.concatenate([g.positions for g in graphs])),
        first=tensor(pairs[0]),
        second=tensor(pairs[1]),
        shifts=tensor(np.concatenate([g.shifts for g in graphs])),
        crystal_of_atom=tensor(np.repeat(np.arange(len(graphs)), sizes)),
        n_crystals=len(graphs),
    )


def mace_data(batch: GraphBatch, n_elements: int, head: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the dictionary that mace's own forward takes for energies (``mace.data.AtomicData`` batched)."""
    import torch

    first, second = batch.first, batch.second
    counts = torch.bincount(batch.crystal_of_atom, minlength=batch.n_crystals)
    return {
        "positions": batch.positions.detach().to(dtype),  # mace marks its positions for gradients
        "shifts": torch.cat([batch.shifts, -batch.shifts]).to(dtype),
        "edge_index": torch.stack([torch.cat([second, first]), torch.cat([first, second])]),
        "node_attrs": torch.nn.functional.one_hot(batch.elements, n_elements).to(dtype),
        "batch": batch.crystal_of_atom,
        "ptr": torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        "head": torch.full_like(counts, head),
        # Looked up by mace, but in use for virials and stresses only.
        "cell": batch.positions.new_zeros((3 * batch.n_crystals, 3), dtype=dtype),
    }


MAX_CUBES = 100_000  # of the grid that pymatgen lays over the crystal, about 300 bytes each
_PERIODIC = np.ones(3, dtype=np.int64)
_ORDER = 2.0 ** np.array([0, 16, 32])  # of images: one that is not zero comes before or after its opposite


def build_graph(crystal: Crystal, cutoff: float) -> Graph:
    """Every pair of atoms closer than ``cutoff`` Å once, periodic images included, in the order of the first atoms.

    The search is done in the shortest cell of the lattice, with all atoms inside: its time and memory do not
    depend on how skewed the given cell is, or where the atoms lie.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cell = reduced_cell(crystal.cell)
    inside = crystal.positions - np.floor(crystal.positions @ np.linalg.inv(cell)) @ cell
    # Wide grids for huge cells: the radius is a lower limit of the width of a cube.
    extent = float(np.prod(np.abs(cell).sum(axis=0) + 2 * cutoff))
    first, second, images, _ = find_points_in_spheres(
        inside, inside, cutoff, _PERIODIC, cell, tol=0.0, min_r=(extent / MAX_CUBES) ** (1 / 3)
    )
    # Both directions are found. An atom pairs with half of its own images, and not with itself.
    once = np.flatnonzero((second < first) | ((second == first) & (images @ _ORDER > 0)))
    pairs = np.stack([first.take(once), second.take(once)])
    return Graph(crystal.numbers, inside, pairs, images.take(once, axis=0) @ -cell)
