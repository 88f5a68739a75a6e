"""The one shape that every baseline has: rows in, centre and width out."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError

_PER_ROW = ("y", "centre", "groups", "weights", "n_atoms")


@dataclass(frozen=True, eq=False)
class BaselineRows:
    """What every baseline may see of n structures.

    Attributes
    ----------
    x : ndarray of float64, shape (n, P)
        Design matrix of the head: features per atom and atomic fractions.
    y : ndarray of float64, shape (n,)
        E_DFT - E_MACE, eV/atom; NaN where it is to be predicted.
    centre : ndarray of float64, shape (n,)
        Middle of the interval that width-only baselines are put around, eV/atom (0 is MACE's own energy).
    groups : ndarray of str, shape (n,)
        Compositions: rows that must not be split between folds.
    weights : ndarray of float64, shape (n,)
        Not negative; rows of weight zero take no part in a fit.
    n_atoms : ndarray of float64, shape (n,)
        Sizes.
    fractions : ndarray of float64, shape (n, 118)
        Atomic fractions.

    Raises
    ------
    HeadError
        If lengths differ, or features, centres or weights are not finite.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    centre: NDArray[np.float64]
    groups: NDArray[np.str_]
    weights: NDArray[np.float64]
    n_atoms: NDArray[np.float64]
    fractions: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse rows that do not match."""
        n = len(self.x)
        wrong = [name for name in _PER_ROW if np.shape(getattr(self, name)) != (n,)]
        if self.x.ndim != 2 or wrong or self.fractions.shape[:1] != (n,):
            raise HeadError(
                f"x {self.x.shape}, fractions {self.fractions.shape} and {', '.join(wrong) or 'the others'} do "
                "not have the same rows; align them to x (n, P), fractions (n, 118) and (n,)."
            )
        finite = np.isfinite(self.x).all() and np.isfinite(self.centre).all()
        if not finite or not (np.isfinite(self.weights) & (self.weights >= 0.0)).all():
            raise HeadError(
                "features and centres must be finite and weights not negative; leave other rows out."
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.x)

    @property
    def error(self) -> NDArray[np.float64]:
        """Label relative to the centre, y - centre, shape (n,), eV/atom."""
        return np.asarray(self.y - self.centre)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> BaselineRows:
        """Return the rows of a mask or in an order."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Widths:
    """A prediction; both arrays have shape (n,) and unit eV/atom.

    Attributes
    ----------
    centre : ndarray of float64
        Middle of the interval for E_DFT - E_MACE.
    sigma : ndarray of float64
        Its width as a standard deviation; finite and positive.
    """

    centre: NDArray[np.float64]
    sigma: NDArray[np.float64]


@runtime_checkable
class FittedBaseline(Protocol):
    """A baseline after its fit."""

    def predict(self, rows: BaselineRows) -> Widths:
        """Return centre and width of every row; ``rows.y`` and ``rows.weights`` are not looked at."""

    def n_bytes(self) -> int:
        """Bytes of the arrays that must be kept to predict."""


@runtime_checkable
class Baseline(Protocol):
    """A way to put error bars on energies; ``fit`` sees training rows only."""

    @property
    def name(self) -> str:
        """Key in :data:`BASELINES`."""

    def fit(self, rows: BaselineRows, seed: int) -> FittedBaseline:
        """Fit to labelled rows; the same seed gives the same result, whatever the order of the rows."""


def array_bytes(part: object) -> int:
    """Bytes of every array in a dataclass, sequence or array; 8 for a number."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if is_dataclass(part):
        return sum(array_bytes(getattr(part, f.name)) for f in fields(part))
    if isinstance(part, (tuple, list)):
        return sum(array_bytes(item) for item in part)
    return 8
