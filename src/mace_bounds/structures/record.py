"""The record that flows through every stage."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure


@lru_cache(maxsize=65536)
def _reduced_formula(counts: tuple[tuple[int, int], ...]) -> str:
    """Return pymatgen's reduced formula of (atomic number, number of atoms) pairs."""
    from pymatgen.core import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity to sort by
        return str(Composition({chemical_symbols[z]: n for z, n in counts}).reduced_formula)


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic structure as plain arrays.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray of float64, shape (n_atoms, 3)
        Cartesian positions, Å.
    cell : ndarray of float64, shape (3, 3)
        Lattice vectors as rows, Å; periodic in all three directions.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]

    @cached_property
    def counts(self) -> dict[int, int]:
        """Atomic number to number of atoms, in increasing atomic number."""
        z, n = np.unique(self.numbers, return_counts=True)
        return {int(a): int(b) for a, b in zip(z, n, strict=True)}

    @cached_property
    def formula(self) -> str:
        """Reduced formula as pymatgen writes it (``"NaCl"``, ``"LiFePO4"``, ``"O2"``)."""
        return _reduced_formula(tuple(self.counts.items()))

    @cached_property
    def chemical_system(self) -> str:
        """Elements in alphabetical order, joined by hyphens (``"Cl-Na"``)."""
        return "-".join(sorted(chemical_symbols[z] for z in self.counts))

    @cached_property
    def volume(self) -> float:
        """Cell volume, Å³."""
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = self.cell.tolist()
        determinant = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        return float(abs(determinant))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over numbers, cell and positions rounded to 1e-5 Å: equal for equal files."""
        sha = hashlib.sha256()
        sha.update(np.ascontiguousarray(self.numbers, dtype="<i8").tobytes())
        for array in (self.cell, self.positions):
            sha.update(np.ascontiguousarray(np.round(array, 5) + 0.0, dtype="<f8").tobytes())
        return sha.hexdigest()

    def to_atoms(self) -> Atoms:
        """Return an :class:`ase.Atoms` with the same cell, periodic in all directions."""
        from ase import Atoms

        return Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=True)

    def to_structure(self) -> Structure:
        """Return a :class:`pymatgen.core.Structure` with the same cell."""
        from pymatgen.core import Lattice, Structure

        symbols = [chemical_symbols[z] for z in self.numbers]
        return Structure(Lattice(self.cell), symbols, self.positions, coords_are_cartesian=True)


@dataclass(frozen=True, eq=False)
class Record:
    """One structure on its way through the package, or the reason why it cannot go on.

    Attributes
    ----------
    id : str
        Identifier from the source (entry id, ``info["id"]``), else ``"FILE"`` or ``"FILE#index"``.
    source : str
        Where it was read from: the file's name, or what ``info["source"]`` says.
    crystal : Crystal or None
        None if the record cannot be scored.
    energy_ev : float or None
        Label: total energy of the cell, eV.
    label_kind : str or None
        What the label is, e.g. ``"uncorrected GGA+U"`` or the extxyz key it came from.
    run_type : str or None
        ``"GGA"``, ``"GGA+U"``, ... where the source says so.
    flags : tuple of str
        Things a user should know (``"yb_3_potential"``, ``"licence_by_nc"``, ...).
    reason : str or None
        One sentence why the record cannot be scored; None for a good record.
    label_reason : str or None
        One sentence why a label that the source offers was not taken (or was not found under the key that
        the user named); such a record can still be scored.
    hull_distance_ev_per_atom : float or None
        Distance from the convex hull, eV/atom, where the source says it; of the hull that the source took (for the
        Materials Project that of GGA and GGA+U with corrections).
    """

    id: str
    source: str
    crystal: Crystal | None = None
    energy_ev: float | None = None
    label_kind: str | None = None
    run_type: str | None = None
    flags: tuple[str, ...] = field(default=())
    reason: str | None = None
    label_reason: str | None = None
    hull_distance_ev_per_atom: float | None = None
