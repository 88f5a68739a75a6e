"""Phonon frequencies of every draw at a fixed structure: arithmetic on one table of second derivatives of the features.

Force constants are linear in the weights. They are differences of ∂φ/∂x between displaced supercells, of as few
displacements as symmetry allows; the dynamical matrix of every draw at a wave vector q follows without another run:

    D_iα,jβ(q) = Σ_R Φ_i0α,jRβ exp(2πi q·R) / (m_i m_j)^½,   Φ(θ) = Σ_c θ_c Φ_c.

At wave vectors that fit into the supercell, this is exact for forces of any range.

Reference: M. Born and K. Huang, "Dynamical Theory of Crystal Lattices" (1954), section 24.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses
from ase.units import _amu, _e

from mace_bounds.backbones import require_gradients
from mace_bounds.propagation.cells import at_volume
from mace_bounds.propagation.eos import curves
from mace_bounds.propagation.invariance import Operations, columns_of, operations_of
from mace_bounds.propagation.result import PropertyBounds, property_bounds
from mace_bounds.structures import Crystal, symmetry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mace_bounds.propagation.potential import Potential

STEP_A = 0.01
TO_THZ = float(np.sqrt(_e / _amu) * 1e10 / (2.0 * np.pi) * 1e-12)
"""From (eV/Å²/amu)^½ to THz."""
_TOGETHER_THZ = 1e-3  # branches of the mean nearer than this are one
_FORCE_LIMIT_EV_A = 0.05
_FIXED = "the structure is fixed: positions as given, at the volume of the mean"
_HARMONIC = "harmonic, without the field of long waves in polar crystals"
IMAGINARY = "below zero: imaginary, the structure is unstable by the mean"


@dataclass(frozen=True, eq=False)
class ForceConstants:
    """Second derivatives of features by displacements in a supercell.

    Attributes
    ----------
    primitive : Crystal
    cells : ndarray of int, shape (m, 3)
        Lattice vectors of the supercell's primitive cells, in units of the primitive vectors.
    table : ndarray, shape (p, 3, m, p, 3, C + 1)
        Of every column of features, and last of the fixed energy: displacement of atom i in the first cell, and of atom
        j in each cell, eV/Å² per unit of weight.
    largest_force_ev_a : float
        By the model itself, at the structure given.
    """

    primitive: Crystal
    cells: NDArray[np.int64]
    table: NDArray[np.float64]
    largest_force_ev_a: float

    def dynamical(self, q: Sequence[float], theta_ev: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Dynamical matrices (k, 3p, 3p) for weights (k, C + 1, count of atoms last), eV/Å²/amu."""
        mass = np.repeat(atomic_masses[self.primitive.numbers], 3)
        phase = np.exp(2j * np.pi * (self.cells @ np.asarray(q, dtype=np.float64)))
        columns = np.einsum("iamjbc,m->iajbc", self.table, phase).reshape(len(mass), len(mass), -1)
        weights = np.column_stack([theta_ev[:, :-1], np.ones(len(theta_ev))])
        found = np.tensordot(weights, columns, axes=(1, 2)) / np.sqrt(np.outer(mass, mass))
        return np.asarray(0.5 * (found + found.conj().transpose(0, 2, 1)))

    def frequencies_thz(self, q: Sequence[float], theta_ev: NDArray[np.float64]) -> NDArray[np.float64]:
        """Frequencies (k, 3p) for weights (k, C), rising; imaginary ones below zero.

        At q = 0 the three motions of the whole are left out: shape (k, 3p - 3).
        """
        matrices = self.dynamical(q, theta_ev)
        if not np.any(q):
            moves = np.kron(np.sqrt(atomic_masses[self.primitive.numbers])[:, None], np.eye(3))
            kept = np.linalg.svd(moves.T)[2][3:]
            matrices = kept @ matrices @ kept.T
        values = np.linalg.eigvalsh(matrices)
        return np.asarray(TO_THZ * np.sign(values) * np.sqrt(np.abs(values)))


def force_constants(primitive: Crystal, potential: Potential, repeats: int = 2) -> ForceConstants:
    """Displace atoms of a supercell of ``repeats`` primitive cells along every vector.

    Raises
    ------
    ModelError
        If the backbone has no derivatives.
    """
    backbone = require_gradients(potential.backbone)
    cells = np.array(list(product(range(repeats), repeat=3)))
    p, m = len(primitive.numbers), len(cells)
    places = (cells @ primitive.cell)[:, None] + primitive.positions
    whole = Crystal(np.tile(primitive.numbers, m), places.reshape(-1, 3), repeats * primitive.cell)
    operations = operations_of(whole)

    def gradients(displacement: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = Crystal(whole.numbers, whole.positions + displacement, whole.cell)
        found = next(iter(backbone.feature_gradients([moved])))
        return np.concatenate([found.d_positions, -found.fixed_forces_ev_a[..., None]], axis=2)

    def change(atom: int, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        move = np.zeros((p * m, 3))
        move[atom] = STEP_A * direction
        forwards = gradients(move)
        return (forwards - _backwards(forwards, move, operations, gradients)) / (2.0 * STEP_A)

    rest = next(iter(backbone.feature_gradients([primitive])))
    table = columns_of(operations, change, range(p)).reshape(p, 3, m, p, 3, -1)
    return ForceConstants(primitive, cells, table, float(np.abs(rest.forces_ev_a).max()))


def phonon_frequencies(
    crystal: Crystal, potential: Potential, level: float = 0.95, repeats: int = 2
) -> list[PropertyBounds]:
    """Phonon frequencies at the wave vectors that fit into a supercell, one of those that symmetry makes equal, THz.

    Parameters
    ----------
    crystal : Crystal
        Best relaxed by the model: its positions are kept, at the mean's own equilibrium volume.
    potential : Potential
    level : float
        Of the intervals.
    repeats : int
        Primitive cells along every vector of the supercell: wave vectors are multiples of 1 / repeats of the reciprocal
        primitive vectors, 0 and the edge of the zone for 2.

    Raises
    ------
    StructureError
        If the mean has no minimum in the volume.
    ModelError
        If the backbone has no derivatives.
    """
    small = symmetry_of(crystal).primitive
    primitive = at_volume(small, float(curves(small, potential).volume_a3[0]))
    constants, theta = force_constants(primitive, potential, repeats), potential.theta_ev
    assumed = [_FIXED, _HARMONIC]
    if constants.largest_force_ev_a > _FORCE_LIMIT_EV_A:
        assumed.append(
            f"forces of up to {constants.largest_force_ev_a:.2f} eV/Å in the structure given: relax it first"
        )
    out = []
    for q in wave_vectors(primitive, repeats):
        frequencies = constants.frequencies_thz([float(part) for part in q], theta)
        named = " ".join(str(part) for part in q)
        first = 4 if not any(q) else 1
        for branches in _degenerate(frequencies[0]):
            values = frequencies[:, branches].mean(axis=1)
            below = (IMAGINARY,) if values[0] < -_TOGETHER_THZ else ()
            numbers = f"{branches[0] + first}" + (f"-{branches[-1] + first}" if len(branches) > 1 else "")
            out.append(
                property_bounds(f"phonon ({named}) {numbers}", "THz", values, potential, level=level,
                                method="curves", assumed=(*assumed, *below))
            )  # fmt: skip
    return out


def wave_vectors(primitive: Crystal, repeats: int) -> list[tuple[Fraction, Fraction, Fraction]]:
    """Wave vectors of a supercell in units of the reciprocal primitive vectors, one of each star."""
    rotations = operations_of(primitive).rotations
    turned = np.round(primitive.cell @ rotations @ np.linalg.inv(primitive.cell)).astype(int)
    seen: set[tuple[int, ...]] = set()
    out = []
    for q in product(range(repeats), repeat=3):
        if q in seen:
            continue
        star = np.concatenate([turned @ np.array(q), -turned @ np.array(q)]) % repeats
        seen |= {tuple(row) for row in star.tolist()}
        a, b, c = (Fraction(part, repeats) for part in q)
        out.append((a, b, c))
    return out


def _degenerate(frequencies: NDArray[np.float64]) -> list[list[int]]:
    """Branches by equal frequency."""
    groups: list[list[int]] = []
    for k, frequency in enumerate(frequencies):
        if groups and frequency - frequencies[groups[-1][-1]] < _TOGETHER_THZ:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _backwards(
    forwards: NDArray[np.float64],
    move: NDArray[np.float64],
    operations: Operations,
    gradients: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Gradients for the opposite displacement: carried by an operation that turns it round, or computed."""
    carried = operations.moved(move)
    ways = np.flatnonzero(np.abs(carried + move).max(axis=(1, 2)) < 1e-9)
    if not len(ways):
        return gradients(-move)
    k = int(ways[0])
    out = np.empty_like(forwards)
    out[operations.permutations[k]] = np.einsum("ab,nbc->nac", operations.rotations[k], forwards)
    return out
