"""The energy of a cell as a function of coordinates: positions, and the cell where it may change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from mace_bounds.backbones import DifferentiableBackbone, require_gradients
from mace_bounds.propagation.cells import VOIGT, strain_tensor
from mace_bounds.propagation.invariance import Operations, operations_of
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.propagation.potential import Potential

CellFreedom = Literal["fixed", "full"]
_SYMMETRIC_A = 1e-3


@dataclass(frozen=True, eq=False)
class EnergySurface:
    """Energies and gradients by one set of weights, in coordinates q around a cell.

    The first 3 n coordinates are displacements u, Å. With ``cell="full"`` six more are strains ε (Voigt's order, shear
    as 2ε) times the cube root of the volume, so that they are lengths too: positions are (1 + ε)(r + u), the cell
    (1 + ε) h.

    Attributes
    ----------
    backbone : DifferentiableBackbone
    start : Crystal
        Where q = 0.
    theta_ev : ndarray, shape (C,)
        Weights on [Σ features, n_atoms].
    cell : {"fixed", "full"}
    along : ndarray, shape (3,), optional
        Unit vector along which alone atoms move, as in faults, which would slip back otherwise.
    """

    backbone: DifferentiableBackbone
    start: Crystal
    theta_ev: NDArray[np.float64]
    cell: CellFreedom = "fixed"
    along: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        crystal: Crystal,
        potential: Potential,
        cell: CellFreedom = "fixed",
        along: NDArray[np.float64] | None = None,
    ) -> EnergySurface:
        """By the mean of a potential; ModelError where the backbone has no derivatives."""
        return cls(require_gradients(potential.backbone), crystal, potential.mean_ev, cell, along)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return 3 * len(self.start.numbers) + (6 if self.cell == "full" else 0)

    @cached_property
    def length_a(self) -> float:
        """Cube root of the volume at q = 0, Å."""
        return float(self.start.volume ** (1.0 / 3.0))

    @cached_property
    def translations(self) -> NDArray[np.float64]:
        """Orthonormal directions that move all atoms alike, shape (3, d)."""
        n = len(self.start.numbers)
        out = np.zeros((3, self.size))
        for axis in range(3):
            out[axis, axis : 3 * n : 3] = n**-0.5
        return out

    @cached_property
    def held(self) -> NDArray[np.float64]:
        """Orthonormal directions of no motion, shape (h, d): translations, and those across ``along``."""
        if self.along is None:
            return self.translations
        n = len(self.start.numbers)
        normal = self.along / np.linalg.norm(self.along)
        across = np.zeros((2 * n, self.size))
        across[:, : 3 * n] = np.kron(np.eye(n), np.linalg.svd(normal[None])[2][1:])
        return np.concatenate([normal[None] @ self.translations, across])

    def free(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates or gradient without directions of no motion, shape (d,)."""
        return np.asarray(q - self.held.T @ (self.held @ q))

    @cached_property
    def operations(self) -> Operations:
        """Symmetry operations of the start, by which the energy of coordinates does not change."""
        return operations_of(self.start)

    def symmetric(self, q: NDArray[np.float64]) -> tuple[NDArray[np.float64], Operations]:
        """Coordinates without what breaks a symmetry by less than 1e-3 Å, and the operations that keep them."""
        n = len(self.start.numbers)
        carried = self.operations.moved(q[: 3 * n].reshape(n, 3)).reshape(len(self.operations), -1)
        if self.cell == "full":
            carried = np.column_stack([carried, self.operations.strained() @ q[-6:]])
        # the whole may move along: its place costs nothing
        carried -= (carried - q) @ self.translations.T @ self.translations
        kept = np.abs(carried - q).max(axis=1) < _SYMMETRIC_A
        return carried[kept].mean(axis=0), self.operations[kept]

    def crystal(self, q: NDArray[np.float64]) -> Crystal:
        """The cell at coordinates q."""
        n = len(self.start.numbers)
        stretch = self._stretch(q)
        moved = self.start.positions + q[: 3 * n].reshape(n, 3)
        return Crystal(self.start.numbers, moved @ stretch, self.start.cell @ stretch)

    def energy_and_gradient(self, q: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Energy, eV, and its gradient (d,), eV/Å."""
        change = self.theta_ev[:-1] - self.backbone.theta0_ev[:-1]
        crystal = self.crystal(q)
        found = self.backbone.evaluate(crystal).derivatives(change[None])
        shift = (self.theta_ev[-1] - self.backbone.theta0_ev[-1]) * len(crystal.numbers)
        by_strain = found.stress_ev_a3[0] * crystal.volume
        return float(found.energy_ev[0] + shift), self._pulled(q, -found.forces_ev_a[0], by_strain)

    def gradient(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the energy, shape (d,), eV/Å."""
        return self.energy_and_gradient(q)[1]

    def feature_gradients(
        self, q: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
        """Features (C,) with the count of atoms, the fixed energy, and ∂φ/∂q (d, C)."""
        crystal = self.crystal(q)
        found = next(iter(self.backbone.feature_gradients([crystal])))
        columns = [
            self._pulled(q, found.d_positions[..., c], found.d_strain[..., c])
            for c in range(len(found.features))
        ]
        slopes = np.column_stack([*columns, np.zeros(self.size)])
        return np.append(found.features, len(crystal.numbers)), float(found.fixed_energy_ev), slopes

    def _stretch(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.cell == "fixed":
            return np.eye(3)
        return np.eye(3) + strain_tensor(q[-6:] / self.length_a)

    def _pulled(
        self, q: NDArray[np.float64], by_position: NDArray[np.float64], by_strain: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """From derivatives by positions (n, 3) and by a strain of the present cell (3, 3) to those by q."""
        stretch = self._stretch(q)
        moved = (by_position @ stretch).ravel()
        if self.cell == "fixed":
            return np.asarray(moved)
        # dr = dε (r + u) is the strain dε (1 + ε)⁻¹ of the present cell, whose turning costs nothing
        tensor = by_strain @ np.linalg.inv(stretch)
        tensor = 0.5 * (tensor + tensor.T)
        voigt = [
            tensor[i, j] for i, j in VOIGT
        ]  # shear strain 2ε has the derivative of ε_ij and ε_ji, halved
        return np.concatenate([moved, np.array(voigt) / self.length_a])
