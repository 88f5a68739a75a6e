"""From rows of a feature store to what a head and its scale see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.scale_inputs import ScaleInputs
from mace_bounds.features import atomic_fractions, design_matrix

if TYPE_CHECKING:
    from mace_bounds.features import FeatureRows
    from mace_bounds.head import PopsPrediction


@dataclass(frozen=True, eq=False)
class DesignRows:
    """Rows in the form that a head takes.

    Attributes
    ----------
    x : ndarray, shape (n, P)
        Design matrix: features per atom, and behind them the atomic fractions where ``composition``.
    fractions : ndarray, shape (n, 118)
        Atomic fractions.
    n_atoms : ndarray, shape (n,)
        Atoms in the cell.
    composition : bool
        Whether the fractions are columns of ``x``.
    """

    x: NDArray[np.float64]
    fractions: NDArray[np.float64]
    n_atoms: NDArray[np.float64]
    composition: bool

    @property
    def features(self) -> NDArray[np.float64]:
        """The columns of ``x`` that are not the composition."""
        return self.x[:, : -self.fractions.shape[1]] if self.composition else self.x

    def take(self, rows: NDArray[np.bool_]) -> DesignRows:
        """The rows where a mask is true."""
        return DesignRows(self.x[rows], self.fractions[rows], self.n_atoms[rows], self.composition)


def head_inputs(rows: FeatureRows, *, composition: bool) -> DesignRows:
    """Bring rows that have features into the form that a head takes, with or without composition columns."""
    fractions = atomic_fractions(rows.table["elements"].tolist(), rows.table["counts"].tolist())
    n_atoms = rows.table["n_atoms"].to_numpy(dtype=np.float64)
    x = design_matrix(rows.features, n_atoms, fractions, composition=composition)
    return DesignRows(x, fractions, n_atoms, composition)


def scale_inputs(pops: PopsPrediction, rows: DesignRows) -> ScaleInputs:
    """Pick what the scale sees from the rows and what the POPS head predicts of them."""
    return ScaleInputs(
        support_width=0.5 * (pops.support_upper - pops.support_lower),
        box_std=pops.misspecification_std,
        leverage=pops.leverage,
        epistemic_std=pops.epistemic_std,
        fractions=rows.fractions,
        n_atoms=rows.n_atoms,
        features=rows.features,
        ellipsoid_std=None if np.isnan(pops.ellipsoid_std).any() else pops.ellipsoid_std,
    )
