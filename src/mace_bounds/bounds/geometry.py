"""Structures beside their bounds: symmetry, density, volume and hull distance; crystals that carry their bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.flags import REFIT, flag_names
from mace_bounds.structures import Crystal
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms

SPACE_GROUP, DENSITY, VOLUME = "space_group", "density_g_per_cm3", "volume_per_atom_a3"
HULL = "hull_distance_ev_per_atom"
GEOMETRY = (SPACE_GROUP, DENSITY, VOLUME, HULL)
_G_PER_CM3 = 1.66053907  # of one atomic mass unit per cubic Å


def geometry_columns(table: pd.DataFrame) -> dict[str, NDArray[np.generic]]:
    """Columns of :data:`GEOMETRY` for rows of a feature store; empty where the store does not know them.

    Parameters
    ----------
    table : DataFrame
        :attr:`mace_bounds.features.FeatureRows.table`.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        The space group as text, the others as float64: g/cm³, Å³ per atom, eV/atom.
    """
    from ase.data import atomic_masses

    volume = table["volume_a3"].to_numpy(dtype=np.float64)
    known = np.isfinite(volume) & (volume > 0)
    mass, size = np.full(len(table), np.nan), np.full(len(table), np.nan)
    for k in np.flatnonzero(known):
        counts = np.asarray(table["counts"].iloc[k])
        mass[k] = atomic_masses[np.asarray(table["elements"].iloc[k])] @ counts
        size[k] = counts.sum()
    volume = np.where(known, volume, np.nan)
    return {
        SPACE_GROUP: table[SPACE_GROUP].to_numpy(dtype=object),
        DENSITY: mass / volume * _G_PER_CM3,
        VOLUME: volume / size,
        HULL: table[HULL].to_numpy(dtype=np.float64),
    }


def atoms_with_bounds(table: pd.DataFrame, crystals: Iterable[Crystal | None]) -> list[Atoms]:
    """Crystals as ase objects that carry their rows of a bounds table; those without bounds are left out.

    Parameters
    ----------
    table : DataFrame
        A bounds table, or some of its columns, with ``energy_model_ev``.
    crystals : iterable of Crystal or None
        Of its rows, in order.

    Returns
    -------
    list of Atoms
        ``get_potential_energy()`` is the *model's* energy, eV, as of any calculator (with a head of one chemistry that
        of the refitted readout); everything else is in ``info``, ``mace_bounds_`` before the name of the column.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    made = []
    for row, crystal in zip(records(table), crystals, strict=True):
        if crystal is None or row["energy_model_ev"] is None:
            continue
        atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=True)
        atoms.info = {f"mace_bounds_{name}": value for name, value in row.items() if value is not None}
        refit = REFIT in flag_names(row.get("flags"))
        energy = row["energy_expected_ev"] if refit else row["energy_model_ev"]
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        made.append(atoms)
    return made
