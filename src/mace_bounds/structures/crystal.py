"""What a parser hands over before the reader has named, checked and guarded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from mace_bounds.errors import StructureError
from mace_bounds.structures.record import Crystal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

HYDROGEN_FLAG = "deuterium_as_hydrogen"
_NUMBERS = {symbol: z for z, symbol in enumerate(chemical_symbols) if z > 0}
_ISOTOPES = {"D": 1, "T": 1}


@dataclass(frozen=True)
class Draft:
    """One structure as a parser found it, or the reason why it is none.

    The fields are those of :class:`~mace_bounds.structures.Record`; ``id`` and ``source`` may be missing.
    """

    id: str | None = None
    source: str | None = None
    crystal: Crystal | None = None
    energy_ev: float | None = None
    label_kind: str | None = None
    run_type: str | None = None
    flags: tuple[str, ...] = ()
    reason: str | None = None
    label_reason: str | None = None
    hull_distance_ev_per_atom: float | None = None


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
                f"expected chemical elements, got {text[:20]!r}; remove dummy atoms or correct the symbol"
            )
    return numbers, tuple(sorted(flags))


def crystal_of(numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike) -> Crystal:
    """Return a :class:`Crystal` of contiguous arrays, refusing shapes that do not fit together."""
    z = np.array(numbers, dtype=np.int64).reshape(-1)
    xyz = np.array(positions, dtype=np.float64)
    vectors = np.array(cell, dtype=np.float64)
    if len(z) == 0:
        raise StructureError("expected at least one atom, got an empty structure; check the source")
    if xyz.shape != (len(z), 3) or vectors.shape != (3, 3):
        raise StructureError(
            f"expected positions ({len(z)}, 3) and a cell (3, 3), got {xyz.shape} and {vectors.shape}; "
            "check the source"
        )
    if z.min() < 1 or z.max() > 118:
        raise StructureError("expected atomic numbers from 1 to 118, got others; remove dummy atoms")
    return Crystal(z, xyz, vectors)


def require_periodic(pbc: ArrayLike, *, has_cell: bool) -> None:
    """Refuse what is not periodic in all three directions."""
    if not has_cell:
        raise StructureError("expected a periodic crystal, got no cell; give lattice vectors in the source")
    if not np.all(np.asarray(pbc, dtype=bool)):
        raise StructureError(
            "expected periodicity in all three directions, got a molecule, wire or slab; "
            "set pbc to 'T T T' with enough vacuum in the cell"
        )
