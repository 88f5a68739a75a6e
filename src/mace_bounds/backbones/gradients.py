"""Derivatives of features and energies with respect to positions and strain: what forces and stress are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.backbones.base import Backbone, FeatureKind
from mace_bounds.errors import ModelError
from mace_bounds.structures import Crystal


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Energies of one crystal by K linear heads, with their forces and stresses."""

    energy_ev: NDArray[np.float64]  # shape (K,)
    forces_ev_a: NDArray[np.float64]  # shape (K, n_atoms, 3): eV/Å
    stress_ev_a3: NDArray[np.float64]  # shape (K, 3, 3): eV/Å³, symmetric, positive under tension as in ase


@dataclass(frozen=True, eq=False)
class FeatureGradients:
    """Summed features of one crystal with their derivatives, and energy, forces and stress of the frozen model.

    Columns are those of :meth:`Backbone.columns`. The energy is linear in them, so that every derivative of every
    linear head is a product of arrays: a head that adds ``c · features`` to the model's energy changes the forces by
    ``-d_positions @ c`` and the stress by ``d_strain @ c / volume_a3`` (:meth:`derivatives`). One that replaces the
    readout ``theta0_ev`` of the model by other weights θ has ``c = θ - theta0_ev[:-1]``.
    """

    features: NDArray[np.float64]  # shape (C,): sums over atoms
    d_positions: NDArray[np.float64]  # shape (n_atoms, 3, C): 1/Å
    # shape (3, 3, C): per unit of symmetric strain, which takes positions and cell vectors r to (1 + ε) r
    d_strain: NDArray[np.float64]
    volume_a3: float
    # the model's own energy, forces, shape (n_atoms, 3), and stress, shape (3, 3)
    energy_ev: float
    forces_ev_a: NDArray[np.float64]
    stress_ev_a3: NDArray[np.float64]
    # the part of these that no weight of the readout changes: isolated atoms, pair repulsion
    fixed_energy_ev: float
    fixed_forces_ev_a: NDArray[np.float64]
    fixed_stress_ev_a3: NDArray[np.float64]

    def derivatives(self, corrections_ev: ArrayLike) -> Derivatives:
        """Energies, forces and stresses of the model with ``corrections_ev`` · features added.

        Parameters
        ----------
        corrections_ev : array, shape (K, C)
            Weights, eV for a unit of each summed feature; zeros for the model itself.
        """
        weights = require_weights(corrections_ev, len(self.features))
        return Derivatives(
            self.energy_ev + weights @ self.features,
            self.forces_ev_a - np.moveaxis(self.d_positions @ weights.T, -1, 0),
            self.stress_ev_a3 + np.moveaxis(self.d_strain @ weights.T, -1, 0) / self.volume_a3,
        )


class Evaluation(Protocol):
    """One crystal on which a network was run; its derivatives are computed when they are asked for.

    For molecular dynamics and relaxations, where a few vector-Jacobian products are wanted and not all of
    :class:`FeatureGradients`. It holds the memory of the forward pass: let go of it when all is asked.
    """

    @property
    def features(self) -> NDArray[np.float64]:
        """Sums over atoms, shape (C,)."""
        ...

    @property
    def atoms(self) -> NDArray[np.float64]:
        """Features of every atom, shape (n_atoms, C)."""
        ...

    @property
    def energy_ev(self) -> float:
        """The model's own total energy."""
        ...

    @property
    def fixed_energy_ev(self) -> float:
        """The part of it that no weight of the readout changes."""
        ...

    def derivatives(self, corrections_ev: ArrayLike | None = None) -> Derivatives:
        """Energies, forces and stresses of the model with ``corrections_ev`` · features added.

        ``corrections_ev``: shape (K, C), eV for a unit of each summed feature; K backward passes. None is the model
        itself, K = 1.
        """
        ...


@runtime_checkable
class DifferentiableBackbone(Backbone, Protocol):
    """A backbone that also gives derivatives; the optional part of :class:`Backbone`."""

    def evaluate(self, crystal: Crystal, kind: FeatureKind = "readout") -> Evaluation:
        """Run the network on one crystal and keep what its derivatives need."""
        ...

    def feature_gradients(
        self, crystals: Iterable[Crystal], kind: FeatureKind = "readout"
    ) -> Iterator[FeatureGradients]:
        """Derivatives of all columns of crystals, in their order, in bounded memory; small crystals go together."""
        ...


def require_gradients(backbone: Backbone) -> DifferentiableBackbone:
    """Return the backbone itself if it has derivatives.

    Raises
    ------
    ModelError
        If it has none.
    """
    if isinstance(backbone, DifferentiableBackbone):
        return backbone
    raise ModelError(
        f"the backbone {backbone.name} gives no derivatives of its features, which forces and stress need; use a MACE "
        "model."
    )


def require_weights(weights: ArrayLike, n_columns: int) -> NDArray[np.float64]:
    """Weights as an array of shape (K, n_columns); ModelError if they have another one."""
    array = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if array.ndim != 2 or array.shape[1] != n_columns:
        raise ModelError(
            f"weights of shape {array.shape} do not fit {n_columns} feature columns; give (n_heads, {n_columns})."
        )
    return array
