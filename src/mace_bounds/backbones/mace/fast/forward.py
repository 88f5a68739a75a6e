"""The re-arranged forward of a whole model: batches in, scalars of every layer out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace.fast import compiled_sums as _compiled_sums
from mace_bounds.backbones.mace.fast import sums as _sums
from mace_bounds.backbones.mace.fast.contraction import SymmetricContraction
from mace_bounds.backbones.mace.fast.convolution import Convolution
from mace_bounds.backbones.mace.fast.geometry import build_edges, chunks
from mace_bounds.backbones.mace.fast.weights import linear_blocks, require_supported, selector_blocks

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.graph import GraphBatch

EDGES_PER_CHUNK = {"cpu": 1024, "cuda": 200_000}
ATOMS_PER_BLOCK = {"cpu": 64, "cuda": 2048}  # of one element together: on a CPU their products stay in cache
COMPILED_FROM_PAIRS = 25_000  # pairs of atoms in a batch from which it pays to load compiled sums


class FastForward:
    """Energy-only forward of a ``ScaleShiftMACE``: the same sums as mace's own, taken in another order.

    Weights are indexed by element instead of contracted with one-hot vectors, each pair of atoms goes through
    the radial networks once for both directions, neighbours of the first layer are summed by element,
    messages are never kept per edge, and nothing is computed that the energy does not need.

    Parameters
    ----------
    module : torch.nn.Module
        The model in float64 on the CPU; it is read, not changed.
    dtype : torch.dtype
        Precision of the evaluation; positions are subtracted in float64 in either.
    device : {"cpu", "cuda"}

    Raises
    ------
    Unsupported
        If the model is not of the family; mace's own forward must be used.
    """

    def __init__(self, module: Any, dtype: torch.dtype, device: str) -> None:
        import torch

        with torch.no_grad():
            require_supported(
                not getattr(module, "use_agnostic_product", False), "a product without elements"
            )
            embedding = linear_blocks(module.node_embedding.linear)[0, 0]
            self.dtype, self.device = dtype, device
            self.n_elements = len(module.atomic_numbers)
            self.layers = []
            table: torch.Tensor | None = embedding
            for interaction, product in zip(module.interactions, module.products, strict=True):
                self.layers.append(_Layer(interaction, product, table, dtype, device))
                table = None

    def __call__(self, batch: GraphBatch, module: Any) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Scalars of every layer and pair repulsion.

        Parameters
        ----------
        batch : GraphBatch
        module : torch.nn.Module
            The same model in the precision and on the device of the evaluation: its radial functions,
            spherical harmonics and pair repulsion are used as they are.

        Returns
        -------
        list of Tensor, each (n_atoms, channels)
        Tensor of shape (n_atoms,), or None
            Pair repulsion, eV, before the model's scale.
        """
        import torch

        with torch.no_grad():
            edges, pair = build_edges(module, batch, self.dtype)
            limit = EDGES_PER_CHUNK[self.device]
            runs = list(chunks(batch, edges, limit, self.n_elements))
            blocks = list(element_blocks(batch.elements, ATOMS_PER_BLOCK[self.device]))
            reduction = _summation(batch)
            features: list[torch.Tensor] = []
            scalars = []
            for layer in self.layers:
                features = layer(features, batch.elements, edges, runs, blocks, reduction)
                scalars.append(features[0][0])
        return scalars, pair


def _summation(batch: GraphBatch) -> ModuleType:
    """Which sums over neighbours to use; it depends on the batch alone, so that runs repeat bit by bit."""
    if batch.positions.is_cuda or len(batch.first) < COMPILED_FROM_PAIRS or find_spec("numba") is None:
        return _sums
    return _compiled_sums


def element_blocks(elements: torch.Tensor, limit: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Atoms of one element at a time: (element, indices of at most ``limit`` atoms)."""
    import torch

    order = torch.argsort(elements, stable=True)
    found, counts = torch.unique_consecutive(elements[order], return_counts=True)
    for element, atoms in zip(found.tolist(), torch.split(order, counts.tolist()), strict=True):
        for part in torch.split(atoms, limit):
            yield element, part


class _Layer:
    """One interaction and its product: features of one layer to those of the next."""

    def __init__(
        self, interaction: Any, product: Any, table: torch.Tensor | None, dtype: torch.dtype, device: str
    ) -> None:
        import torch

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, dtype).contiguous()

        self.convolution = Convolution(interaction, dtype, device)
        self.contraction = SymmetricContraction(product.symmetric_contractions, dtype, device)
        linear = linear_blocks(product.linear)
        self.linear = [cast(linear[k, k]) for k in range(len(self.contraction.degrees))]
        skip = selector_blocks(interaction.skip_tp)
        residual = "Residual" in type(interaction).__name__
        require_supported(product.use_sc or not residual, "a product that ignores its residual")
        self.table = self.residual_table = None
        self.residual = self.selector = None
        if residual:
            self.residual = {o: cast(w) for (_, o), w in skip.items()}
        else:
            self.selector = [cast(skip[k, k]) for k in range(len(self.convolution.degrees))]
        if table is not None:
            self.table = cast(table @ linear_blocks(interaction.linear_up)[0, 0])
            if residual:
                self.residual_table = cast(torch.einsum("eu,euv->ev", table, skip[0, 0]))

    def __call__(
        self,
        features: list[torch.Tensor],
        elements: torch.Tensor,
        edges: Any,
        runs: list[Any],
        blocks: list[tuple[int, torch.Tensor]],
        reduction: ModuleType,
    ) -> list[torch.Tensor]:
        import torch

        n_atoms, convolution = len(elements), self.convolution
        if self.table is not None:
            messages = convolution.from_elements(self.table, edges, runs, n_atoms, reduction)
        else:
            up = [f @ w for f, w in zip(features, convolution.up, strict=True)]
            messages = convolution.from_features(up, edges, runs, n_atoms, reduction)
        norm = convolution.norm(edges, n_atoms)
        out = [
            messages[0].new_empty(2 * degree + 1, n_atoms, w.shape[1])
            for degree, w in zip(self.contraction.degrees, self.linear, strict=True)
        ]
        for element, atoms in blocks:
            message = [m[:, atoms] / norm[atoms] for m in messages]
            if self.selector is not None:
                message = [m @ w[element] for m, w in zip(message, self.selector, strict=True)]
            x = torch.cat(message)[self.contraction.order].permute(2, 0, 1).contiguous()
            for k, (value, linear) in enumerate(zip(self.contraction(x, element), self.linear, strict=True)):
                value = value @ linear
                if self.residual_table is not None and k == 0:
                    value = value + self.residual_table[element]
                elif self.residual is not None and self.table is None and k in self.residual:
                    value = value + features[k][:, atoms] @ self.residual[k][element]
                out[k][:, atoms] = value
        return out
