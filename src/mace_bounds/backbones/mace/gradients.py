"""Derivatives of features and energies by reverse mode through mace's own forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.backbones.base import FeatureKind
from mace_bounds.backbones.gradients import Derivatives, FeatureGradients, require_weights
from mace_bounds.backbones.graph import (
    DEFAULT_MEMORY_BYTES,
    Graph,
    batch_graphs,
    build_graph,
)
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.mace.backbone import MaceBackbone

    # with respect to positions, shape (K, n_atoms, 3), and strain, shape (K, n_crystals, 3, 3)
    Gradients = tuple[NDArray[np.float64], NDArray[np.float64]]

KEPT = 4.0  # what the backward pass needs is so many times the peak of a forward without it
COLUMNS_AT_ONCE = 16
FEW_EDGES = 1500  # below so many, several columns at once are faster than one after the other


@dataclass(frozen=True, eq=False)
class Forward:
    """Some crystals through the network, with the graph of the computation."""

    leaves: tuple[
        torch.Tensor, torch.Tensor
    ]  # positions (n_atoms, 3) and strains (n_crystals, 3, 3), float64
    per_atom: torch.Tensor  # shape (n_atoms, C)
    features: torch.Tensor  # shape (n_crystals, C), float64
    fixed: torch.Tensor  # shape (n_crystals,), float64
    energy: torch.Tensor  # shape (n_crystals,), float64

    def gradients(self, sums: torch.Tensor, *, together: int = 1) -> Gradients:
        """Derivatives of K sums over crystals, shape (K,): those of each crystal, as none depends on another.

        ``together``: how many go through the network at once.
        """
        import torch

        found = [self._gradients(part, batched=together > 1) for part in torch.split(sums, together)]
        positions, strain = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        return np.asarray(positions), np.asarray(strain)

    def _gradients(self, sums: torch.Tensor, *, batched: bool) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if not sums.requires_grad:  # no pair repulsion: the fixed part is one of free atoms
            positions, strain = (leaf.new_zeros(len(sums), *leaf.shape) for leaf in self.leaves)
            return positions, strain
        one = torch.eye(len(sums), dtype=sums.dtype, device=sums.device)
        positions, strain = torch.autograd.grad(
            sums, self.leaves, one if batched else one[0], retain_graph=True, is_grads_batched=batched
        )
        return (positions, strain) if batched else (positions[None], strain[None])


def forward(model: MaceBackbone, graphs: Sequence[Graph], kind: FeatureKind) -> Forward:
    """Run mace's own forward on strained crystals at zero strain."""
    import torch

    batch = batch_graphs(graphs, model.atomic_numbers, model.device)
    dtype, owner = getattr(torch, model.dtype), batch.crystal_of_atom
    data = _mace.mace_data(batch, len(model.atomic_numbers), model.heads.index(model.head), dtype)
    positions = batch.positions.detach().clone().requires_grad_(True)
    strain = positions.new_zeros(len(graphs), 3, 3).requires_grad_(True)
    symmetric = (strain + strain.transpose(1, 2)) / 2
    shifts = torch.cat([batch.shifts, -batch.shifts])
    senders = data["edge_index"][0]
    data["positions"] = (positions + _product(positions, symmetric, owner)).to(dtype)
    data["shifts"] = (shifts + _product(shifts, symmetric, owner[senders])).to(dtype)

    with torch.enable_grad(), _mace.default_dtype(dtype), _mace.quiet():
        with _mace.pair_energies_of_forward(model.module) as seen:
            out: dict[str, Any] = model.module(dict(data), training=False, compute_force=False)
        pair = seen[0] if seen else _mace.pair_energies(model.module, data)
        scalars = model.split.select(out["node_feats"])
        sums, per_atom = model.split.sums(scalars, pair, batch, kind)
    return Forward((positions, strain), per_atom, sums.features, sums.fixed, sums.energy)


def _product(vectors: torch.Tensor, strains: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Row vectors (n, 3) times the symmetric matrix (k, 3, 3) of the crystal that each belongs to."""
    if len(strains) == 1:
        return vectors @ strains[0]
    return (vectors.unsqueeze(1) @ strains[owner]).squeeze(1)


@dataclass(frozen=True, eq=False)
class MaceEvaluation:
    """One crystal through the network; an :class:`~mace_bounds.backbones.Evaluation`."""

    run: Forward
    volume_a3: float

    @property
    def features(self) -> NDArray[np.float64]:
        """Sums over atoms, shape (C,)."""
        return np.asarray(self.run.features[0].detach().cpu().numpy())

    @property
    def atoms(self) -> NDArray[np.float64]:
        """Features of every atom, shape (n_atoms, C)."""
        return np.asarray(self.run.per_atom.detach().double().cpu().numpy())

    @property
    def energy_ev(self) -> float:
        """The model's own total energy."""
        return float(self.run.energy[0].detach())

    @property
    def fixed_energy_ev(self) -> float:
        """The part of it that no weight of the readout changes."""
        return float(self.run.fixed[0].detach())

    def derivatives(self, corrections_ev: ArrayLike | None = None) -> Derivatives:
        """Energies, forces and stresses of the model with ``corrections_ev`` · features added."""
        import torch

        run = self.run
        energies = run.energy
        if corrections_ev is not None:
            weights = torch.from_numpy(require_weights(corrections_ev, run.features.shape[1]))
            energies = run.energy + run.features @ weights.to(run.features.device).T  # shape (1, K)
        positions, strain = run.gradients(energies.reshape(-1))
        values = np.asarray(energies.detach().reshape(-1).cpu().numpy())
        return Derivatives(values, -positions, strain[:, 0] / self.volume_a3)


def evaluate(model: MaceBackbone, crystal: Crystal, kind: FeatureKind) -> MaceEvaluation:
    """Run the network on one crystal and keep what its derivatives need."""
    return MaceEvaluation(forward(model, [build_graph(crystal, model.cutoff_a)], kind), crystal.volume)


def feature_gradients(
    model: MaceBackbone, crystals: Iterable[Crystal], kind: FeatureKind
) -> Iterator[FeatureGradients]:
    """Derivatives of all columns of crystals, in their order."""
    for group in _groups(model, crystals):
        yield from _gradients_of(model, group, kind)


def _groups(model: MaceBackbone, crystals: Iterable[Crystal]) -> Iterator[list[tuple[Crystal, Graph]]]:
    """Neighbours in the given order, as many as fit into memory together."""
    cost, room = (
        _mace.mace_cost(model.module),
        (model.memory_bytes or DEFAULT_MEMORY_BYTES[model.device]) / KEPT,
    )
    group: list[tuple[Crystal, Graph]] = []
    filled = 0.0
    for crystal in crystals:
        graph = build_graph(crystal, model.cutoff_a)
        if group and filled + cost.of(graph) > room:
            yield group
            group, filled = [], 0.0
        group.append((crystal, graph))
        filled += cost.of(graph)
    if group:
        yield group


def _gradients_of(
    model: MaceBackbone, group: list[tuple[Crystal, Graph]], kind: FeatureKind
) -> Iterator[FeatureGradients]:
    run = forward(model, [graph for _, graph in group], kind)
    few = sum(graph.n_edges for _, graph in group) <= FEW_EDGES
    d_positions, d_strain = run.gradients(run.features.sum(0), together=COLUMNS_AT_ONCE if few else 1)
    of_energy, of_fixed = (
        run.gradients(run.energy.sum().reshape(1)),
        run.gradients(run.fixed.sum().reshape(1)),
    )
    features, energy, fixed = (t.detach().cpu().numpy() for t in (run.features, run.energy, run.fixed))
    start = 0
    for k, (crystal, graph) in enumerate(group):
        atoms = slice(start, start := start + graph.n_atoms)
        yield FeatureGradients(
            features=features[k],
            d_positions=np.moveaxis(d_positions[:, atoms], 0, -1).copy(),
            d_strain=np.moveaxis(d_strain[:, k], 0, -1).copy(),
            volume_a3=crystal.volume,
            energy_ev=float(energy[k]),
            forces_ev_a=-of_energy[0][0, atoms],
            stress_ev_a3=of_energy[1][0, k] / crystal.volume,
            fixed_energy_ev=float(fixed[k]),
            fixed_forces_ev_a=-of_fixed[0][0, atoms],
            fixed_stress_ev_a3=of_fixed[1][0, k] / crystal.volume,
        )
