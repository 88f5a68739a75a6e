"""Defects, surfaces and faults: energies of relaxed cells less those of the perfect crystal, of every draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.propagation.cells import at_volume
from mace_bounds.propagation.eos import curves
from mace_bounds.propagation.implicit import minimum
from mace_bounds.propagation.resample import resample
from mace_bounds.propagation.result import EV_A3_IN_GPA, PropertyBounds, property_bounds
from mace_bounds.propagation.surface import EnergySurface
from mace_bounds.structures import Crystal, symmetry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from mace_bounds.propagation.potential import Potential

Relaxation = Literal["implicit", "resample"]

EV_A2_IN_J_M2 = EV_A3_IN_GPA / 10.0
VACUUM_A, THICKNESS_A = 12.0, 10.0
SHORTEST_A = 8.5
"""Shortest side of a cell with a defect."""
KEPT_CELL = "the cell is kept at the volume of the mean's perfect crystal"
_RELAXED = "positions are relaxed by the mean, and to second order by every draw"


def relaxed_energies_ev(crystal: Crystal, potential: Potential, method: Relaxation) -> NDArray[np.float64]:
    """Energies after relaxation of the positions, by the mean (first) and by every draw, shape (1 + k,).

    Raises
    ------
    StructureError
        If the mean does not settle, or a soft mode forbids the implicit method.
    ModelError
        If the backbone has no derivatives.
    """
    mean = minimum(potential, EnergySurface.of(crystal, potential))
    if method == "implicit":
        return mean.energies_ev(potential.theta_ev)
    return np.append(mean.energy_ev, resample(mean, potential.draws_ev).energy_ev)


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
    energies = _formation_ev(hole, perfect, potential, method)
    name = f"vacancy formation energy ({len(perfect.numbers)} sites)"
    return [_result(name, "eV", energies, potential, level, method)]


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
    along = np.asarray(direction, dtype=np.float64)
    along = along / np.linalg.norm(along)
    nearest = np.linalg.norm(perfect.positions[1:] - perfect.positions[0], axis=1).min()
    half = 0.4 * nearest * along
    places = np.concatenate(
        [perfect.positions[:1] - half, perfect.positions[:1] + half, perfect.positions[1:]]
    )
    numbers = np.concatenate([perfect.numbers[:1], perfect.numbers])
    energies = _formation_ev(Crystal(numbers, places, perfect.cell), perfect, potential, method)
    named = "".join(f"{value:g}" for value in direction)
    return [
        _result(f"{named} dumbbell formation energy ({len(perfect.numbers)} sites)", "eV", energies, potential, level,
                method)
    ]  # fmt: skip


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
    energies = _formation_ev(made, bulk, potential, method) / (2.0 * area) * EV_A2_IN_J_M2
    name = f"surface energy ({''.join(map(str, miller))}, {len(made.numbers)} atoms)"
    return [_result(name, "J/m²", energies, potential, level, method)]


def fault_path(images: Sequence[Crystal], potential: Potential, level: float = 0.95) -> list[PropertyBounds]:
    """Energies along a path of fixed structures less that of the first, J/m² of the plane of the first two vectors.

    Linear in the weights: for stacking faults and γ-surfaces whose images were relaxed before.

    Raises
    ------
    StructureError
        If there are fewer than two images, or their atoms differ.
    """
    if len(images) < 2 or any(sorted(i.numbers) != sorted(images[0].numbers) for i in images):
        raise StructureError("a path needs two structures or more of the same atoms; give them in order.")
    area = float(np.linalg.norm(np.cross(images[0].cell[0], images[0].cell[1])))
    energies = potential.energies_ev(images)
    rise = (energies - energies[:, :1]) / area * EV_A2_IN_J_M2
    fixed = ("structures are fixed", "one fault in the cell")
    return [
        property_bounds(
            f"fault {k}", "J/m²", rise[:, k], potential, level=level, method="curves", assumed=fixed
        )
        for k in range(1, len(images))
    ]


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


def supercell(crystal: Crystal, shortest_a: float = SHORTEST_A) -> Crystal:
    """Repeat the conventional cell until its sides are long enough."""
    conventional = conventional_cell(crystal)
    atoms = conventional.to_atoms()
    repeats = np.ceil(shortest_a / np.linalg.norm(conventional.cell, axis=1) - 1e-6).astype(int)
    atoms = atoms.repeat(np.maximum(repeats, 1))
    return Crystal(np.asarray(atoms.numbers, dtype=np.int64), atoms.positions, atoms.cell.array)


def conventional_cell(crystal: Crystal) -> Crystal:
    """Conventional cell by spglib, axes of cubic crystals along x, y, z; the cell itself where it finds none."""
    import spglib

    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    found = spglib.standardize_cell((crystal.cell, fractional, crystal.numbers), symprec=0.01)
    if found is None:
        return crystal
    cell, places, numbers = found
    return Crystal(np.asarray(numbers, dtype=np.int64), np.asarray(places @ cell), np.asarray(cell))


def slab(crystal: Crystal, miller: Sequence[int], thickness_a: float = THICKNESS_A) -> Crystal:
    """A slab with a surface (hkl) of the conventional cell, of 10 Å or more; 12 Å of vacuum along the third vector."""
    from ase.build import surface

    conventional, layers = conventional_cell(crystal).to_atoms(), 1
    # ase takes text for another plane without a word
    indices = tuple(int(index) for index in miller)
    while True:
        atoms = surface(conventional, indices, layers, VACUUM_A / 2, periodic=True)
        if np.ptp(atoms.positions[:, 2]) >= thickness_a:
            break
        layers += 1
    whole = Crystal(np.asarray(atoms.numbers, dtype=np.int64), atoms.positions, atoms.cell.array)
    small = symmetry_of(whole).primitive
    out = int(np.argmax(np.abs(small.cell[:, 2])))
    return Crystal(small.numbers, small.positions, small.cell[[k for k in range(3) if k != out] + [out]])


def _element_at_minimum(crystal: Crystal, potential: Potential) -> Crystal:
    if len(crystal.counts) > 1:
        raise StructureError(
            f"{crystal.formula} is a compound, whose defects need chemical potentials; give an element, or the "
            "energies of both cells to mace-bounds differences."
        )
    primitive = symmetry_of(crystal).primitive
    return at_volume(primitive, float(curves(primitive, potential).volume_a3[0]))


def _formation_ev(
    defect: Crystal, perfect: Crystal, potential: Potential, method: Relaxation
) -> NDArray[np.float64]:
    """E(defect, relaxed) less as many atoms of the perfect crystal, by the mean and every draw, shape (1 + k,)."""
    per_atom = potential.energies_ev([perfect])[:, 0] / len(perfect.numbers)
    return np.asarray(
        relaxed_energies_ev(defect, potential, method) - len(defect.numbers) * per_atom, dtype=np.float64
    )


def _result(
    name: str, unit: str, values: ArrayLike, potential: Potential, level: float, method: Relaxation
) -> PropertyBounds:
    how = _RELAXED if method == "implicit" else "positions are relaxed by every draw"
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
