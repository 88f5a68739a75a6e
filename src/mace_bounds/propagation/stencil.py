"""First and second derivatives by central differences: which points, and with which weights.

Linear in the energies, so in θ. Symmetry leaves few derivatives to be found, and as many directions are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr

from mace_bounds.propagation.invariance import invariant_forms, invariant_vectors


@dataclass(frozen=True, eq=False)
class Stencil:
    """Points around zero in d coordinates at which gradient and Hessian are finite differences.

    The centre, then steps forwards along some directions, then the same backwards.
    """

    points: NDArray[np.float64]  # shape (m, d)
    to_gradient: NDArray[np.float64]  # shape (d, m)
    to_hessian: NDArray[np.float64]  # shape (d, d, m)

    def gradient(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """First derivatives of k functions with these values (k, m), shape (k, d); error of second order."""
        return np.asarray(values @ self.to_gradient.T)

    def hessian(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Second derivatives of k functions with these values (k, m), shape (k, d, d); error of second order."""
        d = len(self.to_gradient)
        return np.asarray(values @ self.to_hessian.reshape(d * d, -1).T).reshape(-1, d, d)


def central_stencil(steps: ArrayLike, group: NDArray[np.float64] | None = None) -> Stencil:
    """Build the stencil for steps (d,) of functions that a group leaves as they are.

    Parameters
    ----------
    steps : array_like, shape (d,)
        Length of the step along each coordinate.
    group : ndarray, shape (g, d, d), optional
        Matrices S with f(S q) = f(q); by default the identity alone, for 1 + d + d² points.

    References
    ----------
    Second differences along directions: M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions" (1964),
    equation 25.3.23.
    """
    h = np.asarray(steps, dtype=np.float64)
    d = len(h)
    scaled = np.eye(d)[None] if group is None else group / h[:, None] * h
    forms, vectors = invariant_forms(scaled), invariant_vectors(scaled)
    candidates = _directions(d)
    by_form = np.einsum("ci,pij,cj->cp", candidates, forms, candidates)
    chosen = set(_independent(by_form)) | set(_independent(candidates @ vectors.T))
    directions = candidates[sorted(chosen)]
    m = len(directions)
    points = np.concatenate([np.zeros((1, d)), directions, -directions])
    second, first = np.zeros((m, 2 * m + 1)), np.zeros((m, 2 * m + 1))
    up, down = np.arange(1, m + 1), np.arange(m + 1, 2 * m + 1)
    second[:, 0], second[np.arange(m), up], second[np.arange(m), down] = -2.0, 1.0, 1.0
    first[np.arange(m), up], first[np.arange(m), down] = 0.5, -0.5
    along = np.einsum("ci,pij,cj->cp", directions, forms, directions)
    hessian = np.einsum("pij,pm->ijm", forms, np.linalg.pinv(along) @ second) / np.outer(h, h)[..., None]
    gradient = vectors.T @ np.linalg.pinv(directions @ vectors.T) @ first / h[:, None]
    return Stencil(points * h, gradient, hessian)


def _directions(d: int) -> NDArray[np.float64]:
    """Unit vectors, and sums and differences of two as long: second differences along them give any Hessian."""
    unit = np.eye(d)
    i, j = np.triu_indices(d, 1)
    return np.concatenate([unit, (unit[i] + unit[j]) / np.sqrt(2), (unit[i] - unit[j]) / np.sqrt(2)])


def _independent(rows: NDArray[np.float64]) -> list[int]:
    """As many rows (c, p) as there are columns, far from dependent on each other."""
    if rows.shape[1] == 0:
        return []
    order = qr(rows.T, mode="r", pivoting=True)[1]
    return [int(k) for k in order[: rows.shape[1]]]
