"""Intervals of sums of energies in which errors cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtr

from mace_bounds.decisions.groups import POLYMORPH, REACTION, STRAINED
from mace_bounds.levels import ONE_SIGMA

if TYPE_CHECKING:
    from mace_bounds.decisions.choosing import JointModel
    from mace_bounds.decisions.joint import JointErrors

Array = NDArray[np.float64]

SINGLE = "single"
"""A sum with one structure beside references without error: its interval is that of the structure."""

NOT_CALIBRATED = "difference_not_calibrated"
"""Flag of a sum whose interval is that of independent errors, because nothing better was measured."""


@dataclass(frozen=True, eq=False)
class EnergySums:
    """Sums Σ c_i E_i, k of them over m structures."""

    coefficients: csr_matrix  # shape (k, m): of the energies per atom
    kinds: NDArray[np.str_]  # shape (k,): from :func:`kinds_of`, or ``strained``
    strain: Array  # shape (k,): change of ln V where they are strained

    def of_kind(self, kind: str) -> tuple[NDArray[np.int64], csr_matrix, Array | None]:
        """Places, coefficients and, where they are strained, strains of one kind."""
        rows = np.flatnonzero(self.kinds == kind)
        return rows, self.coefficients[rows], self.strain[rows] if kind == STRAINED else None


@dataclass(frozen=True, eq=False)
class DifferenceBounds:
    """Sums Σ c_i E_i of k rows; energies in eV/atom, shape (k,) each."""

    value: Array  # best guess of the DFT difference: the model's and the expected errors
    std: Array
    lower: Array
    upper: Array
    independent_lower: Array
    independent_upper: Array
    probability_lower: Array  # that the DFT difference is below 0
    calibrated: NDArray[np.bool_]  # whether the interval was calibrated on differences of its kind


def kinds_of(coefficients: csr_matrix, formulas: Sequence[str]) -> NDArray[np.str_]:
    """``single``, ``polymorph`` or ``reaction`` for each row of sums over structures of these reduced formulas."""
    code = np.unique(np.asarray(formulas, dtype=str), return_inverse=True)[1]
    out = np.full(coefficients.shape[0], REACTION, dtype="<U9")
    for k in range(coefficients.shape[0]):
        part = slice(coefficients.indptr[k], coefficients.indptr[k + 1])
        inside = coefficients.indices[part][coefficients.data[part] != 0]
        if len(inside) == 1:
            out[k] = SINGLE
        elif len(np.unique(code[inside])) == 1:
            out[k] = POLYMORPH
    return out


def difference_bounds(
    model_ev_per_atom: Array,
    sums: EnergySums,
    joint: JointErrors,
    model: JointModel,
    bounds: tuple[Array, Array],
    level: float,
) -> DifferenceBounds:
    """Bound sums of energies.

    Parameters
    ----------
    model_ev_per_atom : ndarray, shape (k,)
        The sums by the model's energies, with references that have no error.
    sums : EnergySums
        Over the energies per atom of m structures.
    joint : JointErrors
        Of the m structures.
    model : JointModel
        Of the head: scores of left-out differences by kind.
    bounds : (lower, upper), shape (m,) each
        Calibrated bounds of the error of each structure at the level, eV/atom.
    level : float
        Nominal coverage.

    Returns
    -------
    DifferenceBounds
    """
    coefficients, middle = sums.coefficients, joint.marginals.middle
    value = model_ev_per_atom + coefficients @ middle
    lower, upper = bounds
    positive, negative = coefficients.maximum(0), -(coefficients.minimum(0))
    down = positive @ (middle - lower) + negative @ (upper - middle)
    up = positive @ (upper - middle) + negative @ (middle - lower)
    half = np.sqrt(coefficients.power(2) @ np.square(0.5 * (upper - lower)))
    alone = sums.kinds == SINGLE
    independent_down, independent_up = np.where(alone, down, half), np.where(alone, up, half)
    apart = joint.independent_std(coefficients)
    std, low, high = apart.copy(), independent_down.copy(), independent_up.copy()
    probability = np.asarray(ndtr(-value / np.maximum(apart, 1e-12)))
    calibrated = alone.copy()
    for k in np.flatnonzero(alone):
        (place,) = coefficients.indices[coefficients.indptr[k] : coefficients.indptr[k + 1]]
        share = coefficients.data[coefficients.indptr[k]]
        under = joint.marginals.cdf(int(place), float(-model_ev_per_atom[k] / share))
        probability[k] = under if share > 0 else 1.0 - under
    for kind, scores in model.scores.items():
        rows, some, strain = sums.of_kind(kind)
        reach = scores.half_width(level)
        if not len(rows) or not np.isfinite(reach):
            continue
        calibrated[rows] = True
        width = scores.widths(joint, some, strain)
        low[rows] = high[rows] = reach * width
        one = scores.half_width(ONE_SIGMA)
        std[rows] = (one if np.isfinite(one) else 1.0) * width
        probability[rows] = scores.probability_below(value[rows] / np.maximum(width, 1e-12))
    return DifferenceBounds(
        value,
        std,
        value - low,
        value + high,
        value - independent_down,
        value + independent_up,
        probability,
        calibrated,
    )


def sums(parts: Sequence[Sequence[tuple[int, float]]], m: int) -> csr_matrix:
    """Rows of (structure, coefficient), added up where a structure comes twice; shape (k, m)."""
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    columns = np.array([i for part in parts for i, _ in part], dtype=np.int64)
    values = np.array([c for part in parts for _, c in part], dtype=np.float64)
    matrix = csr_matrix((values, (rows, columns)), shape=(len(parts), m))
    matrix.sum_duplicates()
    return matrix
