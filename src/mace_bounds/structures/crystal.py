"""A periodic structure as plain arrays, and the record in which it flows through every stage."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import StructureError
from mace_bounds.structures.text import clean

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

HYDROGEN_FLAG = "deuterium_as_hydrogen"
_NUMBERS = {symbol: z for z, symbol in enumerate(chemical_symbols) if z > 0}
_ISOTOPES = {"D": 1, "T": 1}


@lru_cache(maxsize=65536)
def reduced_formula(counts: tuple[tuple[int, int], ...]) -> str:
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
        return reduced_formula(tuple(self.counts.items()))

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


def numbers_of(symbols: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Return atomic numbers and flags of element symbols; deuterium and tritium count as hydrogen.

    Raises
    ------
    StructureError
        If a symbol is no element (dummy species, vacancies, damaged text).
    """
    try:
        return [_NUMBERS[symbol] for symbol in symbols], ()
    except KeyError:
        pass
    numbers, flags = [], set()
    for text in symbols:
        symbol = text.strip().capitalize()
        if symbol in _ISOTOPES:
            flags.add(HYDROGEN_FLAG)
            numbers.append(1)
        elif symbol in _NUMBERS:
            numbers.append(_NUMBERS[symbol])
        elif symbol.isdecimal() and len(symbol) <= 3 and 1 <= int(symbol) <= 118:
            numbers.append(int(symbol))
        else:
            raise StructureError(
                f"{clean(text, 20)!r} is no chemical element; remove dummy atoms or correct the symbol."
            )
    return numbers, tuple(sorted(flags))


def crystal_of(numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike) -> Crystal:
    """Return a :class:`Crystal` of contiguous arrays, refusing shapes that do not fit together."""
    z = np.array(numbers, dtype=np.int64).reshape(-1)
    xyz = np.array(positions, dtype=np.float64)
    vectors = np.array(cell, dtype=np.float64)
    if len(z) == 0:
        raise StructureError("the structure is empty; check the source.")
    if xyz.shape != (len(z), 3) or vectors.shape != (3, 3):
        raise StructureError(
            f"{len(z)} atoms come with positions of shape {xyz.shape} and a cell of shape {vectors.shape}; check the "
            "source."
        )
    if z.min() < 1 or z.max() > 118:
        raise StructureError("some atomic numbers are not between 1 and 118; remove dummy atoms.")
    return Crystal(z, xyz, vectors)


def require_periodic(pbc: ArrayLike, *, has_cell: bool) -> None:
    """Refuse what is not periodic in all three directions."""
    if not has_cell:
        raise StructureError("the structure has no cell; give lattice vectors in the source.")
    if not np.all(np.asarray(pbc, dtype=bool)):
        raise StructureError(
            "the structure is a molecule, wire or slab, not periodic in all three directions; set pbc to 'T T T' with "
            "enough vacuum in the cell."
        )


@dataclass(frozen=True, eq=False)
class Record:
    """One structure on its way through the package, or the reason why it cannot go on.

    Attributes
    ----------
    id : str
        Identifier from the source (entry id, ``info["id"]``), else ``"FILE"`` or ``"FILE#index"``; empty as long as
        no reader has given it one.
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

    id: str = ""
    source: str = ""
    crystal: Crystal | None = None
    _: KW_ONLY
    energy_ev: float | None = None
    label_kind: str | None = None
    run_type: str | None = None
    flags: tuple[str, ...] = ()
    reason: str | None = None
    label_reason: str | None = None
    hull_distance_ev_per_atom: float | None = None

    @classmethod
    def failed(cls, reason: str, *, id: str = "", source: str = "") -> Record:
        """Return the record of a structure that cannot be scored, with one sentence why."""
        return cls(id, source, reason=reason)
