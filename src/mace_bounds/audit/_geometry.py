"""Symmetry, density and volume of the structures of a source, for the atlas: computed once, kept beside the bounds."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from mace_bounds.structures import Crystal, Record

SYMPREC_A = 0.01
_SYSTEMS = {2: "triclinic", 15: "monoclinic", 74: "orthorhombic", 142: "tetragonal"}
_SYSTEMS |= {167: "trigonal", 194: "hexagonal", 230: "cubic"}  # by their last space group
_G_PER_CM3 = 1.66053907  # of one atomic mass unit per cubic Å
COLUMNS = ("id", "space_group", "crystal_system", "density_g_per_cm3", "volume_per_atom_a3")


def crystal_system(number: int) -> str:
    """Crystal system of a space group from 1 to 230."""
    return next(name for last, name in _SYSTEMS.items() if number <= last)


def space_group(crystal: Crystal) -> tuple[str, str]:
    """Space group (``"225 Fm-3m"``) and crystal system by spglib at 0.01 Å; ``"unknown"`` where it fails."""
    import spglib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            places = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
            found = spglib.get_spacegroup((crystal.cell, places, crystal.numbers), symprec=SYMPREC_A)
    except Exception:  # spglib raises errors of its own, which differ between versions
        found = None
    if not found:
        return "unknown", "unknown"
    symbol, number = found.replace("(", "").replace(")", "").split()
    return f"{int(number):03d} {symbol}", crystal_system(int(number))


def geometry_table(records: Iterable[Record]) -> pd.DataFrame:
    """Geometry of records, one row each, in order; symmetry only where there is a label to measure coverage with."""
    import pandas as pd

    return pd.DataFrame([_row(record) for record in records], columns=list(COLUMNS))


def _row(record: Record) -> dict[str, Any]:
    from ase.data import atomic_masses

    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"id": record.id, "density_g_per_cm3": np.nan, "volume_per_atom_a3": np.nan}
    crystal = record.crystal
    if record.reason is not None or crystal is None or not crystal.volume > 0:
        return row
    mass = float(atomic_masses[crystal.numbers].sum())
    row["density_g_per_cm3"] = mass / crystal.volume * _G_PER_CM3
    row["volume_per_atom_a3"] = crystal.volume / len(crystal.numbers)
    if record.energy_ev is not None:
        row["space_group"], row["crystal_system"] = space_group(crystal)
    return row


def kept_geometry(path: Path, ids: list[str], records: Iterable[Record]) -> pd.DataFrame | None:
    """The geometry in ``path`` if it is of these ids, else computed and written there; None if the source differs."""
    import pandas as pd

    if path.is_file():
        table = pd.read_parquet(path)
        if table["id"].tolist() == ids:
            return table
    table = geometry_table(records)
    if table["id"].tolist() != ids:
        return None
    temporary = path.with_name(f".{path.name}.tmp")
    table.to_parquet(temporary, index=False)
    temporary.replace(path)
    return table
