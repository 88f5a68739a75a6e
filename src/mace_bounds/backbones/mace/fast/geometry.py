"""Edges of a batch, each pair of atoms once: lengths, spherical harmonics, radial functions, chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.graph import GraphBatch

HASH = -7046029254386353131  # 2^64 / golden ratio, odd: spreads the bits of a length over the key


@dataclass(frozen=True, eq=False)
class Edges:
    """Undirected edges of a batch, in the order of their first atoms."""

    # first, second, shape (n_edges,): the two atoms; the vector points from ``second`` to ``first``
    first: torch.Tensor
    second: torch.Tensor
    lengths: torch.Tensor  # shape (n_edges,): Å
    # shape (n_edges, (max_ell + 1)^2): spherical harmonics of the vector, as mace evaluates them
    harmonics: torch.Tensor
    # shape (n_edges, n_basis): radial functions; they carry the cutoff unless it is kept apart
    radial: torch.Tensor
    # shape (n_edges, 1): the cutoff, where the model applies it after its radial network
    cutoff: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Chunk:
    """A run of undirected edges, and both their directions sorted by receiver and element of the sender."""

    edges: slice  # the run
    atoms: slice  # the atoms of all crystals it touches
    # shape (n_kinds,): one edge of each length and pair of elements: all that the radial networks can tell
    # apart
    kinds: torch.Tensor
    kind: torch.Tensor  # shape (n,): which of them each edge of the run is
    # shape (2 n,): directions in sorted order: k < n is edge k towards its first atom, k >= n edge k - n
    # towards its second
    order: torch.Tensor
    offsets: torch.Tensor  # shape (n_atoms + 1,): where the directions of each receiver begin
    # shape (n_groups + 1,): where each group of one receiver and one element begins
    group_offsets: torch.Tensor
    # group_atom, group_element, shape (n_groups,): receiver (counted from ``atoms.start``) and element of
    # each group
    group_atom: torch.Tensor
    group_element: torch.Tensor


def build_edges(module: Any, batch: GraphBatch, dtype: torch.dtype) -> tuple[Edges, torch.Tensor | None]:
    """Evaluate mace's own spherical harmonics, radial functions and pair repulsion on undirected edges.

    Returns (n_atoms,): pair repulsion of each atom, eV, before the model's scale; None where the model has
    none.
    """
    import torch

    first, second = batch.first, batch.second
    vectors = (batch.positions[first] - batch.positions[second] + batch.shifts).to(dtype)
    lengths = vectors.norm(dim=1, keepdim=True)
    node_attrs = torch.nn.functional.one_hot(batch.elements, len(module.atomic_numbers)).to(dtype)
    numbers = module.atomic_numbers
    radial, cutoff = module.radial_embedding(lengths, node_attrs, torch.stack([second, first]), numbers)
    edges = Edges(first, second, lengths.squeeze(1), module.spherical_harmonics(vectors), radial, cutoff)
    repulsion = getattr(module, "pair_repulsion_fn", None)
    if repulsion is None:
        return edges, None
    radii = repulsion.covalent_radii[numbers[batch.elements]]
    near = torch.nonzero(lengths.squeeze(1) < radii[first] + radii[second]).squeeze(1)
    first, second, lengths = first[near], second[near], lengths[near]
    pair = repulsion(lengths, node_attrs, torch.stack([second, first]), numbers)
    return edges, pair + repulsion(lengths, node_attrs, torch.stack([first, second]), numbers)


def chunks(batch: GraphBatch, edges: Edges, limit: int, n_elements: int) -> Iterator[Chunk]:
    """Cut edges into runs of at most ``limit``, at the borders of crystals where they fit."""
    import torch

    crystal = batch.crystal_of_atom[edges.first]
    ends = torch.bincount(crystal, minlength=batch.n_crystals).cumsum(0).tolist()
    atom_ends = torch.bincount(batch.crystal_of_atom, minlength=batch.n_crystals).cumsum(0).tolist()
    start, first_crystal = 0, 0
    for k in range(batch.n_crystals):
        begins = ends[k - 1] if k else 0
        if begins > start and ends[k] - start > limit:
            yield _chunk(
                batch, edges, slice(start, begins), _atoms(atom_ends, first_crystal, k - 1), n_elements
            )
            start = begins
        if start == begins:
            first_crystal = k
        while ends[k] - start > limit:
            yield _chunk(
                batch, edges, slice(start, start + limit), _atoms(atom_ends, first_crystal, k), n_elements
            )
            start, first_crystal = start + limit, k
    if ends and ends[-1] > start:
        last = batch.n_crystals - 1
        yield _chunk(batch, edges, slice(start, ends[-1]), _atoms(atom_ends, first_crystal, last), n_elements)


def _atoms(ends: list[int], first: int, last: int) -> slice:
    return slice(ends[first - 1] if first else 0, ends[last])


def _chunk(batch: GraphBatch, edges: Edges, run: slice, atoms: slice, n_elements: int) -> Chunk:
    import torch

    first, second = edges.first[run], edges.second[run]
    receivers = torch.cat([first, second]) - atoms.start
    elements = batch.elements[torch.cat([second, first])]
    keys, order = torch.sort(receivers * n_elements + elements, stable=True)
    groups, sizes = torch.unique_consecutive(keys, return_counts=True)
    counts = torch.bincount(receivers, minlength=atoms.stop - atoms.start)
    group_atom = torch.div(groups, n_elements, rounding_mode="floor")
    return Chunk(
        edges=run,
        atoms=atoms,
        **_kinds(batch, edges, run, n_elements),
        order=order,
        offsets=_offsets(counts),
        group_offsets=_offsets(sizes),
        group_atom=group_atom,
        group_element=groups - group_atom * n_elements,
    )


def _kinds(batch: GraphBatch, edges: Edges, run: slice, n_elements: int) -> dict[str, torch.Tensor]:
    """Edges of a run that the radial networks cannot tell apart, to the last bit: two thirds remain in MP crystals."""
    import torch

    lengths = edges.lengths[run]
    first, second = batch.elements[edges.first[run]], batch.elements[edges.second[run]]
    pairs = torch.minimum(first, second) * n_elements + torch.maximum(first, second)
    bits = lengths.view(torch.int32 if lengths.dtype == torch.float32 else torch.int64).long()
    _, kind = torch.unique(bits * HASH + pairs, return_inverse=True)
    places = torch.arange(len(kind), device=kind.device)
    kinds = torch.zeros_like(kind[: int(kind.max()) + 1]).scatter_(0, kind, places)
    if not bool(((lengths[kinds][kind] == lengths) & (pairs[kinds][kind] == pairs)).all()):
        kinds = kind = places  # two keys fell together
    return {"kinds": kinds + run.start, "kind": kind}


def _offsets(counts: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
