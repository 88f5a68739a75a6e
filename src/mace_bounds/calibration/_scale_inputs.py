"""What a scale model sees of a row, and how it is turned into bounded regression columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError

LOG_TERMS: tuple[str, ...] = ("log_support", "log_box", "log_leverage", "log_n_atoms")


@dataclass(frozen=True, eq=False)
class ScaleInputs:
    """Quantities of n rows from which σ(x) is predicted.

    Attributes
    ----------
    support_width : ndarray, shape (n,)
        Half-width of the POPS support, eV/atom.
    box_std : ndarray, shape (n,)
        Misspecification standard deviation of the hypercube, eV/atom.
    leverage : ndarray, shape (n,)
        Leverage of the row against the training rows; leave-one-out values for training rows.
    epistemic_std : ndarray, shape (n,)
        Standard deviation from the weights' posterior, eV/atom.
    fractions : ndarray, shape (n, n_elements)
        Atomic fractions in the order of the model's elements; rows sum to one.
    n_atoms : ndarray, shape (n,)
        Atoms in the cell.
    """

    support_width: NDArray[np.float64]
    box_std: NDArray[np.float64]
    leverage: NDArray[np.float64]
    epistemic_std: NDArray[np.float64]
    fractions: NDArray[np.float64]
    n_atoms: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            dimensions = 2 if name == "fractions" else 1
            if array.ndim != dimensions or len(array) != len(self.n_atoms):
                raise HeadError(
                    f"Expected scale inputs of one length, got {name} of shape {array.shape} for "
                    f"{len(self.n_atoms)} rows; align them."
                )
            if not np.all(np.isfinite(array)) or np.any(array < 0):
                raise HeadError(
                    f"Expected finite, non-negative scale inputs, got others in {name}; drop those rows."
                )
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.n_atoms)

    def take(self, rows: NDArray[np.generic]) -> ScaleInputs:
        """Return the rows chosen by an index or a boolean mask."""
        return ScaleInputs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def floors(self) -> NDArray[np.float64]:
        """Return the smallest value that each logarithm tells apart: 1e-3 of the median, shape (4,)."""
        columns = (self.support_width, self.box_std, self.leverage, self.n_atoms)
        return np.array([max(1e-3 * float(np.median(column)), 1e-12) for column in columns])

    def log_columns(self, floors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the columns :data:`LOG_TERMS`, shape (n, 4), each quantity floored before its logarithm."""
        columns = (self.support_width, self.box_std, self.leverage, self.n_atoms)
        return np.column_stack(
            [np.log(np.maximum(column, floor)) for column, floor in zip(columns, floors, strict=True)]
        )

    def variance_columns(self) -> NDArray[np.float64]:
        """Return the columns [1, support², box², leverage, 1 / n_atoms], shape (n, 5)."""
        return np.column_stack(
            [
                np.ones(len(self)),
                self.support_width**2,
                self.box_std**2,
                self.leverage,
                1.0 / np.maximum(self.n_atoms, 1.0),
            ]
        )
