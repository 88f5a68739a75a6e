"""What is known of a structure beside its energy: symmetry, density, volume and hull distance, from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

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
