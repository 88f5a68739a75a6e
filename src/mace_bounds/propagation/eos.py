"""Equations of state of every draw: exact arithmetic on energies at a few volumes.

The third-order Birch-Murnaghan equation is a polynomial of third degree in x = V^(-2/3), so that its least-squares fit
is a matrix product and its minimum the root of a quadratic: thousands of draws cost what one costs.

Reference: F. Birch, Phys. Rev. 71, 809 (1947); fitted as by K. Lejaeghere et al., Science 351, aad3000 (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import StructureError
from mace_bounds.propagation.cells import at_volumes
from mace_bounds.propagation.result import EV_A3_IN_GPA, PropertyBounds, property_bounds
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    from mace_bounds.propagation.potential import Potential, Rows

STRAINS = tuple(np.linspace(-0.06, 0.06, 9))
"""Volumes of the grid, relative to its middle."""
FIXED_SHAPE = "shape of the cell and fractional positions are kept at every volume"
_MOST_MOVES, _NEAR = 12, 0.25


@dataclass(frozen=True, eq=False)
class EquationsOfState:
    """Third-order Birch-Murnaghan equations of state of k curves; NaN where a curve has no minimum on the grid.

    Attributes are arrays of shape (k,): of the cell whose volumes were given, Å³, eV and GPa.
    """

    volume_a3: NDArray[np.float64]
    energy_ev: NDArray[np.float64]
    bulk_modulus_gpa: NDArray[np.float64]
    bulk_derivative: NDArray[np.float64]
    middle: float  # of x = V^(-2/3) on the grid
    spread: float
    coefficients: NDArray[np.float64]  # shape (k, 4): of powers of t = (x - middle) / spread, eV
    range_a3: tuple[float, float]  # of the grid

    def at_ev(self, volumes_a3: ArrayLike) -> NDArray[np.float64]:
        """Energy of every curve at volumes (m,) or, row by row, (k, m), shape (k, m), eV."""
        return _polynomial(self.coefficients, self.reduced(volumes_a3))

    def pressure_gpa(self, volumes_a3: ArrayLike) -> NDArray[np.float64]:
        """Pressure -dE/dV of every curve at volumes, shape (k, m), GPa."""
        volume = np.atleast_2d(np.asarray(volumes_a3, dtype=np.float64))
        slope = _polynomial(self.coefficients[:, 1:] * (1.0, 2.0, 3.0), self.reduced(volume)) / self.spread
        return np.asarray(slope * (2.0 / 3.0) * volume ** (-5.0 / 3.0) * EV_A3_IN_GPA)

    def reduced(self, volumes_a3: ArrayLike) -> NDArray[np.float64]:
        """The variable t of the polynomials at volumes (m,) or (k, m), shape (1 or k, m)."""
        volume = np.atleast_2d(np.asarray(volumes_a3, dtype=np.float64))
        return np.asarray((volume ** (-2.0 / 3.0) - self.middle) / self.spread)


def fit_equations_of_state(volumes_a3: ArrayLike, energies_ev: ArrayLike) -> EquationsOfState:
    """Fit energies of one cell at several volumes.

    Parameters
    ----------
    volumes_a3 : array_like, shape (m,)
        At least four different volumes, Å³.
    energies_ev : array_like, shape (k, m)
        Of every curve, eV.

    Returns
    -------
    EquationsOfState
        NaN for curves whose fit has no minimum between the smallest and the largest volume.

    Raises
    ------
    StructureError
        If there are fewer than four volumes.
    """
    volume = np.asarray(volumes_a3, dtype=np.float64)
    if len(np.unique(volume)) < 4:
        raise StructureError(
            "an equation of state needs energies at four volumes or more; give more of them."
        )
    x = volume ** (-2.0 / 3.0)
    middle, spread = float(x.mean()), float(np.ptp(x) / 2)
    t = (x - middle) / spread
    c = np.atleast_2d(energies_ev) @ np.linalg.pinv(np.vander(t, 4, increasing=True)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(c[:, 2] ** 2 - 3.0 * c[:, 1] * c[:, 3])
        minimum = -c[:, 1] / (c[:, 2] + root)  # the root of the quadratic at which the curve bends upwards
        x0 = middle + spread * minimum
        v0 = np.where(x0 > 0, x0, np.nan) ** -1.5
        inside = (v0 > volume.min()) & (v0 < volume.max()) & (root > 0)
        curvature = 2.0 * root / spread**2  # d²E/dx² at the minimum
        third = 6.0 * c[:, 3] / spread**3
        slope_v = -2.0 / 3.0 * v0 ** (-5.0 / 3.0)  # dx/dV
        e2 = curvature * slope_v**2
        e3 = third * slope_v**3 + 3.0 * curvature * slope_v * (10.0 / 9.0) * v0 ** (-8.0 / 3.0)
    none = np.where(inside, 0.0, np.nan)
    return EquationsOfState(
        volume_a3=v0 + none,
        energy_ev=_polynomial(c, minimum[:, None])[:, 0] + none,
        bulk_modulus_gpa=v0 * e2 * EV_A3_IN_GPA + none,
        bulk_derivative=-1.0 - v0 * e3 / e2 + none,
        middle=middle,
        spread=spread,
        coefficients=c,
        range_a3=(float(volume.min()), float(volume.max())),
    )


def equilibrium_response(
    volumes_a3: ArrayLike, rows: Rows, theta_ev: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives of V0 and B0 by the weights, by implicit differentiation of dE/dV = 0, each shape (C,).

    Parameters
    ----------
    volumes_a3 : array_like, shape (m,)
    rows : Rows
        Features of the cell at these volumes.
    theta_ev : ndarray, shape (C,)
        Weights, whose minimum is on the grid.

    Returns
    -------
    ndarray, ndarray
        Å³ and GPa of the cell per unit of weight.
    """
    state = fit_equations_of_state(volumes_a3, rows.energies_ev(theta_ev)[None])
    v0, t = float(state.volume_a3[0]), float(state.reduced(state.volume_a3)[0, 0])
    grid = state.reduced(volumes_a3)[0]
    k = np.linalg.pinv(np.vander(grid, 4, increasing=True)) @ rows.features  # of each feature, shape (4, C)
    c = state.coefficients[0]
    second = 2.0 * c[2] + 6.0 * c[3] * t
    shift = -(k[1] + 2.0 * k[2] * t + 3.0 * k[3] * t**2) / second  # dt/dθ
    d_v0 = -1.5 * v0 ** (5.0 / 3.0) * state.spread * shift
    d_second = 2.0 * k[2] + 6.0 * k[3] * t + 6.0 * c[3] * shift
    scale = 4.0 / 9.0 / state.spread**2 * EV_A3_IN_GPA  # B0 = 4/9 d²E/dx² V^(-7/3)
    d_b0 = scale * (d_second * v0 ** (-7.0 / 3.0) - 7.0 / 3.0 * second * v0 ** (-10.0 / 3.0) * d_v0)
    return d_v0, d_b0


def curves(crystal: Crystal, potential: Potential, strains: Sequence[float] = STRAINS) -> EquationsOfState:
    """Equations of state by the mean (first) and by every draw, on a grid around the mean's own minimum.

    The grid moves until the minimum of the mean is near its middle.

    Raises
    ------
    StructureError
        If the mean has no minimum within a factor of three of the volume given.
    """
    relative = 1.0 + np.asarray(strains, dtype=np.float64)
    centre = crystal.volume
    for _ in range(_MOST_MOVES):
        volumes = centre * relative
        energies = potential.energies_ev(at_volumes(crystal, volumes))
        mean = fit_equations_of_state(volumes, energies[:1])
        found = float(mean.volume_a3[0])
        if np.isfinite(found) and abs(found / centre - 1.0) < _NEAR * (relative.max() - 1.0):
            return fit_equations_of_state(volumes, energies)
        centre = found if np.isfinite(found) else float(volumes[np.argmin(energies[0])])
        if not 1 / 3 < centre / crystal.volume < 3:
            break
    raise StructureError(
        "the energy has no minimum as a function of volume near the volume given; check the structure, "
        "or relax it first."
    )


def equation_of_state(
    crystal: Crystal, potential: Potential, level: float = 0.95, strains: Sequence[float] = STRAINS
) -> list[PropertyBounds]:
    """Volume, bulk modulus and its derivative at zero pressure with their intervals.

    Parameters
    ----------
    crystal : Crystal
    potential : Potential
    level : float
        Of the intervals.
    strains : sequence of float
        Relative volumes of the grid, around the minimum of the mean.

    Returns
    -------
    list of PropertyBounds
        V0 (Å³/atom), E0 (eV/atom; its interval is first of all that of the total energy), B0 (GPa) and B0'.
    """
    found, n = curves(crystal, potential, strains), len(crystal.numbers)
    wanted = (
        ("V0", "Å³/atom", found.volume_a3 / n),
        ("E0", "eV/atom", found.energy_ev / n),
        ("B0", "GPa", found.bulk_modulus_gpa),
        ("B0'", "", found.bulk_derivative),
    )
    return [
        property_bounds(name, unit, values, potential, level=level, method="curves", assumed=(FIXED_SHAPE,))
        for name, unit, values in wanted
    ]


def _polynomial(coefficients: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ c_p t^p for coefficients (k, p) and t (1 or k, m), shape (k, m)."""
    out = np.zeros((len(coefficients), t.shape[1]))
    for column in coefficients.T[::-1]:
        out = out * t + column[:, None]
    return out
