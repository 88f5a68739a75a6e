"""CHGNet 0.3.0 without its last layer: energies only, from its weights, in bounded memory.

The layers are those of ``chgnet.model.CHGNet``; linear maps of joined features are taken apart, so that what belongs
to an atom or a pair is multiplied once instead of once for every edge and angle, and these are gone through in pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mace_bounds.backbones.chgnet.graph import BOND_CUTOFF_A, CUTOFF_A, AngleBatch

if TYPE_CHECKING:
    import torch

N_LAYERS, WIDTH = 4, 64
N_ELEMENTS = 94
_ENVELOPE = 8  # power of the smooth cutoff
_ROWS_PER_PIECE = {"cpu": 2**13, "cuda": 2**19}


@dataclass(frozen=True, eq=False)
class Network:
    """The weights, under their names in the checkpoint, in one precision on one device."""

    weights: Mapping[str, torch.Tensor]
    rows_per_piece: int

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor], dtype: torch.dtype, device: str) -> Network:
        """The network in this precision on this device (``"cpu"`` or ``"cuda"``)."""
        moved = {name: tensor.detach().to(device, dtype) for name, tensor in weights.items()}
        return cls(moved, _ROWS_PER_PIECE[device])

    def hidden(self, batch: AngleBatch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Last hidden values of every atom, in which the energy is linear, and its features after every layer.

        Both have the shape (n_atoms, 64).
        """
        import torch

        n_pairs = len(batch.vectors)
        lengths = batch.vectors.norm(dim=1)
        atom_bases = self._radial("ag", lengths, CUTOFF_A)
        short = torch.unique(batch.left % n_pairs)  # other pairs have no angles, and are never updated
        place = torch.zeros(n_pairs, dtype=torch.int64, device=lengths.device)
        place[short] = torch.arange(len(short), device=lengths.device)
        bond_weight = self._linear("bond_weights_bg", self._radial("bg", lengths[short], BOND_CUTOFF_A))
        atom_weight = self._linear("bond_weights_ag", atom_bases)
        atoms = self.weights["atom_embedding.embedding.weight"][batch.numbers - 1]
        bonds = self._linear("bond_embedding", atom_bases)
        angles = self._angle_features(batch, lengths)
        triple = (place[batch.left % n_pairs], place[batch.right % n_pairs], batch.centre[batch.left])
        layers = []
        for k in range(N_LAYERS):
            atoms = self._atom_layer(f"atom_conv_layers.{k}", batch, atoms, bonds, atom_weight)
            layers.append(atoms)
            if k + 1 < N_LAYERS and len(short):
                updated = self._bond_layer(
                    f"bond_conv_layers.{k}", triple, atoms, bonds[short], bond_weight, angles
                )
                bonds = bonds.index_copy(0, short, updated)
                angles = self._angle_layer(f"angle_layers.{k}", triple, atoms, updated, angles)
        hidden = self._norm("readout_norm", atoms)
        for k in (0, 2, 4):
            hidden = torch.nn.functional.silu(self._linear(f"mlp.layers.{k}", hidden))
        return hidden, layers

    def _radial(self, which: str, lengths: torch.Tensor, cutoff_a: float) -> torch.Tensor:
        """Bessel functions of distances under a smooth cutoff, shape (n, 31)."""
        import torch

        frequencies = self.weights[f"bond_basis_expansion.rbf_expansion_{which}.frequencies"]
        scaled, p = lengths / cutoff_a, _ENVELOPE
        envelope = (
            1
            - (p + 1) * (p + 2) / 2 * scaled**p
            + p * (p + 2) * scaled ** (p + 1)
            - p * (p + 1) / 2 * scaled ** (p + 2)
        )
        factor = math.sqrt(2 / cutoff_a) * torch.where(scaled < 1, envelope, 0.0) / lengths
        waves = torch.sin(scaled[:, None] * frequencies.double())
        return (factor[:, None] * waves).to(frequencies.dtype)

    def _angle_features(self, batch: AngleBatch, lengths: torch.Tensor) -> torch.Tensor:
        """Fourier series of the angles, embedded, shape (n_angles, 64)."""
        import torch

        frequencies = self.weights["angle_basis_expansion.fourier_expansion.frequencies"]
        n_pairs, parts = len(lengths), []
        unit = batch.vectors / lengths[:, None]
        for piece in self._pieces(len(batch.left)):
            left, right = batch.left[piece], batch.right[piece]
            cosine = (unit[left % n_pairs] * unit[right % n_pairs]).sum(dim=1)
            same_way = (left < n_pairs) == (right < n_pairs)
            angle = torch.acos(torch.where(same_way, cosine, -cosine) * (1 - 1e-6))
            waves = angle[:, None] * frequencies.double()
            constant = torch.full_like(angle, math.sqrt(0.5))[:, None]
            series = torch.cat([constant, torch.sin(waves), torch.cos(waves)], dim=1) / math.sqrt(math.pi)
            parts.append(self._linear("angle_embedding", series.to(frequencies.dtype)))
        return torch.cat(parts) if parts else frequencies.new_zeros((0, WIDTH))

    def _atom_layer(
        self,
        name: str,
        batch: AngleBatch,
        atoms: torch.Tensor,
        bonds: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """Messages along edges, summed at the atom where each begins."""
        import torch

        of_centre, of_bond, of_neighbour = self._split_first(f"{name}.twoBody_atom", 3)
        from_centre = torch.nn.functional.linear(atoms, *of_centre)
        from_bond = torch.nn.functional.linear(bonds, *of_bond)
        from_neighbour = torch.nn.functional.linear(atoms, *of_neighbour)
        total = torch.zeros_like(atoms)
        for piece in self._pieces(len(batch.centre)):
            centre = batch.centre[piece]
            pair = torch.arange(piece.start, piece.stop, device=atoms.device) % len(bonds)
            joined = from_centre[centre] + from_bond[pair] + from_neighbour[batch.neighbour[piece]]
            total.index_add_(0, centre, self._gated(f"{name}.twoBody_atom", joined) * weight[pair])
        return self._linear(f"{name}.mlp_out.layers.1", total) + atoms

    def _bond_layer(
        self,
        name: str,
        triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        atoms: torch.Tensor,
        bonds: torch.Tensor,
        weight: torch.Tensor,
        angles: torch.Tensor,
    ) -> torch.Tensor:
        """Messages along angles, summed at the first of their bonds."""
        import torch

        total = torch.zeros_like(bonds)
        for piece, joined in self._joined(name, triple, atoms, bonds, angles):
            left, right = triple[0][piece], triple[1][piece]
            message = self._gated(f"{name}.twoBody_bond", joined) * weight[left] * weight[right]
            total.index_add_(0, left, message)
        return self._linear(f"{name}.mlp_out.layers.1", total) + bonds

    def _angle_layer(
        self,
        name: str,
        triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        atoms: torch.Tensor,
        bonds: torch.Tensor,
        angles: torch.Tensor,
    ) -> torch.Tensor:
        out = angles.clone()
        for piece, joined in self._joined(name, triple, atoms, bonds, angles):
            out[piece] += self._gated(f"{name}.twoBody_bond", joined)
        return out

    def _joined(
        self,
        name: str,
        triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        atoms: torch.Tensor,
        bonds: torch.Tensor,
        angles: torch.Tensor,
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """First linear map of the features of two bonds, their angle and their atom, piece by piece."""
        import torch

        of_left, of_right, of_angle, of_centre = self._split_first(f"{name}.twoBody_bond", 4)
        from_left = torch.nn.functional.linear(bonds, *of_left)
        from_right = torch.nn.functional.linear(bonds, *of_right)
        from_centre = torch.nn.functional.linear(atoms, *of_centre)
        for piece in self._pieces(len(angles)):
            left, right, centre = (index[piece] for index in triple)
            from_angle = torch.nn.functional.linear(angles[piece], *of_angle)
            yield piece, from_left[left] + from_right[right] + from_angle + from_centre[centre]

    def _split_first(self, name: str, n_parts: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """First linear map of a gated block, core and gate together, one for each part of its input."""
        import torch

        first = "1" if f"{name}.mlp_core.layers.1.weight" in self.weights else "0"
        parts = [f"{name}.{branch}.layers.{first}" for branch in ("mlp_core", "mlp_gate")]
        weight = torch.cat([self.weights[f"{part}.weight"] for part in parts])
        bias = torch.cat([self.weights[f"{part}.bias"] for part in parts])
        return [(w, bias if k == 0 else None) for k, w in enumerate(weight.chunk(n_parts, dim=1))]

    def _gated(self, name: str, joined: torch.Tensor) -> torch.Tensor:
        """The rest of a gated block: its hidden layer where it has one, norms, core times gate."""
        import torch

        silu = torch.nn.functional.silu
        core, gate = joined.chunk(2, dim=1)
        if f"{name}.mlp_core.layers.3.weight" in self.weights:
            core = self._linear(f"{name}.mlp_core.layers.3", silu(core))
            gate = self._linear(f"{name}.mlp_gate.layers.3", silu(gate))
        return silu(self._norm(f"{name}.bn1", core)) * torch.sigmoid(self._norm(f"{name}.bn2", gate))

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.linear(
            values, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        )

    def _norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        import torch

        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(values, (values.shape[-1],), weight, bias)

    def _pieces(self, n: int) -> Iterator[slice]:
        for start in range(0, n, self.rows_per_piece):
            yield slice(start, min(start + self.rows_per_piece, n))
