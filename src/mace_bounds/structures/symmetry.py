"""Space groups by spglib."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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
