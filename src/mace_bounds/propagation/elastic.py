"""Elastic constants of every draw at its own equilibrium volume, with ions relaxed or clamped.

Energies at small Lagrangian strains η and displacements u, at a few volumes, give the second derivatives of the energy
of every draw (linear in θ); the rest is algebra on 6 x 6 matrices:

    C_ij = (E_ηη - E_ηu E_uu⁻¹ E_uη)_ij / V,   at V0 of the draw by a polynomial through the volumes of the grid.

References: M. Born and K. Huang, "Dynamical Theory of Crystal Lattices" (1954), section 11 (internal strain); D. C.
Wallace, "Thermodynamics of Crystals" (1972), equation 2.24; averages: R. Hill, Proc. Phys. Soc. A 65, 349 (1952).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.propagation.cells import VOIGT, at_volumes, deformed, rotated
from mace_bounds.propagation.eos import FIXED_SHAPE, curves
from mace_bounds.propagation.invariance import Operations, count_of_forms, operations_of
from mace_bounds.propagation.result import EV_A3_IN_GPA, PropertyBounds, property_bounds
from mace_bounds.propagation.stencil import Stencil, central_stencil
from mace_bounds.structures import Crystal, Symmetry, symmetry_of

if TYPE_CHECKING:
    from mace_bounds.propagation.potential import Potential

Ions = Literal["relaxed", "clamped"]

STRAIN_STEP, MOVE_STEP_A = 0.004, 0.01
MOST_DERIVATIVES = 250
"""Cells with more second derivatives that symmetry leaves open have clamped ions: each costs two cells a volume."""
_MOST_MOVES = 40  # of atoms, above which nobody needs to count
_VOLUMES = (-0.06, -0.03, 0.0, 0.03, 0.06)  # of the grid, around V0 of the mean
_CLAMPED = "ions are clamped: they keep their fractional positions under strain"
_RELAXED = "ions are relaxed under strain, in the harmonic approximation"
_FORCE_LIMIT_EV_A, _STRESS_LIMIT_GPA = 0.05, 1.0

INDEPENDENT = {
    "cubic": "11 12 44",
    "hexagonal": "11 12 13 33 44",
    "trigonal": "11 12 13 14 15 33 44",
    "tetragonal": "11 12 13 16 33 44 66",
    "orthorhombic": "11 12 13 22 23 33 44 55 66",
    "monoclinic": "11 12 13 15 22 23 25 33 35 44 46 55 66",
}
"""Constants that differ, by crystal system; J. F. Nye, "Physical Properties of Crystals" (1957), table 9."""


@dataclass(frozen=True, eq=False)
class ElasticConstants:
    """Elastic constants of k draws, in the standard orientation of the crystal's symmetry.

    Attributes
    ----------
    constants_gpa : ndarray, shape (k, 6, 6)
        In Voigt's order, averaged over the point group; NaN for draws without a minimum or with unstable ions.
    system : str
        Crystal system.
    ions : str
        ``"relaxed"`` or ``"clamped"``.
    largest_force_ev_a, deviatoric_gpa : float
        Of the mean at its V0, before ions relax: how far the structure is from its equilibrium.
    """

    constants_gpa: NDArray[np.float64]
    system: str
    ions: Ions
    largest_force_ev_a: float
    deviatoric_gpa: float

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Whether a strain of every kind costs energy (Born's criterion), shape (k,)."""
        known = np.asarray(np.isfinite(self.constants_gpa).all(axis=(1, 2)))
        least = np.linalg.eigvalsh(np.where(known[:, None, None], self.constants_gpa, -np.eye(6)))[:, 0]
        return np.asarray(least > 0)


def elastic_curves(crystal: Crystal, potential: Potential, ions: Ions = "relaxed") -> ElasticConstants:
    """Elastic constants by the mean (first) and by every draw.

    Raises
    ------
    StructureError
        If the mean has no minimum in the volume, or relaxed ions need too many second derivatives.
    """
    symmetry = symmetry_of(crystal)
    crystal = rotated(symmetry.primitive, symmetry.to_standard)
    n_moves = len(crystal.numbers) - 1 if ions == "relaxed" else 0
    stencil = _stencil(operations_of(crystal), n_moves)
    state = curves(crystal, potential)
    volumes = state.volume_a3[0] * (1.0 + np.asarray(_VOLUMES))
    by_volume, force, stress = [], 0.0, 0.0
    for volume, cell in zip(volumes, at_volumes(crystal, volumes), strict=True):
        energies = potential.energies_ev(_strained(cell, stencil, n_moves))
        by_volume.append(_constants(stencil.hessian(energies)) / volume * EV_A3_IN_GPA)
        if volume == volumes[len(volumes) // 2]:
            slope = stencil.gradient(energies[:1])[0]
            force = float(np.abs(slope[6:]).max(initial=0.0))
            pressure = np.append(slope[:3] - slope[:3].mean(), slope[3:6])
            stress = float(np.abs(pressure).max() / volume * EV_A3_IN_GPA)
    constants = _at(state.volume_a3, volumes, np.array(by_volume))
    return ElasticConstants(_averaged(constants, symmetry), symmetry.system, ions, force, stress)


def elastic_constants(
    crystal: Crystal, potential: Potential, level: float = 0.95, ions: Ions = "relaxed"
) -> list[PropertyBounds]:
    """Elastic constants, bulk and shear modulus at zero pressure with their intervals.

    Parameters
    ----------
    crystal : Crystal
        Best with the shape and positions of the model's own minimum; the volume is found.
    potential : Potential
    level : float
        Of the intervals.
    ions : {"relaxed", "clamped"}
        Whether atoms move under strain. Measured constants, and most that are published, are of relaxed ions.

    Returns
    -------
    list of PropertyBounds
        Independent C_ij of the crystal system, then the averages of Voigt, Reuss and Hill, GPa. Draws whose lattice is
        unstable count as failed; where it is so by the mean there are no intervals.
    """
    found = elastic_curves(crystal, potential, ions)
    stable = found.stable | (
        np.arange(len(found.constants_gpa)) == 0
    )  # the value of the mean is shown as it is
    constants = np.where(stable[:, None, None], found.constants_gpa, np.nan)
    assumed = [_RELAXED if ions == "relaxed" else _CLAMPED, FIXED_SHAPE]
    if found.largest_force_ev_a > _FORCE_LIMIT_EV_A:
        assumed.append(
            f"forces of up to {found.largest_force_ev_a:.2f} eV/Å in the structure given: relax it first"
        )
    if found.deviatoric_gpa > _STRESS_LIMIT_GPA:
        assumed.append(
            f"a shear stress of {found.deviatoric_gpa:.1f} GPa in the structure given: relax its cell first"
        )
    if not found.stable[0]:
        assumed.append("the lattice is unstable by the mean head")
    bulk, shear = hill_averages(constants)
    named = [(f"C{i}{j}", constants[:, i - 1, j - 1]) for i, j in _pairs(found.system)]
    results = [
        property_bounds(name, "GPa", values, potential, level=level, method="curves", assumed=tuple(assumed))
        for name, values in [*named, ("K_VRH", bulk), ("G_VRH", shear)]
    ]
    if found.stable[0]:
        return results
    # what draws say around an unstable mean is no interval of anything
    return [replace(result, lower=None, upper=None, std=None) for result in results]


def hill_averages(constants_gpa: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bulk and shear modulus of a polycrystal, GPa: mean of Voigt's and Reuss' values, each shape (k,) of (k, 6, 6)."""
    known = np.asarray(np.isfinite(constants_gpa).all(axis=(1, 2)))
    c = np.where(known[:, None, None], constants_gpa, np.eye(6))
    s = np.linalg.inv(c)

    def sums(m: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        axial = np.trace(m[:, :3, :3], axis1=1, axis2=2)
        return axial, m[:, 0, 1] + m[:, 0, 2] + m[:, 1, 2], np.trace(m[:, 3:, 3:], axis1=1, axis2=2)

    (a, b, g), (sa, sb, sg) = sums(c), sums(s)
    bulk = 0.5 * ((a + 2 * b) / 9.0 + 1.0 / (sa + 2 * sb))
    shear = 0.5 * ((a - b + 3 * g) / 15.0 + 15.0 / (4 * sa - 4 * sb + 3 * sg))
    none = np.where(known, 0.0, np.nan)
    return bulk + none, shear + none


def _pairs(system: str) -> list[tuple[int, int]]:
    every = [f"{i}{j}" for i in range(1, 7) for j in range(i, 7)]
    return [(int(name[0]), int(name[1])) for name in INDEPENDENT.get(system, " ".join(every)).split()]


def _stencil(operations: Operations, n_moves: int) -> Stencil:
    """Of six strains, and of the displacements of all atoms but the last where they move."""
    if n_moves == 0:
        return central_stencil([STRAIN_STEP] * 6, operations.strained())
    open_ones = f"the primitive cell has {n_moves + 1} atoms"
    if n_moves < _MOST_MOVES:
        group = operations.on_strains_and_moves()
        count = count_of_forms(group)
        if count <= MOST_DERIVATIVES:
            return central_stencil([STRAIN_STEP] * 6 + [MOVE_STEP_A] * (3 * n_moves), group)
        open_ones += f" and {count} second derivatives that symmetry leaves open"
    raise StructureError(
        f"{open_ones}, and relaxed ions are done for {MOST_DERIVATIVES} of them at most; ask for clamped ions (--ions "
        "clamped)."
    )


def _strained(crystal: Crystal, stencil: Stencil, n_moves: int) -> list[Crystal]:
    """Cells of the stencil's points: six strains, then displacements of all atoms but the last."""
    moves = np.zeros((len(stencil.points), len(crystal.numbers), 3))
    moves[:, :n_moves] = stencil.points[:, 6:].reshape(len(moves), n_moves, 3)
    return [deformed(crystal, p[:6], move) for p, move in zip(stencil.points, moves, strict=True)]


def _constants(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eliminate displacements from second derivatives (k, 6 + d, 6 + d); (k, 6, 6), NaN where ions are unstable."""
    strain, mixed, ionic = hessian[:, :6, :6], hessian[:, 6:, :6], hessian[:, 6:, 6:]
    if mixed.shape[1] == 0:
        return strain
    stable = np.linalg.eigvalsh(ionic)[:, :1, None] > 0
    held = np.where(stable, ionic, np.eye(ionic.shape[1]))
    return np.where(stable, strain - mixed.transpose(0, 2, 1) @ np.linalg.solve(held, mixed), np.nan)


def _at(
    wanted_a3: NDArray[np.float64], volumes_a3: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate values (m, k, 6, 6) at m volumes to one volume for each k (Lagrange); NaN outside of the grid."""
    inside = (wanted_a3 >= volumes_a3.min()) & (wanted_a3 <= volumes_a3.max())
    x = np.where(inside, wanted_a3, np.nan)
    weights = np.ones((len(volumes_a3), len(x)))
    for i, a in enumerate(volumes_a3):
        for j, b in enumerate(volumes_a3):
            if i != j:
                weights[i] *= (x - b) / (a - b)
    return np.asarray(np.einsum("mk,mkij->kij", weights, values))


def _averaged(constants: NDArray[np.float64], symmetry: Symmetry) -> NDArray[np.float64]:
    """Mean of the tensors over the point group: what finite differences break is mended."""
    total = np.zeros_like(constants)
    for rotation in symmetry.rotations:
        bond = _bond(rotation)
        total += bond @ constants @ bond.T
    return total / len(symmetry.rotations)


def _bond(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix M with C' = M C Mᵀ in Voigt's notation for a rotation r; W. L. Bond, Bell Syst. Tech. J. 22, 1 (1943)."""
    m = np.empty((6, 6))
    for a, (i, j) in enumerate(VOIGT):
        for b, (k, el) in enumerate(VOIGT):
            m[a, b] = r[i, k] * r[j, el] if k == el else r[i, k] * r[j, el] + r[i, el] * r[j, k]
    return m
