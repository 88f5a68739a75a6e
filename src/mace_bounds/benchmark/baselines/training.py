"""What the fits have in common: clean rows in a fixed order, folds by composition, columns, and the scale α."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import BaselineRows
from mace_bounds.errors import HeadError
from mace_bounds.head import Design, PopsConfig, TsqrFactor, make_design
from mace_bounds.structures import composition_key

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

    Raises
    ------
    HeadError
        If a label is missing, or fewer than 10 rows or 5 compositions are left.
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
    order = np.lexsort((mixed, kept.centre, kept.weights, kept.n_atoms, kept.y, kept.groups))
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
    """Standardised columns with a constant, and the eigenbasis of their second moment.

    Attributes
    ----------
    design : Design
        Raw columns (P) to standardised ones with the constant last (m).
    basis : ndarray, shape (m, m)
        Eigenvectors V of C = Σ w z zᵀ / Σ w, stiffest first.
    eigenvalues : ndarray, shape (m,)
        Their eigenvalues, not negative; dimensionless, mean 1.
    """

    design: Design
    basis: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]

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

    Parameters
    ----------
    error : ndarray, shape (n,)
        Errors of rows that were left out where the shapes were made, eV/atom.
    shapes : ndarray, shape (n, k)
        k candidate shapes, positive, any unit.
    weights : ndarray, shape (n,)

    Returns
    -------
    index : int
        The best shape; the first of equal ones.
    alpha : float
        Its factor: eV/atom over the unit of the shape. Positive.
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
