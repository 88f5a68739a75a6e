"""The exact split of a MACE energy at its last linear layer.

A ``ScaleShiftMACE`` is linear in the scalars that enter each linear readout and in the activated
hidden values that enter the last linear map of its non-linear readout::

    E = θ0 · [Σ_atoms φ, N] + Σ_atoms E0(Z) + scale · Σ_atoms E_pair
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.graph import FrozenSums, GraphBatch, frozen_sums
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.errors import ModelError

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.base import FeatureKind


@dataclass(frozen=True, eq=False)
class ReadoutSplit:
    """Where one readout finds its features, and the weights it applies to them."""

    layer: int  # the layer whose scalars it reads
    # shape (n_features,): effective weights, path normalisation included, before the model's scale
    weights: torch.Tensor
    # shape (n_scalars, n_hidden): effective matrix before the activation; None where the readout is linear in
    # the scalars themselves
    inner: torch.Tensor | None = None
    activation: Any = None  # mace's activation of the hidden values of all heads
    columns: slice = field(default_factory=lambda: slice(None))  # the head's own among the hidden values

    @property
    def linear(self) -> bool:
        """Whether the readout is linear in the layer itself."""
        return self.inner is None

    def features(self, scalars: Sequence[torch.Tensor]) -> torch.Tensor:
        """Per-atom features, shape (n_atoms, n_features), in the dtype of the layers' ``scalars``."""
        values = scalars[self.layer]
        if self.inner is None:
            return values
        features: torch.Tensor = self.activation(values @ self.inner.to(values))[:, self.columns]
        return features


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The exact split of one head of a model."""

    readouts: tuple[ReadoutSplit, ...]
    scalars: tuple[slice, ...]  # the invariant (0e) columns of each layer in ``node_feats``: the descriptors
    # scale, shift: the head's scale and its shift per atom, eV
    scale: float
    shift: float
    # shape (n_elements,): the head's isolated-atom energies in the order of the model's elements
    atomic_energies_ev: torch.Tensor

    @property
    def theta0(self) -> torch.Tensor:
        """Weights of the frozen model on [Σ φ, N], eV, float64, shape (n_features + 1,)."""
        import torch

        weights = [r.weights * self.scale for r in self.readouts]
        return torch.cat([*weights, torch.tensor([self.shift], dtype=torch.float64)])

    @property
    def layers(self) -> list[tuple[str, int]]:
        """Kind and number of features of each readout, for naming columns."""
        return [("linear" if r.linear else "hidden", len(r.weights)) for r in self.readouts]

    def sums(
        self, scalars: Sequence[torch.Tensor], pair: torch.Tensor | None, batch: GraphBatch, kind: FeatureKind
    ) -> tuple[FrozenSums, torch.Tensor]:
        """Features and energies of a batch, from the scalars of its layers and its pair repulsion; and per atom."""
        readout = self.readout_features(scalars)
        per_atom = readout if kind == "readout" else self.descriptors(scalars)
        fixed = self.atomic_energies_ev.to(readout.device)[batch.elements]
        if pair is not None:
            fixed = fixed + self.scale * pair.double()
        owner = batch.crystal_of_atom
        return frozen_sums(readout, per_atom, fixed, self.theta0, owner, batch.n_crystals), per_atom

    def select(self, node_feats: torch.Tensor) -> list[torch.Tensor]:
        """Scalars of each layer, (n_atoms, n_scalars) each, from the ``node_feats`` that mace's forward returns."""
        return [node_feats[:, columns] for columns in self.scalars]

    def readout_features(self, scalars: Sequence[torch.Tensor]) -> torch.Tensor:
        """Per-atom features in which the energy is linear, shape (n_atoms, n_features)."""
        import torch

        return torch.cat([r.features(scalars) for r in self.readouts], dim=1)

    def descriptors(self, scalars: Sequence[torch.Tensor]) -> torch.Tensor:
        """Invariants of every layer, shape (n_atoms, n_descriptors); as ``MACECalculator.get_descriptors``."""
        import torch

        return torch.cat(list(scalars), dim=1)


def _irreps_out(block: Any, what: str) -> tuple[int, int]:
    """Total dimension and number of leading 0e channels of a linear map's output."""
    from e3nn import o3

    irreps = o3.Irreps(str(block.linear.irreps_out))
    if irreps[0].ir != o3.Irrep("0e"):
        raise ModelError(
            f"the {what} of this model are {irreps} and do not begin with 0e scalars; use a ScaleShiftMACE model."
        )
    return irreps.dim, irreps[0].mul


def _through(linear: Any, n: int) -> torch.Tensor:
    """Effective matrix of a linear map, shape (n, n_out): the identity passed through it."""
    import torch

    with torch.no_grad():
        matrix: torch.Tensor = linear(torch.eye(n, dtype=next(linear.parameters()).dtype)).double()
    return matrix


def _split_linear(readout: Any, layer: int, dim: int, n_scalars: int, head: int) -> ReadoutSplit:
    weights = _through(readout.linear, dim)[:, head]
    if bool((weights[n_scalars:] != 0).any()):
        raise ModelError("a linear readout of this model mixes in vectors; use a ScaleShiftMACE model.")
    return ReadoutSplit(layer, weights[:n_scalars])


def _split_nonlinear(
    readout: Any, layer: int, dim: int, n_scalars: int, head: int, n_heads: int
) -> ReadoutSplit:
    from e3nn import o3

    n_hidden = o3.Irreps(str(readout.linear_2.irreps_in)).dim
    weights = _through(readout.linear_2, n_hidden)[:, head]
    block = slice(head * n_hidden // n_heads, (head + 1) * n_hidden // n_heads)  # mace.irreps_tools.mask_head
    inner = _through(readout.linear_1, dim)[:n_scalars]
    return ReadoutSplit(layer, weights[block], inner, readout.non_linearity, block)


def split_last_layer(model: Any, head: int) -> LastLayer:
    """Split one head of a ``ScaleShiftMACE`` (on the CPU) at its last linear layer.

    ``model``: the model, in any float dtype; ``head``: index of the head.
    """
    name = _mace.class_name(model)
    if name != "ScaleShiftMACE":
        raise ModelError(f"this model is a {name} and not a ScaleShiftMACE; use a MACE foundation model.")
    if hasattr(model, "joint_embedding"):
        raise ModelError(
            "this model takes charges, spins or other inputs beside the structure; "
            "use a model without embedding_specs."
        )
    n_heads = len(_mace.head_names(model))
    try:
        sizes = [_irreps_out(product, "node features") for product in model.products]
    except AttributeError as error:
        raise ModelError(
            "this model is compiled and hides its irreps; pass the .model file it was compiled from."
        ) from error
    starts = [sum(dim for dim, _ in sizes[:k]) for k in range(len(sizes))]
    layers = range(len(sizes)) if len(model.readouts) > 1 else [len(sizes) - 1]
    readouts = []
    for layer, readout in zip(layers, model.readouts, strict=True):
        (dim, scalars), kind = sizes[layer], _mace.class_name(readout)
        if kind == "LinearReadoutBlock":
            readouts.append(_split_linear(readout, layer, dim, scalars, head))
        elif kind == "NonLinearReadoutBlock":
            readouts.append(_split_nonlinear(readout, layer, dim, scalars, head, n_heads))
        else:
            raise ModelError(
                f"this model has a {kind}, a readout whose energy cannot be split exactly; use a model with linear and "
                "non-linear readouts."
            )
    energies = model.atomic_energies_fn.atomic_energies
    return LastLayer(
        readouts=tuple(readouts),
        scalars=tuple(slice(s, s + n) for s, (_, n) in zip(starts, sizes, strict=True)),
        scale=float(model.scale_shift.scale.reshape(-1)[head]),
        shift=float(model.scale_shift.shift.reshape(-1)[head]),
        atomic_energies_ev=energies.reshape(n_heads, -1)[head].double().cpu(),
    )
