"""How a minimum moves when readout weights change, without minimising again: implicit differentiation.

At a minimum q* of E(q, θ) the gradient vanishes for every θ, so that

    dq*/dθ = -H⁻¹ G,   G = ∂²E/∂q∂θ = ∂φ/∂q,   H = ∂²E/∂q²,

and the energy of the minimum is θ·φ(q*) - ½ δθᵀ (Gᵀ H⁻¹ G) δθ to second order.
Translations cost nothing and are taken out, as are directions in which atoms are held.

Reference: I. Maliyov, P. Grigorev and T. D. Swinburne, npj Comput. Mater. 11, 22 (2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from mace_bounds.errors import StructureError
from mace_bounds.propagation.invariance import columns_of
from mace_bounds.propagation.surface import EnergySurface

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.propagation.invariance import Operations
    from mace_bounds.propagation.potential import Potential

STEP_A = 2e-3
"""Of differences of gradients, which are float64."""
FORCE_EV_A = 1e-6
"""Largest gradient at a minimum before its response is computed, eV/Å."""
SOFT_EV_A2 = 0.05
"""Smallest curvature for which a response is trusted, eV/Å²."""
_NEWTON_STEPS, _COARSE_STEPS, _ESCAPES = 6, 300, 6
_ESCAPE_A, _SETTLED_EV_A = 0.05, 1e-3
_MOVED_A = {2: 1e-4, 4: 1e-9}  # by the number of points of the differences


@dataclass(frozen=True, eq=False)
class Minimum:
    """A minimum of the mean, with its curvature.

    Attributes
    ----------
    surface : EnergySurface
    q : ndarray, shape (d,)
        Coordinates of the minimum.
    hessian : ndarray, shape (d, d)
        eV/Å² (strain counts in Å of the cell, see :class:`EnergySurface`).
    gradient_features : ndarray, shape (d, C)
        G = ∂φ/∂q, without directions of no motion.
    features : ndarray, shape (C,)
        φ at the minimum.
    fixed_ev, energy_ev : float
        Part of the energy without weights, and the energy by the mean.
    residual_ev_a, lowest_ev_a2 : float
        Largest component of the gradient that is left, and smallest curvature but for directions of no motion.
    points : int
        Of differences of gradients: 2 (error of second order) or 4 (of fourth).
    """

    surface: EnergySurface
    q: NDArray[np.float64]
    hessian: NDArray[np.float64]
    gradient_features: NDArray[np.float64]
    features: NDArray[np.float64]
    fixed_ev: float
    energy_ev: float
    residual_ev_a: float
    lowest_ev_a2: float
    points: int

    def require_stiff(self) -> None:
        """StructureError where a soft mode makes the response meaningless."""
        if self.lowest_ev_a2 < SOFT_EV_A2:
            raise StructureError(
                f"the minimum has a soft mode ({self.lowest_ev_a2:.3g} eV/Å²), along which a linear response says "
                "nothing; resample instead (--method resample)."
            )

    def response(self) -> NDArray[np.float64]:
        """dq*/dθ, shape (d, C), Å per unit of weight; StructureError at a soft mode."""
        self.require_stiff()
        return -self._solve(self.gradient_features)

    def second_order(self) -> NDArray[np.float64]:
        """M = Gᵀ H⁻¹ G, shape (C, C): energies of minima fall by ½ δθᵀ M δθ; StructureError at a soft mode."""
        self.require_stiff()
        return np.asarray(self.gradient_features.T @ self._solve(self.gradient_features))

    def energies_ev(self, theta_ev: NDArray[np.float64], *, order: int = 2) -> NDArray[np.float64]:
        """Energies of the minimum for weights (k, C), shape (k,); the first order is an upper limit."""
        energies = theta_ev @ self.features + self.fixed_ev
        if order == 1:
            return np.asarray(energies)
        change = theta_ev - self.surface.theta_ev
        return np.asarray(energies - 0.5 * np.einsum("ka,ab,kb->k", change, self.second_order(), change))

    def adjoint(self, slope: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of a scalar g(q*) by θ from its slope ∂g/∂q (d,), shape (C,): one solve, without the Hessian.

        By conjugate gradients on Hessian-vector products, which are differences of gradients.
        """
        self.require_stiff()
        surface, free = self.surface, self.surface.free

        def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return free(_along(surface, self.q, free(np.asarray(v).ravel()), self.points))

        d = len(self.q)
        operator = LinearOperator((d, d), matvec=product, dtype=np.float64)
        solved, failed = cg(operator, free(slope), rtol=1e-10, atol=0.0, maxiter=20 * d)
        if failed:
            raise StructureError("conjugate gradients did not settle; resample instead (--method resample).")
        return np.asarray(-free(solved) @ self.gradient_features)

    def _solve(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """H⁺ b, directions of no motion taken out by stiffening them: they have no part in b."""
        stiff = self.hessian + self.surface.held.T @ self.surface.held
        return np.asarray(np.linalg.solve(stiff, right))


def minimum(
    potential: Potential, surface: EnergySurface, q: NDArray[np.float64] | None = None, points: int = 2
) -> Minimum:
    """Relax by the mean and compute curvature and response.

    Quasi-Newton steps first, then Newton's with the Hessian from differences of gradients, which is needed anyway.

    Raises
    ------
    StructureError
        If it does not settle: no minimum nearby.
    """
    q = np.zeros(surface.size) if q is None else q
    for _ in range(_ESCAPES):
        q, stiff, residual = _relaxed(surface, q, points)
        values, vectors = np.linalg.eigh(stiff)
        if values[0] > -SOFT_EV_A2:
            break
        q = q + _ESCAPE_A * vectors[:, 0]  # a saddle, as symmetric starts often are: leave it downhill
    else:
        raise StructureError(
            f"the structure did not relax by the mean head (a saddle of {values[0]:.2g} eV/Å²); give another start."
        )
    if not residual <= _SETTLED_EV_A:
        raise StructureError(
            f"the structure did not relax by the mean head (a force of {residual:.2g} eV/Å is left); give "
            "another start."
        )
    features, fixed, slopes = surface.feature_gradients(q)
    return Minimum(
        surface=surface,
        q=q,
        hessian=stiff - surface.held.T @ surface.held,
        gradient_features=np.array([surface.free(column) for column in slopes.T]).T,
        features=features,
        fixed_ev=fixed,
        energy_ev=float(potential.mean_ev @ features + fixed),
        residual_ev_a=residual,
        lowest_ev_a2=float(values[0]),
        points=points,
    )


def _relaxed(
    surface: EnergySurface, q: NDArray[np.float64], points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """A stationary point, its Hessian with directions of no motion stiffened, and the largest gradient that is left."""

    def free(q: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        energy, gradient = surface.energy_and_gradient(q)
        return energy, surface.free(gradient)

    coarse = minimize(
        free, q, jac=True, method="L-BFGS-B",
        options={"maxiter": _COARSE_STEPS, "maxcor": 30, "gtol": 1e-4, "ftol": 1e-15},
    )  # fmt: skip
    q, operations = surface.symmetric(surface.free(np.asarray(coarse.x)))
    stiff, begun = _stiff_hessian(surface, q, points, operations), q
    gradient = surface.free(surface.gradient(q))
    for _ in range(_NEWTON_STEPS):
        if np.abs(gradient).max() <= FORCE_EV_A:
            break
        step = np.linalg.solve(stiff, gradient)
        q = q - step * min(1.0, 0.1 / float(np.abs(step).max()))
        gradient = surface.free(surface.gradient(q))
    if np.abs(q - begun).max() > _MOVED_A[points]:
        q, operations = surface.symmetric(q)
        stiff = _stiff_hessian(
            surface, q, points, operations
        )  # the curvature of the minimum, not of where Newton began
    return q, stiff, float(np.abs(gradient).max())


def _along(
    surface: EnergySurface, q: NDArray[np.float64], v: NDArray[np.float64], points: int
) -> NDArray[np.float64]:
    """H v by differences of gradients, shape (d,)."""
    size = float(np.linalg.norm(v))
    if size == 0.0:
        return v
    h = STEP_A / size

    def difference(step: float) -> NDArray[np.float64]:
        return (surface.gradient(q + step * v) - surface.gradient(q - step * v)) / (2.0 * step)

    if points == 2:
        return difference(h)
    return np.asarray((4.0 * difference(h) - difference(2.0 * h)) / 3.0)  # Richardson's extrapolation


def _stiff_hessian(
    surface: EnergySurface, q: NDArray[np.float64], points: int, operations: Operations
) -> NDArray[np.float64]:
    """Symmetric Hessian, directions of no motion taken out and given the curvature one, so that it can be inverted."""
    n, d = len(surface.start.numbers), surface.size

    def product(atom: int, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        move = np.zeros(d)
        move[3 * atom : 3 * atom + 3] = direction
        return _along(surface, q, move, points)[: 3 * n].reshape(n, 3)

    h = np.zeros((d, d))
    h[: 3 * n, : 3 * n] = columns_of(operations, product, range(n)).reshape(3 * n, 3 * n)
    for k in range(3 * n, d):  # strains
        h[k] = _along(surface, q, np.eye(d)[k], points)
        h[: 3 * n, k] = h[k, : 3 * n]
    t = surface.held
    out = np.eye(d) - t.T @ t
    return np.asarray(out @ (0.5 * (h + h.T)) @ out + t.T @ t)
