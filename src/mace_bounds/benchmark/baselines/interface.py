"""The one shape that every baseline has, rows in, centre and width out; and what their fits share."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import reduce
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head import Design, PopsConfig, TsqrFactor, make_design
from mace_bounds.structures import composition_key

Part = Literal["features", "linear"]
"""Columns of a design: all features without the atomic fractions, or those that a linear readout takes."""
LINEAR = "_linear"
"""In the names of features that enter a linear readout as they are."""
_PER_ROW = ("y", "centre", "groups", "weights")


@dataclass(frozen=True, eq=False)
class BaselineRows:
    """What every baseline may see of n structures.

    Raises
    ------
    HeadError
        If lengths differ, or features, centres or weights are not finite.
    """

    x: NDArray[np.float64]  # shape (n, P): design matrix of the head: features per atom and atomic fractions
    y: NDArray[np.float64]  # shape (n,): E_DFT - E_MACE, eV/atom; NaN where it is to be predicted
    # shape (n,): middle of the interval that width-only baselines are put around, eV/atom (0 is MACE's own
    # energy)
    centre: NDArray[np.float64]
    groups: NDArray[np.str_]  # shape (n,): compositions: rows that must not be split between folds
    weights: NDArray[np.float64]  # shape (n,): not negative; rows of weight zero take no part in a fit
    fractions: NDArray[np.float64]  # shape (n, 118): atomic fractions
    # names of the features, which are the first columns of x, in front of atomic fractions; empty: not known
    names: tuple[str, ...] = ()
    # shape (n, k): energies of k other models less those of the model, eV/atom; None where there are none
    others: NDArray[np.float64] | None = None

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
        every: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        taken = {name: value[rows] for name, value in every.items() if isinstance(value, np.ndarray)}
        return BaselineRows(**every | taken)

    def only(self, part: Part) -> BaselineRows:
        """Return the rows with some of their columns; with all where their names are not known."""
        chosen = [k for k, name in enumerate(self.names) if part == "features" or LINEAR in name]
        if not chosen:
            return self
        return replace(self, x=self.x[:, chosen], names=tuple(self.names[k] for k in chosen))


@dataclass(frozen=True, eq=False)
class Widths:
    """A prediction; both arrays have shape (n,) and unit eV/atom."""

    centre: NDArray[np.float64]  # middle of the interval for E_DFT - E_MACE
    sigma: NDArray[np.float64]  # its width as a standard deviation; finite and positive


@runtime_checkable
class FittedBaseline(Protocol):
    """A baseline after its fit."""

    def predict(self, rows: BaselineRows) -> Widths:
        """Return centre and width of every row; ``rows.y`` and ``rows.weights`` are not looked at."""

    def n_bytes(self) -> int:
        """Bytes of what must be kept to predict: by default all arrays and numbers of the dataclass."""
        return array_bytes(self)


@runtime_checkable
class Baseline(Protocol):
    """A way to put error bars on energies; ``fit`` sees training rows only."""

    @property
    def name(self) -> str:
        """Key in :data:`BASELINES`."""

    def fit(self, rows: BaselineRows, seed: int) -> FittedBaseline:
        """Fit to labelled rows; the same seed gives the same result, whatever the order of the rows."""


@dataclass(frozen=True)
class OnPart:
    """Another baseline on some of the columns."""

    name: str
    baseline: Baseline
    part: Part

    def fit(self, rows: BaselineRows, seed: int) -> FittedOnPart:
        """Fit it to these columns alone."""
        return FittedOnPart(self.part, self.baseline.fit(rows.only(self.part), seed))


@dataclass(frozen=True, eq=False)
class FittedOnPart:
    """A fitted baseline, and the columns that it sees."""

    part: Part
    fitted: FittedBaseline

    def predict(self, rows: BaselineRows) -> Widths:
        """What the fitted baseline says of these columns."""
        return self.fitted.predict(rows.only(self.part))

    def n_bytes(self) -> int:
        """Bytes of the fitted baseline."""
        return self.fitted.n_bytes()


def array_bytes(part: object) -> int:
    """Bytes of every array in a dataclass, sequence or array; 8 for a number."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if is_dataclass(part):
        return sum(array_bytes(getattr(part, f.name)) for f in fields(part))
    if isinstance(part, (tuple, list)):
        return sum(array_bytes(item) for item in part)
    return 8


FLOOR_SHARE = 1e-3
"""A width never falls below this share of the mean width of left-out training rows."""
SMALLEST_EV_PER_ATOM = 1e-9
"""Nor below this, which is far beyond the precision of DFT: labels that are all met exactly have no width."""
N_FOLDS = 5
_MINIMUM_ROWS = 10
_MINIMUM_GROUPS = N_FOLDS


def training_rows(rows: BaselineRows) -> BaselineRows:
    """Return the rows of positive weight in an order of their own, weights of mean 1.

    The order follows from the values alone, so that no choice in a fit (a pivot, a first cluster, a
    bootstrap draw) depends on how the rows came.
    """
    kept = rows.take(rows.weights > 0.0)
    n_groups = len(np.unique(kept.groups))
    if len(kept) < _MINIMUM_ROWS or n_groups < _MINIMUM_GROUPS:
        raise HeadError(
            f"{len(kept)} rows of positive weight with {n_groups} compositions are too few for a baseline, which needs "
            f"{_MINIMUM_ROWS} and {_MINIMUM_GROUPS}; add labelled rows."
        )
    if not np.isfinite(kept.y).all():
        raise HeadError("a label of the fit is NaN or infinite; drop such rows.")
    mixed = kept.x @ np.cos(np.arange(1.0, kept.x.shape[1] + 1.0))
    order = np.lexsort((mixed, kept.centre, kept.weights, kept.y, kept.groups))
    kept = kept.take(order)
    return replace(kept, weights=kept.weights / kept.weights.mean())


def composition_folds(groups: NDArray[np.str_], seed: int, n_folds: int = N_FOLDS) -> NDArray[np.int64]:
    """Fold of each row, shape (n,): groups in the order of their hashes, dealt out in turn.

    No group straddles two folds and none of the ``min(n_folds, groups)`` folds is empty.
    """
    names, code = np.unique(groups, return_inverse=True)
    rank = np.argsort(np.argsort([composition_key(f"{seed}:{name}") for name in names]))
    return np.asarray(rank[code] % n_folds, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Columns:
    """Standardised columns with a constant, and the eigenbasis of their second moment."""

    design: Design  # raw columns (P) to standardised ones with the constant last (m)
    basis: NDArray[np.float64]  # shape (m, m): eigenvectors V of C = Σ w z zᵀ / Σ w, stiffest first
    eigenvalues: NDArray[np.float64]  # shape (m,): their eigenvalues, not negative; dimensionless, mean 1

    def rotate(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw rows (n, P) in the eigenbasis, Vᵀz, shape (n, m)."""
        return np.asarray(self.design.transform(x) @ self.basis)


def fold_factors(rows: BaselineRows, folds: NDArray[np.int64]) -> list[TsqrFactor]:
    """One factor of [1 x error] per fold: all that second moments with or without a fold need."""
    parts = [rows.take(folds == fold) for fold in np.unique(folds)]
    return [TsqrFactor(rows.x.shape[1]).update(part.x, part.error, part.weights) for part in parts]


def columns_of(factors: list[TsqrFactor]) -> Columns:
    """Columns and eigenbasis of the rows behind some factors."""
    merged = reduce(TsqrFactor.merge, factors, TsqrFactor(factors[0].columns))
    design = make_design(merged, PopsConfig())
    z = design.transform_factor(merged.r)[:, :-1] / np.sqrt(merged.weight_sum)
    _, singular, vt = np.linalg.svd(z, full_matrices=False)
    return Columns(design, np.ascontiguousarray(vt.T), singular**2)


def training_columns(rows: BaselineRows) -> Columns:
    """Columns and eigenbasis of all rows."""
    return columns_of(fold_factors(rows, np.zeros(len(rows), dtype=np.int64)))


def nll_scale(
    error: NDArray[np.float64], shapes: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[int, float]:
    """Choose the shape s and the factor α that make N(0, (α s)²) the likeliest for errors.

    For a fixed shape the best α is known: α² = Σ w e²/s² / Σ w; what is left of the mean negative
    log-likelihood is log α + mean(log s), up to a constant (for a committee: F. Musil et al., J. Chem. Theory
    Comput. 15, 906 (2019)).

    ``error`` (n,): errors of rows that were left out where the shapes were made, eV/atom; ``shapes`` (n, k):
    k candidate shapes, positive, any unit; ``weights`` (n,).
    Returns ``index``: the best shape; the first of equal ones; ``alpha``: its factor: eV/atom over the unit
    of the shape. Positive.
    """
    share = weights / weights.sum()
    scale = max(float(np.sqrt(share @ error**2)), SMALLEST_EV_PER_ATOM)
    alpha = np.sqrt(share @ (error[:, None] / scale / shapes) ** 2) * scale
    alpha = np.maximum(alpha, SMALLEST_EV_PER_ATOM / (share @ shapes))
    best = int(np.argmin(np.log(alpha) + share @ np.log(shapes)))
    return best, float(alpha[best])


def floor_of(sigma: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Smallest width a baseline may predict, eV/atom, from those of its left-out training rows."""
    return max(FLOOR_SHARE * float(np.average(sigma, weights=weights)), SMALLEST_EV_PER_ATOM)
