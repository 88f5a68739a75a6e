"""Crystals to their pairs of neighbours, these to batched graphs, and batches that fill a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones.base import FeatureBlock
from mace_bounds.errors import ModelError
from mace_bounds.structures import Crystal, reduced_cell

if TYPE_CHECKING:
    import torch


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


T = TypeVar("T")


class Sized(Protocol):
    """What is counted of a graph."""

    @property
    def n_atoms(self) -> int:
        """Atoms of the crystal."""
        ...

    @property
    def n_edges(self) -> int:
        """Directed edges, and whatever takes as much memory as one."""
        ...


G = TypeVar("G", bound=Sized)
DTYPES = ("float32", "float64")
DEFAULT_MEMORY_BYTES = {"cpu": 256 * 2**20, "cuda": 8 * 2**30}
WAITING_SHARE = 0.25  # of the memory may be held by graphs that wait for their batch
GRAPH_BYTES_PER_EDGE = 40


@dataclass(frozen=True)
class MemoryCost:
    """What a forward takes for a batch: the base, and so much for every atom and every edge."""

    per_atom_bytes: float
    per_edge_bytes: float
    base_bytes: float = 0.0

    def of(self, graph: Sized) -> float:
        """Bytes that a graph adds to its batch."""
        return self.per_atom_bytes * graph.n_atoms + self.per_edge_bytes * graph.n_edges


def pack(sizes: Sequence[float], capacity: float) -> list[list[int]]:
    """Place things in bins, the largest first, each in the first bin with room for it.

    ``capacity``: of every bin; what is larger gets a bin of its own.
    Returns the things in every bin, in increasing order.
    """
    bins: list[list[int]] = []
    room: list[float] = []
    for thing in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[thing]
        place = next((b for b, left in enumerate(room) if left >= size), None)
        if place is None:
            bins.append([thing])
            room.append(capacity - size)
        else:
            bins[place].append(thing)
            room[place] -= size
    return [sorted(things) for things in bins]


def batches(
    graphs: Iterable[G], cost: MemoryCost, memory_bytes: float
) -> Iterator[tuple[list[int], list[G]]]:
    """Cut a stream of graphs into batches that fit into memory.

    ``graphs``: taken until a quarter of the memory is full of them; these share batches; ``cost``: of the
    forward; ``memory_bytes``: for waiting graphs and the forward together. A graph that needs more is a batch
    of its own.
    Yields places in the stream, and the graphs.
    """
    capacity = (1 - WAITING_SHARE) * memory_bytes - cost.base_bytes
    waiting: dict[int, G] = {}
    n_edges = 0
    for place, graph in enumerate(graphs):
        waiting[place] = graph
        n_edges += graph.n_edges
        if n_edges * GRAPH_BYTES_PER_EDGE > WAITING_SHARE * memory_bytes:
            yield from _packed(waiting, cost, capacity)
            waiting, n_edges = {}, 0
    yield from _packed(waiting, cost, capacity)


def _packed(waiting: dict[int, G], cost: MemoryCost, capacity: float) -> Iterator[tuple[list[int], list[G]]]:
    places, graphs = list(waiting), list(waiting.values())
    for things in pack([cost.of(graph) for graph in graphs], capacity):
        yield [places[i] for i in things], [graphs[i] for i in things]


def ahead(stream: Iterator[T]) -> Iterator[T]:
    """The same stream, its next element made in a thread while the last one is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, stream, None)
        while (element := coming.result()) is not None:
            coming = thread.submit(next, stream, None)
            yield element


@dataclass(frozen=True, eq=False)
class FrozenSums:
    """Features of crystals and energies that are linear in them, as float64 tensors."""

    features: torch.Tensor  # shape (n_crystals, n_features): sums over atoms
    fixed: torch.Tensor  # shape (n_crystals,): eV, the part of the energy that no readout weight changes
    energy: torch.Tensor  # shape (n_crystals,): eV

    def block(self, atoms: torch.Tensor | None = None) -> FeatureBlock:
        """The same as arrays, with the features of single atoms where they are given."""
        features, fixed, energy = (t.cpu().numpy() for t in (self.features, self.fixed, self.energy))
        return FeatureBlock(features, fixed, energy, None if atoms is None else atoms.float().cpu().numpy())


def frozen_sums(
    readout: torch.Tensor,
    per_atom: torch.Tensor,
    fixed: torch.Tensor,
    theta0: torch.Tensor,
    owner: torch.Tensor,
    n_crystals: int,
) -> FrozenSums:
    """Sum what a network gives for every atom: E = θ0 · [Σ readout features, n_atoms] + Σ fixed, exactly.

    Parameters
    ----------
    readout, per_atom : tensor, shape (n_atoms, n_features)
        Features in which the energy is linear, and those that are wanted: the same, or descriptors.
    fixed : tensor, shape (n_atoms,)
        Isolated atoms and pair repulsion, eV.
    theta0 : tensor, shape (n_features + 1,)
        Weights of the frozen readout, eV, float64.
    owner : tensor, shape (n_atoms,)
        The crystal of each atom.
    """
    import torch

    def pool(values: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((n_crystals, *values.shape[1:]), dtype=torch.float64, device=values.device)
        return total.index_add(0, owner, values.double())

    summed, constant = pool(readout), pool(fixed)
    n_atoms = torch.bincount(owner, minlength=n_crystals).double()
    theta0 = theta0.to(summed.device)
    energy = summed @ theta0[:-1] + n_atoms * theta0[-1] + constant
    return FrozenSums(summed if per_atom is readout else pool(per_atom), constant, energy)


def filled(
    crystals: Sequence[Crystal],
    n_columns: int,
    stream: Iterable[tuple[list[int], list[G]]],
    run: Callable[[list[G]], FeatureBlock],
    *,
    atoms: bool,
) -> FeatureBlock:
    """Rows of crystals from batches of their graphs, which come with their places among the crystals.

    A crystal that is in no batch has NaN. ``run``: features and energies of a batch; ``atoms``: with those of single
    atoms.
    """
    n, ends = len(crystals), np.cumsum([len(c.numbers) for c in crystals], dtype=int)
    single = np.full((ends[-1] if n else 0, n_columns), np.nan, dtype=np.float32) if atoms else None
    rows = FeatureBlock(np.full((n, n_columns), np.nan), np.full(n, np.nan), np.full(n, np.nan), single)
    for places, graphs in stream:
        block = run(graphs)
        rows.features[places] = block.features
        rows.fixed_energy_ev[places] = block.fixed_energy_ev
        rows.energy_ev[places] = block.energy_ev
        if single is not None and block.atoms is not None:
            of_batch = [np.arange(ends[p] - len(crystals[p].numbers), ends[p]) for p in places]
            single[np.concatenate(of_batch)] = block.atoms
    return rows


def require_dtype(dtype: str) -> None:
    """Refuse what is no precision of a forward."""
    if dtype not in DTYPES:
        raise ModelError(f"the dtype {dtype!r} is neither float32 nor float64; choose one of the two.")


def choose_device(device: str) -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` takes CUDA where there is one.

    Raises
    ------
    ModelError
        If the device is none of these, or is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in DEFAULT_MEMORY_BYTES:
        raise ModelError(f"the device {device!r} is none of auto, cpu and cuda; choose one of these.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("torch sees no CUDA device; use --device cpu.")
    return device
