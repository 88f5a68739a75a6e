"""Sums over neighbours: first from elements alone, then from the features of the layer before."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace.fast.weights import (
    coupling_paths,
    coupling_table,
    irreps_of,
    linear_blocks,
    natural_degrees,
    network_layers,
    require_supported,
)

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.mace.fast.geometry import Chunk, Edges

INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
}


class Convolution:
    """The radial network and tensor product of one interaction block, up to and with the linear map after it.

    ``block``: mace's interaction block in float64; ``dtype``, ``device``: of the evaluation.
    """

    def __init__(self, block: Any, dtype: torch.dtype, device: str) -> None:
        import torch

        require_supported(
            _mace.class_name(block) in INTERACTIONS, f"an interaction {_mace.class_name(block)}"
        )

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype).contiguous()

        matrices, self.activation = network_layers(block.conv_tp_weights)
        self.hidden = [cast(m) for m in matrices[:-1]]
        irreps_up, irreps_mid = irreps_of(block.conv_tp.irreps_in1), irreps_of(block.linear.irreps_in)
        natural_degrees(irreps_up, "neighbours of")
        harmonics = irreps_of(block.conv_tp.irreps_in2)
        require_supported(
            natural_degrees(harmonics, "edges of") == list(range(len(harmonics))), "edges of some degrees"
        )
        self.width = irreps_up[0].mul
        self.paths = coupling_paths(block.conv_tp)
        self.couplings = cast(coupling_table(self.paths, harmonics.dim))
        self.last = [cast(m) for m in torch.split(matrices[-1], self.width, dim=1)]
        require_supported(
            len(self.last) == len(self.paths) == len(irreps_mid), "a tensor product of unequal widths"
        )
        self.degrees = natural_degrees(irreps_of(block.linear.irreps_out), "messages of")
        require_supported({p.l3 for p in self.paths} == set(self.degrees), "messages that no path reaches")
        blocks = linear_blocks(block.linear)
        same = [[p for p in self.paths if p.l3 == degree] for degree in self.degrees]
        self.linear = [cast(torch.cat([blocks[p.slot, k] for p in paths])) for k, paths in enumerate(same)]
        # Paths of one degree are summed side by side, so that the linear map takes them in one product.
        self.places = [same[self.degrees.index(p.l3)].index(p) for p in self.paths]
        up = linear_blocks(block.linear_up)
        self.up = [cast(up[k, k]) for k in range(len(irreps_up))]
        density = getattr(block, "density_fn", None)
        self.density = None if density is None else cast(network_layers(density)[0][0])
        self.neighbours = float(block.avg_num_neighbors)

    def hidden_values(self, edges: Edges, chunk: Chunk) -> torch.Tensor:
        """Last hidden layer of the radial network for every kind of edge, with the cutoff where it is kept apart."""
        values = edges.radial[chunk.kinds]
        for matrix in self.hidden:
            values = self.activation(values @ matrix)
        return values if edges.cutoff is None else values * edges.cutoff[chunk.kinds]

    def norm(self, edges: Edges, n_atoms: int) -> torch.Tensor:
        """What the message of each atom is divided by: 1 + its density, or the average number of neighbours."""
        import torch

        norm = edges.harmonics.new_ones(n_atoms, 1)
        if self.density is None:
            return norm * self.neighbours
        density = torch.tanh((edges.radial @ self.density) ** 2)
        if edges.cutoff is not None:
            density = density * edges.cutoff
        return norm.index_add_(0, edges.first, density).index_add_(0, edges.second, density)

    def from_elements(
        self, table: torch.Tensor, edges: Edges, chunks: Sequence[Chunk], n_atoms: int, reduction: ModuleType
    ) -> list[torch.Tensor]:
        """Messages of the first layer, whose neighbours are known by their element alone.

        The sum over neighbours of one element of (radial hidden values x spherical harmonics) is taken
        before the radial network's last and widest layer and before the channels.

        ``table`` (n_elements, width): scalars of each element after the block's first linear map; ``edges``,
        ``chunks``, ``n_atoms``: the batch; ``reduction``: :mod:`~mace_bounds.backbones.mace.fast.sums` or its
        compiled twin.
        Returns sums of messages by degree, after the linear map, before the norm.
        """
        import torch

        sums = self._empty_sums(table, n_atoms)
        for chunk in chunks:
            hidden = self.hidden_values(edges, chunk)
            neighbours = table[chunk.group_element]
            couplings = edges.harmonics[chunk.edges] @ self.couplings
            for path, last, place in zip(self.paths, self.last, self.places, strict=True):
                grouped = reduction.sum_groups(path, hidden, couplings, chunk)
                total = sums[path.l3][:, chunk.atoms, place]
                total.index_add_(1, chunk.group_atom, torch.matmul(grouped, last) * neighbours)
        return self._mix(sums)

    def from_features(
        self,
        features: list[torch.Tensor],
        edges: Edges,
        chunks: Sequence[Chunk],
        n_atoms: int,
        reduction: ModuleType,
    ) -> list[torch.Tensor]:
        """Messages of a later layer.

        ``features``: features of the layer before, after the block's first linear map; ``edges``, ``chunks``,
        ``n_atoms``, ``reduction``: as for :meth:`from_elements`; the result as well.
        """
        import torch

        sums = self._empty_sums(features[0], n_atoms)
        for chunk in chunks:
            hidden = self.hidden_values(edges, chunk)
            senders = torch.cat([edges.second[chunk.edges], edges.first[chunk.edges]])
            messages = reduction.MessageSums(features, senders, chunk)
            couplings = edges.harmonics[chunk.edges] @ self.couplings
            for path, last, place in zip(self.paths, self.last, self.places, strict=True):
                messages.add(path, hidden @ last, couplings, sums[path.l3], place)
        return self._mix(sums)

    def _empty_sums(self, like: torch.Tensor, n_atoms: int) -> dict[int, torch.Tensor]:
        return {
            degree: like.new_zeros(2 * degree + 1, n_atoms, len(matrix) // self.width, self.width)
            for degree, matrix in zip(self.degrees, self.linear, strict=True)
        }

    def _mix(self, sums: dict[int, torch.Tensor]) -> list[torch.Tensor]:
        """The linear map after the convolution: sums of all paths of a degree to its messages."""
        return [
            sums[degree].flatten(2) @ matrix for degree, matrix in zip(self.degrees, self.linear, strict=True)
        ]
