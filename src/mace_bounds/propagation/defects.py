"""Defects and surfaces: energies of relaxed cells less those of the perfect crystal, of every draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.propagation.builders import SHORTEST_A, dumbbell, slab, supercell
from mace_bounds.propagation.cells import at_volume
from mace_bounds.propagation.eos import curves
from mace_bounds.propagation.implicit import minimum
from mace_bounds.propagation.resample import resample
from mace_bounds.propagation.result import (
    EV_A3_IN_GPA,
    Linear,
    PropertyBounds,
    property_bounds,
)
from mace_bounds.propagation.surface import EnergySurface
from mace_bounds.structures import Crystal, symmetry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from mace_bounds.propagation.potential import Potential

Relaxation = Literal["implicit", "resample"]

EV_A2_IN_J_M2 = EV_A3_IN_GPA / 10.0
KEPT_CELL = "the cell is kept at the volume of the mean's perfect crystal"
RELAXED = "positions are relaxed by the mean, and to second order by every draw"
ENVELOPE = "the envelope is that of the positions of the mean: relaxed energies are below its upper end"


@dataclass(frozen=True, eq=False)
class RelaxedEnergy:
    """Energy of a cell whose positions are relaxed, or a difference of such.

    Attributes
    ----------
    energies_ev : ndarray, shape (1 + k,)
        By the mean and by every draw, each relaxed by itself.
    held : Linear
        Energy of all weights at the minimum of the mean: to first order the same, and an upper limit.
    """

    energies_ev: NDArray[np.float64]
    held: Linear

    def __sub__(self, other: RelaxedEnergy) -> RelaxedEnergy:
        return RelaxedEnergy(self.energies_ev - other.energies_ev, self.held - other.held)

    def __mul__(self, factor: float) -> RelaxedEnergy:
        return RelaxedEnergy(self.energies_ev * factor, self.held * factor)


def fixed_energy(crystal: Crystal, potential: Potential) -> RelaxedEnergy:
    """Energy of a cell as it is, by the mean and by every draw."""
    held = potential.rows([crystal]).linear(0)
    return RelaxedEnergy(held.values(potential.theta_ev), held)


def relaxed_energy(surface: EnergySurface, potential: Potential, method: Relaxation) -> RelaxedEnergy:
    """Energies after relaxation of the positions, by the mean and by every draw.

    Raises
    ------
    StructureError
        If the mean does not settle, or a soft mode forbids the implicit method.
    """
    mean = minimum(potential, surface)
    if method == "implicit":
        energies = mean.energies_ev(potential.theta_ev)
    else:
        energies = np.append(mean.energy_ev, resample(mean, potential.draws_ev).energy_ev)
    return RelaxedEnergy(energies, Linear(mean.features, mean.fixed_ev))


def vacancy_formation(
    crystal: Crystal,
    potential: Potential,
    level: float = 0.95,
    method: Relaxation = "implicit",
    shortest_a: float = SHORTEST_A,
) -> list[PropertyBounds]:
    """Formation energy of a vacancy in an element, eV: E(N - 1 atoms, relaxed) - (N - 1)/N E(N atoms).

    The cell is the conventional one, repeated until its sides are ``shortest_a`` (Å) or more, at the mean's own volume.

    Raises
    ------
    StructureError
        If the crystal is no element: a vacancy in a compound needs chemical potentials.
    """
    perfect = supercell(_element_at_minimum(crystal, potential), shortest_a)
    hole = Crystal(perfect.numbers[1:], perfect.positions[1:], perfect.cell)
    name = f"vacancy formation energy ({len(perfect.numbers)} sites)"
    energy = _formation(hole, perfect, potential, method)
    return [relaxed_bounds(name, "eV", energy, potential, level, method)]


def interstitial_formation(
    crystal: Crystal,
    potential: Potential,
    direction: Sequence[float] = (1.0, 1.0, 0.0),
    level: float = 0.95,
    method: Relaxation = "implicit",
    shortest_a: float = SHORTEST_A,
) -> list[PropertyBounds]:
    """Formation energy of a dumbbell in an element, eV: two atoms on one site, along a direction (cubic axes)."""
    perfect = supercell(_element_at_minimum(crystal, potential), shortest_a)
    named = "".join(f"{value:g}" for value in direction)
    name = f"{named} dumbbell formation energy ({len(perfect.numbers)} sites)"
    energy = _formation(dumbbell(perfect, direction), perfect, potential, method)
    return [relaxed_bounds(name, "eV", energy, potential, level, method)]


def surface_energy(
    crystal: Crystal,
    potential: Potential,
    miller: Sequence[int] = (1, 0, 0),
    level: float = 0.95,
    method: Relaxation = "implicit",
) -> list[PropertyBounds]:
    """Energy of a surface of an element, J/m²: a relaxed slab of 10 Å or more less as many atoms of the crystal."""
    bulk = _element_at_minimum(crystal, potential)
    made = slab(bulk, miller)
    area = float(np.linalg.norm(np.cross(made.cell[0], made.cell[1])))
    name = f"surface energy ({''.join(map(str, miller))}, {len(made.numbers)} atoms)"
    energy = _formation(made, bulk, potential, method) * (EV_A2_IN_J_M2 / (2.0 * area))
    return [relaxed_bounds(name, "J/m²", energy, potential, level, method)]


def relaxed_positions(
    crystal: Crystal, potential: Potential, level: float = 0.95, method: Relaxation = "implicit"
) -> list[PropertyBounds]:
    """Distances from each atom to its nearest neighbour in the relaxed structure (cell fixed), Å, and its energy.

    Raises
    ------
    StructureError
        If the mean does not settle, or a soft mode forbids the implicit method.
    """
    mean = minimum(potential, EnergySurface.of(crystal, potential))
    if method == "implicit":
        change = (potential.draws_ev - potential.mean_ev) @ mean.response().T
        q, energies = mean.q + change, mean.energies_ev(potential.theta_ev)
    else:
        found = resample(mean, potential.draws_ev)
        q, energies = found.q, np.append(mean.energy_ev, found.energy_ev)
    pairs = _nearest_pairs(mean.surface.crystal(mean.q))
    every = np.concatenate([mean.q[None], q]).reshape(len(q) + 1, -1, 3)
    n = len(crystal.numbers)
    out = [_result("energy", "eV/atom", energies / n, potential, level, method)]
    for i, (j, shift) in enumerate(pairs):
        between = crystal.positions[i] + every[:, i] - crystal.positions[j] - every[:, j] - shift
        distance = np.linalg.norm(between, axis=1)
        out.append(_result(f"distance {i}-{j}", "Å", distance, potential, level, method))
    return out


def _element_at_minimum(crystal: Crystal, potential: Potential) -> Crystal:
    if len(crystal.counts) > 1:
        raise StructureError(
            f"{crystal.formula} is a compound, whose defects need chemical potentials; give an element, or the "
            "energies of both cells to mace-bounds differences."
        )
    primitive = symmetry_of(crystal).primitive
    return at_volume(primitive, float(curves(primitive, potential).volume_a3[0]))


def _formation(defect: Crystal, perfect: Crystal, potential: Potential, method: Relaxation) -> RelaxedEnergy:
    """E(defect, relaxed) less as many atoms of the perfect crystal."""
    share = len(defect.numbers) / len(perfect.numbers)
    relaxed = relaxed_energy(EnergySurface.of(defect, potential), potential, method)
    return relaxed - fixed_energy(perfect, potential) * share


def relaxed_bounds(
    name: str, unit: str, energy: RelaxedEnergy, potential: Potential, level: float, method: Relaxation
) -> PropertyBounds:
    """Result of a relaxed energy; its envelope is that of the first order."""
    result = _result(name, unit, energy.energies_ev, potential, level, method)
    if potential.coefficients is None:
        return result
    return result.enveloped(energy.held, potential).assuming(ENVELOPE)


def _result(
    name: str, unit: str, values: ArrayLike, potential: Potential, level: float, method: Relaxation
) -> PropertyBounds:
    how = RELAXED if method == "implicit" else "positions are relaxed by every draw"
    return property_bounds(
        name, unit, np.asarray(values), potential, level=level, method=method, assumed=(how, KEPT_CELL)
    )


def _nearest_pairs(crystal: Crystal) -> list[tuple[int, NDArray[np.float64]]]:
    """For each atom the nearest other (its own image where it is alone) and the lattice vector to it."""
    from ase.neighborlist import neighbor_list

    reach = 2.0 * (crystal.volume / len(crystal.numbers)) ** (1 / 3)
    i, j, d, s = neighbor_list("ijdS", crystal.to_atoms(), reach)
    pairs = []
    for atom in range(len(crystal.numbers)):
        own = np.flatnonzero(i == atom)
        nearest = own[np.argmin(d[own])]
        pairs.append((int(j[nearest]), s[nearest] @ crystal.cell))
    return pairs
