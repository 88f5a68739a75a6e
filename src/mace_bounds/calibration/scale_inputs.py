"""What a scale model sees of a row, and the bounded regression columns made from it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError

_TABLES = ("fractions", "features")
_OPTIONAL = ("features", "ellipsoid_std")


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
    features : ndarray, shape (n, p), optional
        The model's features per atom, as they are; no columns if not given.
    ellipsoid_std : ndarray, shape (n,), optional
        Standard deviation of the ellipsoid posterior, eV/atom, where the head has one.
    """

    support_width: NDArray[np.float64]
    box_std: NDArray[np.float64]
    leverage: NDArray[np.float64]
    epistemic_std: NDArray[np.float64]
    fractions: NDArray[np.float64]
    n_atoms: NDArray[np.float64]
    features: NDArray[np.float64] | None = None
    ellipsoid_std: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name in self._given():
            array = np.asarray(getattr(self, name), dtype=np.float64)
            dimensions = 2 if name in _TABLES else 1
            if array.ndim != dimensions or len(array) != len(self.n_atoms):
                raise HeadError(
                    f"Expected scale inputs of one length, got {name} of shape {array.shape} for "
                    f"{len(self.n_atoms)} rows; align them."
                )
            if not np.all(np.isfinite(array)) or (name != "features" and np.any(array < 0)):
                raise HeadError(
                    f"Expected finite, non-negative scale inputs, got others in {name}; drop those rows."
                )
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.n_atoms)

    def _given(self) -> list[str]:
        names = [field.name for field in fields(self)]
        return [name for name in names if name not in _OPTIONAL or getattr(self, name) is not None]

    def take(self, rows: NDArray[np.generic]) -> ScaleInputs:
        """Return the rows chosen by an index or a boolean mask."""
        return ScaleInputs(**{name: getattr(self, name)[rows] for name in self._given()})

    @property
    def columns(self) -> NDArray[np.float64]:
        """Features, then atomic fractions: the space in which distances are measured, shape (n, p + n_elements)."""
        return self.fractions if self.features is None else np.column_stack([self.features, self.fractions])

    @property
    def elements(self) -> NDArray[np.bool_]:
        """Which elements occur in any row, shape (n_elements,)."""
        return np.asarray((self.fractions > 0).any(axis=0), dtype=np.bool_)

    def widths(self) -> NDArray[np.float64]:
        """Return support, box, leverage, size and, where there is one, ellipsoid, shape (n, 4 or 5)."""
        base = [self.support_width, self.box_std, self.leverage, self.n_atoms]
        return np.column_stack(base if self.ellipsoid_std is None else [*base, self.ellipsoid_std])

    def floors(self) -> NDArray[np.float64]:
        """Return the smallest value of each of :meth:`widths` that a logarithm tells apart: 1e-3 of the median."""
        return np.maximum(1e-3 * np.median(self.widths(), axis=0), 1e-12)

    def log_columns(self, floors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`widths`, each floored first."""
        return np.log(np.maximum(self._widths_like(len(floors)), floors))

    def variance_columns(self, n_columns: int | None = None) -> NDArray[np.float64]:
        """Return the columns [1, support², box², leverage, 1/n_atoms] and, where there is one, ellipsoid²."""
        widths = self.widths() if n_columns is None else self._widths_like(n_columns - 1)
        ones = np.ones(len(self))
        near = [ones, widths[:, 0] ** 2, widths[:, 1] ** 2, widths[:, 2], 1.0 / np.maximum(widths[:, 3], 1.0)]
        return np.column_stack([*near, widths[:, 4:] ** 2])

    def _widths_like(self, n_columns: int) -> NDArray[np.float64]:
        """Widths as a fitted model expects them: a head from before the ellipsoid does not look at it."""
        widths = self.widths()
        if widths.shape[1] < n_columns:
            raise HeadError(
                "Expected the ellipsoid's width, with which this scale was fitted, got none; use the head's own "
                "posterior, or fit the scale anew."
            )
        return widths[:, :n_columns]
