"""What every backbone is: a frozen network whose energy is linear in the features of its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    from numpy.typing import NDArray

FeatureKind = Literal["readout", "descriptors"]


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Features and energies of some crystals, in their order.

    Attributes
    ----------
    features : ndarray of float64, shape (n_crystals, n_features)
        Sums over atoms; without the count of atoms.
    fixed_energy_ev : ndarray of float64, shape (n_crystals,)
        The part of the energy that no readout weight changes (isolated atoms, pair repulsion).
    energy_ev : ndarray of float64, shape (n_crystals,)
        The model's total energy, θ0 · [features, n_atoms] + fixed_energy_ev.
    atoms : ndarray of float32, shape (n_atoms, n_features), or None
        Features of every single atom, crystal after crystal, where they were asked for.
    """

    features: NDArray[np.float64]
    fixed_energy_ev: NDArray[np.float64]
    energy_ev: NDArray[np.float64]
    atoms: NDArray[np.float32] | None = None


@runtime_checkable
class Backbone(Protocol):
    """A frozen network with its readout taken off.

    Whatever has these members can be used wherever a model is named: :func:`mace_bounds.extract`,
    :class:`mace_bounds.BoundsPredictor`, :func:`mace_bounds.audit`. Its energy must be
    ``features @ theta0_ev[:-1] + n_atoms * theta0_ev[-1] + fixed_energy_ev``, exactly.
    ``docs/dev/add-a-backbone.md`` makes one in fifty lines.
    """

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its tensors, hex: the same however the file was saved. Stores, heads and tables carry it."""
        ...

    @property
    def head(self) -> str:
        """Which of its readouts is used, where it has several."""
        ...

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements it knows."""
        ...

    @property
    def cutoff_a(self) -> float:
        """Radius of its neighbour list, Å."""
        ...

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``: precision of the forward; sums and energies are float64."""
        ...

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        ...

    @property
    def training_compositions(self) -> NDArray[np.uint64] | None:
        """Keys of the compositions of its training (:func:`mace_bounds.structures.composition_key`), where known."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about it."""
        ...

    @property
    def theta0_ev(self) -> NDArray[np.float64]:
        """Weights of the frozen readout on [Σ readout features, n_atoms], eV, shape (n_features + 1,)."""
        ...

    def columns(self, kind: FeatureKind = "readout") -> list[str]:
        """Names of the feature columns, in order."""
        ...

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """Run the network on crystals whose elements it knows; rows in their order."""
        ...
