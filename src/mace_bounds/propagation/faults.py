"""Stacking faults: energies along a path of structures, or of a crystal that slips along a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.propagation.builders import slip, slipped
from mace_bounds.propagation.cells import at_volume
from mace_bounds.propagation.defects import (
    EV_A2_IN_J_M2,
    KEPT_CELL,
    fixed_energy,
    relaxed_bounds,
    relaxed_energy,
)
from mace_bounds.propagation.eos import curves
from mace_bounds.propagation.result import PropertyBounds, linear_bounds
from mace_bounds.propagation.surface import EnergySurface
from mace_bounds.structures import symmetry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mace_bounds.propagation.defects import Relaxation
    from mace_bounds.propagation.potential import Potential
    from mace_bounds.structures import Crystal

    FaultMethod = Relaxation | Literal["curves"]

N_IMAGES = 12
_RIGID = "halves of the crystal slip as they are"
_ACROSS = "atoms relax along the normal of the plane alone"
_ONE_FAULT = "one fault in the cell"


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
    names = [f"fault {k}" for k in range(len(images))]
    return _path(images, names, potential, level, ("structures are fixed", _ONE_FAULT))


def gamma_line(
    crystal: Crystal,
    potential: Potential,
    miller: Sequence[int] = (1, 1, 0),
    direction: Sequence[int] = (1, -1, 1),
    *,
    n_images: int = N_IMAGES,
    level: float = 0.95,
    method: FaultMethod = "implicit",
) -> list[PropertyBounds]:
    """Energies of a crystal that slips along a plane by parts of the shortest lattice vector in a direction, J/m².

    Parameters
    ----------
    crystal : Crystal
        Taken at the mean's own equilibrium volume.
    potential : Potential
    miller, direction : sequence of int
        Plane (hkl) and direction [uvw] in it, of the conventional cell.
    n_images : int
        The vector is divided into so many parts; both of its ends are the perfect crystal.
    level : float
        Of the intervals.
    method : {"implicit", "resample", "curves"}
        How atoms relax along the normal of the plane; with ``"curves"`` they do not, and energies are linear in the
        weights.

    Raises
    ------
    StructureError
        If the direction is not in the plane, or a fault does not settle.
    """
    primitive = symmetry_of(crystal).primitive
    bulk = at_volume(primitive, float(curves(primitive, potential).volume_a3[0]))
    whole, vector = slip(bulk, miller, direction)
    plane, line = ("".join(map(str, indices)) for indices in (miller, direction))
    # a slip by the vector and one by none are the same, and backwards is forwards where a mirror says so
    parts = [k / n_images for k in range(n_images)]
    images = [slipped(whole, part * vector) for part in parts]
    length = float(np.linalg.norm(vector))
    names = [f"fault ({plane})[{line}] at {part:.3f} of {length:.3f} Å" for part in parts]
    if method == "curves":
        return _path(images, names, potential, level, (_RIGID, KEPT_CELL, _ONE_FAULT))
    normal = np.cross(whole.cell[0], whole.cell[1])
    area = float(np.linalg.norm(normal))
    out = []
    perfect = fixed_energy(images[0], potential)
    for image, name in zip(images[1:], names[1:], strict=True):
        surface = EnergySurface.of(image, potential, along=normal / area)
        energy = (relaxed_energy(surface, potential, method) - perfect) * (EV_A2_IN_J_M2 / area)
        found = relaxed_bounds(name, "J/m²", energy, potential, level, method)
        out.append(found.assuming(_ACROSS, _ONE_FAULT))
    return out


def _path(
    images: Sequence[Crystal],
    names: Sequence[str],
    potential: Potential,
    level: float,
    assumed: tuple[str, ...],
) -> list[PropertyBounds]:
    """Energies of fixed structures less that of the first, by the area of the first two vectors."""
    factor = EV_A2_IN_J_M2 / float(np.linalg.norm(np.cross(images[0].cell[0], images[0].cell[1])))
    rows = potential.rows(images)
    return [
        linear_bounds(
            name, "J/m²", (rows.linear(k) - rows.linear(0)) * factor, potential, level=level, assumed=assumed
        )
        for k, name in enumerate(names)
        if k > 0
    ]
