"""Batches that fill a budget of memory: the neighbours of every crystal are known before it is given a place."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from mace_bounds.backbones.graph import Graph

T = TypeVar("T")
DEFAULT_MEMORY_BYTES = {"cpu": 256 * 2**20, "cuda": 8 * 2**30}
WAITING_SHARE = 0.25  # of the memory may be held by graphs that wait for their batch
GRAPH_BYTES_PER_EDGE = 40


@dataclass(frozen=True)
class MemoryCost:
    """What a forward takes for a batch: the base, and so much for every atom and every edge."""

    per_atom_bytes: float
    per_edge_bytes: float
    base_bytes: float = 0.0

    def of(self, graph: Graph) -> float:
        """Bytes that a graph adds to its batch."""
        return self.per_atom_bytes * graph.n_atoms + self.per_edge_bytes * graph.n_edges


@dataclass(frozen=True)
class _Sizes:
    """Numbers that a model keeps: values per edge and per atom, and bytes of each."""

    weights: int  # of the widest convolution, per edge
    components: int  # of a message: (l_max + 1)²
    contraction: int  # of the largest tensor that the symmetric contraction is begun with
    channels: int
    itemsize: int


def _sizes(module: torch.nn.Module) -> _Sizes:
    weights, components, contractions, channels = [1], [1], [1], [1]
    for name, tensor in module.state_dict().items():
        if ".conv_tp_weights." in name:
            weights.append(tensor.shape[-1])
        elif name.endswith("weights_max"):
            channels.append(tensor.shape[-1])
        elif ".U_matrix" in name:
            components.append(tensor.shape[-2])
            contractions.append(math.prod(tensor.shape[:-2]))
    itemsize = next(module.parameters()).element_size()
    return _Sizes(max(weights), max(components), max(contractions), max(channels), itemsize)


def mace_cost(module: torch.nn.Module) -> MemoryCost:
    """Upper bound for mace's own forward without gradients, from the sizes of the model.

    Two steps are the largest: the convolution holds some 2.4 times its output for every edge, the symmetric
    contraction some 3.5 times its first contraction for every atom (peak memory of ``mini``, of the
    architecture of MACE-MPA-0, and of a tiny model, in float32 and float64). They come one after the other, so
    their sum is at most twice the peak.
    """
    n = _sizes(module)
    convolution = n.weights * math.sqrt(n.components)
    return MemoryCost(3.5 * n.itemsize * n.contraction * n.channels, 2.5 * n.itemsize * convolution)


def fast_cost(module: torch.nn.Module, edges_per_chunk: int) -> MemoryCost:
    """Upper bound for the re-arranged forward: messages of all atoms, but weights of one chunk of edges only.

    Measured as for :func:`mace_cost`: one to three times the peak, the most where all features are scalars.
    """
    n = _sizes(module)
    return MemoryCost(
        per_atom_bytes=5 * n.itemsize * n.channels * n.components,
        per_edge_bytes=100 * n.itemsize,
        base_bytes=n.itemsize * (4e6 + 2 * edges_per_chunk * n.weights),
    )


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
    graphs: Iterable[Graph], cost: MemoryCost, memory_bytes: float
) -> Iterator[tuple[list[int], list[Graph]]]:
    """Cut a stream of graphs into batches that fit into memory.

    ``graphs``: taken until a quarter of the memory is full of them; these share batches; ``cost``: of the
    forward; ``memory_bytes``: for waiting graphs and the forward together. A graph that needs more is a batch
    of its own.
    Yields places in the stream, and the graphs.
    """
    capacity = (1 - WAITING_SHARE) * memory_bytes - cost.base_bytes
    waiting: dict[int, Graph] = {}
    n_edges = 0
    for place, graph in enumerate(graphs):
        waiting[place] = graph
        n_edges += graph.n_edges
        if n_edges * GRAPH_BYTES_PER_EDGE > WAITING_SHARE * memory_bytes:
            yield from _packed(waiting, cost, capacity)
            waiting, n_edges = {}, 0
    yield from _packed(waiting, cost, capacity)


def _packed(
    waiting: dict[int, Graph], cost: MemoryCost, capacity: float
) -> Iterator[tuple[list[int], list[Graph]]]:
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
