"""Second derivatives by central differences: which points, and with which weights. Linear in the energies, so in θ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Stencil:
    """Points around zero in d coordinates, 1 + d + d² of them, at which gradient and Hessian are finite differences."""

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


def central_stencil(steps: ArrayLike) -> Stencil:
    """Build the stencil for steps (d,): the centre, ±h_i, and (+h_i, +h_j), (-h_i, -h_j) for every pair.

    References
    ----------
    M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions" (1964), equations 25.3.23 and 25.3.27.
    """
    h = np.asarray(steps, dtype=np.float64)
    d = len(h)
    pairs = [(i, j) for i in range(d) for j in range(i + 1, d)]
    unit = np.diag(h)
    both = np.array([unit[i] + unit[j] for i, j in pairs]).reshape(-1, d)
    points = np.concatenate([np.zeros((1, d)), unit, -unit, both, -both])
    gradient, hessian = np.zeros((d, len(points))), np.zeros((d, d, len(points)))
    for i in range(d):
        up, down = 1 + i, 1 + d + i
        gradient[i, up], gradient[i, down] = 0.5 / h[i], -0.5 / h[i]
        hessian[i, i, [up, down]] = 1.0 / h[i] ** 2
        hessian[i, i, 0] = -2.0 / h[i] ** 2
    for k, (i, j) in enumerate(pairs):
        w = 0.5 / (h[i] * h[j])
        together = [1 + 2 * d + k, 1 + 2 * d + len(pairs) + k]
        single = [1 + i, 1 + j, 1 + d + i, 1 + d + j]
        for a, b in ((i, j), (j, i)):
            hessian[a, b, together] = w
            hessian[a, b, single] -= w
            hessian[a, b, 0] += 2.0 * w
    return Stencil(points, gradient, hessian)
