"""Space groups by spglib."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.structures.crystal import Crystal

SYMPREC_A = 0.01
UNKNOWN = "unknown"
_SYSTEMS = {2: "triclinic", 15: "monoclinic", 74: "orthorhombic", 142: "tetragonal"}
_SYSTEMS |= {167: "trigonal", 194: "hexagonal", 230: "cubic"}  # by their last space group


def space_group(crystal: Crystal) -> str:
    """Number and symbol of a crystal's space group (``"225 Fm-3m"``, ``"002 P-1"``).

    Parameters
    ----------
    crystal : Crystal

    Returns
    -------
    str
        By spglib at a tolerance of 0.01 Å; ``"unknown"`` where it finds none.
    """
    import spglib

    try:
        fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    except np.linalg.LinAlgError:  # a cell without volume
        return UNKNOWN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            group = spglib.get_spacegroup((crystal.cell, fractional, crystal.numbers), symprec=SYMPREC_A)
        except Exception:  # spglib raises errors of its own, which differ between versions
            group = None
    if not group:
        return UNKNOWN
    symbol, number = group.replace("(", "").replace(")", "").split()
    return f"{int(number):03d} {symbol}"


def crystal_system(space_group: str) -> str:
    """Crystal system of a space group as :func:`space_group` writes it (``"225 Fm-3m"`` is ``"cubic"``)."""
    if space_group == UNKNOWN:
        return UNKNOWN
    number = int(space_group.split()[0])
    return next(name for last, name in _SYSTEMS.items() if number <= last)


@dataclass(frozen=True, eq=False)
class Symmetry:
    """What the symmetry of a crystal says of its tensors.

    Attributes
    ----------
    system : str
        Crystal system; ``"unknown"`` where spglib finds no symmetry.
    to_standard : ndarray, shape (3, 3)
        Rotation of vectors into the standard orientation of spglib (cubic axes along x, y, z).
    rotations : ndarray, shape (n, 3, 3)
        The point group, acting on vectors in the standard orientation.
    primitive : Crystal
        A primitive cell in the orientation of the crystal.
    """

    system: str
    to_standard: NDArray[np.float64]
    rotations: NDArray[np.float64]
    primitive: Crystal


def symmetry_of(crystal: Crystal) -> Symmetry:
    """Symmetry by spglib at a tolerance of 0.01 Å; none but the identity where it finds nothing."""
    import spglib

    none = Symmetry(UNKNOWN, np.eye(3), np.eye(3)[None], crystal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
            cell = (crystal.cell, fractional, crystal.numbers)
            found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC_A)
            primitive = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=SYMPREC_A)
        except Exception:  # spglib raises errors of its own, which differ between versions
            return none
    if found is None or primitive is None:
        return none
    to_standard = _nearest_rotation(np.asarray(found.std_rotation_matrix))
    columns = crystal.cell.T
    rotations = [
        to_standard @ _nearest_rotation(columns @ w @ np.linalg.inv(columns)) @ to_standard.T
        for w in np.unique(found.rotations, axis=0)
    ]
    vectors, places, numbers = primitive
    small = Crystal(np.asarray(numbers, dtype=np.int64), np.asarray(places @ vectors), np.asarray(vectors))
    return Symmetry(crystal_system(f"{found.number}"), to_standard, np.array(rotations), small)


def _nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the orthogonal matrix nearest to one that is so up to the tolerance."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)
