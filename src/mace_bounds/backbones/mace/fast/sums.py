"""Sums over neighbours by torch alone: for CUDA, for small batches, and where numba is missing."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.mace.fast.geometry import Chunk
    from mace_bounds.backbones.mace.fast.weights import Path


def weighted_segment_sum(
    rows: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum rows[columns[k]] * weights[k] over the k of each segment.

    ``rows`` (n_rows, width): what is gathered; ``columns`` (n,): the row of each term; ``offsets``
    (n_segments + 1,): where each segment begins among the terms; ``weights`` (n,): A factor for each term.
    Returns (n_segments, width): by torch's ``embedding_bag``, which is fastest in float32, or its sparse
    product, which is in float64.
    """
    import torch

    if rows.dtype == torch.float32 or rows.is_cuda:
        return torch.nn.functional.embedding_bag(
            columns, rows, offsets[:-1], mode="sum", per_sample_weights=weights
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that its sparse tensors are in beta
        matrix = torch.sparse_csr_tensor(
            offsets, columns, weights, (len(offsets) - 1, len(rows)), check_invariants=False
        )
    return matrix @ rows


def sum_groups(path: Path, hidden: torch.Tensor, couplings: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """Sum radial values over the neighbours of each group.

    ``path``: one whose neighbours are scalars; ``hidden`` (n_kinds, width): values of each kind of edge of
    the chunk; ``couplings`` (n_edges, n_terms): coupled spherical harmonics of each edge towards its first
    atom, of all paths.
    Returns (2 l3 + 1, n_groups, width).
    """
    import torch

    columns = chunk.kind[chunk.order % len(chunk.kind)]
    return torch.stack(
        [
            weighted_segment_sum(hidden, columns, chunk.group_offsets, w.reshape(-1))
            for w in _sorted_couplings(path, couplings, chunk)
        ]
    )


def _sorted_couplings(path: Path, couplings: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """Couplings of one path in both directions: (2 l3 + 1, 2 n_edges, 2 l1 + 1), in the chunk's order."""
    import torch

    own = couplings[:, path.start : path.start + path.coupling[0].numel()]
    both = torch.cat([own, own * path.parity])[chunk.order]
    return both.view(len(both), *path.coupling.shape[1:]).transpose(0, 1)


class MessageSums:
    """Adds the messages of one chunk, path by path.

    ``features``: features of the neighbours by degree; ``senders`` (2 n_edges,): the neighbour at the end of
    each direction (not sorted).
    """

    def __init__(self, features: list[torch.Tensor], senders: torch.Tensor, chunk: Chunk) -> None:
        import torch

        self.chunk = chunk
        n = len(senders)
        self.neighbours = [f[:, senders.view(2, -1)] for f in features]
        steps = torch.arange(2 * len(features) - 1, device=senders.device) * n
        self.columns = [(chunk.order[:, None] + steps[: len(f)]).reshape(-1) for f in features]
        self.products = [torch.empty_like(f) for f in self.neighbours]

    def add(
        self, path: Path, radial: torch.Tensor, couplings: torch.Tensor, sums: torch.Tensor, place: int
    ) -> None:
        """Add Σ_neighbours radial · Σ_m1 coupling · feature to ``sums``.

        ``radial`` (n_kinds, width): radial weights of the path for each kind of edge; ``couplings`` (n_edges,
        n_terms): coupled spherical harmonics of each edge towards its first atom, of all paths; ``sums`` (2
        l3 + 1, n_atoms, n_paths, width): changed in place; ``place``: of the path among those of its degree.
        """
        import torch

        product = torch.mul(self.neighbours[path.l1], radial[self.chunk.kind], out=self.products[path.l1])
        rows, offsets = product.view(-1, product.shape[-1]), self.chunk.offsets * (2 * path.l1 + 1)
        for total, weights in zip(sums, _sorted_couplings(path, couplings, self.chunk), strict=True):
            total[self.chunk.atoms, place] += weighted_segment_sum(
                rows, self.columns[path.l1], offsets, weights.reshape(-1)
            )
