"""A frozen network whose readout weights are uncertain: E = φ·θ + fixed, with draws of θ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.errors import HeadError
from mace_bounds.propagation.result import Linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mace_bounds.backbones import Backbone
    from mace_bounds.head import Coefficients
    from mace_bounds.structures import Crystal

NOT_CALIBRATED = "POPS range, not calibrated"
"""What an interval is called that comes from draws alone, whose coverage nobody measured."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of some cells, linear in which is their energy: ``features @ θ + fixed_ev``."""

    features: NDArray[np.float64]  # shape (m, C): sums over atoms, the count of atoms last
    fixed_ev: NDArray[np.float64]  # shape (m,): what no readout weight changes

    def energies_ev(self, theta_ev: NDArray[np.float64]) -> NDArray[np.float64]:
        """Total energies, eV, shape (m,) for weights (C,), (k, m) for weights (k, C)."""
        return np.asarray(theta_ev @ self.features.T + self.fixed_ev)

    def linear(self, k: int) -> Linear:
        """Energy of cell k as a function of the weights."""
        return Linear(self.features[k], float(self.fixed_ev[k]))


@dataclass(frozen=True, eq=False)
class Potential:
    """A frozen backbone with a mean and draws of its readout weights.

    Attributes
    ----------
    backbone : Backbone
        Gives features; float64 is best, since properties are small differences of energies.
    mean_ev : ndarray, shape (C,)
        Weights whose property is the value.
    draws_ev : ndarray, shape (k, C)
        Weights whose properties make the interval; no rows where only the value is wanted.
    bounds : str
        What an interval of the draws is, in words.
    coefficients : Coefficients, optional
        What the draws are of: gives the envelope of properties that are linear in the weights.

    Raises
    ------
    HeadError
        If the weights are not as many as the backbone has columns.
    """

    backbone: Backbone
    mean_ev: NDArray[np.float64]
    draws_ev: NDArray[np.float64]
    bounds: str = NOT_CALIBRATED
    coefficients: Coefficients | None = None

    def __post_init__(self) -> None:
        columns = len(self.backbone.theta0_ev)
        if self.mean_ev.shape != (columns,) or self.draws_ev.shape[1:] != (columns,):
            raise HeadError(
                f"the weights have the shapes {self.mean_ev.shape} and {self.draws_ev.shape}, and {self.backbone.name} "
                f"has {columns} columns; use a head of this model."
            )

    @classmethod
    def of(
        cls, backbone: Backbone, coefficients: Coefficients, n_draws: int = 1000, seed: int = 0
    ) -> Potential:
        """Take the mean of coefficients and draw from them."""
        draws = np.asarray(coefficients.draws(n_draws, seed), dtype=np.float64)
        mean = np.asarray(coefficients.mean, dtype=np.float64)
        return cls(backbone, mean, draws, coefficients=coefficients)

    @classmethod
    def frozen(cls, backbone: Backbone) -> Potential:
        """The model as it is, without draws: values only."""
        return cls(backbone, backbone.theta0_ev, np.empty((0, len(backbone.theta0_ev))))

    @property
    def theta_ev(self) -> NDArray[np.float64]:
        """Mean and draws below each other, shape (1 + k, C)."""
        return np.concatenate([self.mean_ev[None], self.draws_ev])

    def rows(self, crystals: Sequence[Crystal]) -> Rows:
        """Features of cells, computed together."""
        block = self.backbone.extract(crystals)
        n_atoms = np.array([len(crystal.numbers) for crystal in crystals], dtype=np.float64)
        return Rows(np.column_stack([block.features, n_atoms]), block.fixed_energy_ev)

    def energies_ev(self, crystals: Sequence[Crystal]) -> NDArray[np.float64]:
        """Total energies by the mean and by every draw, eV, shape (1 + k, m)."""
        return self.rows(crystals).energies_ev(self.theta_ev)
