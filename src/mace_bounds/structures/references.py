"""Energies of the elements, from a file: what formation energies and hulls are measured from."""

from __future__ import annotations

import json
from pathlib import Path

from ase.data import atomic_numbers

from mace_bounds.errors import LabelError
from mace_bounds.structures.text import clean


def read_element_energies(path: str | Path) -> tuple[tuple[str, float], ...]:
    """Read energies of elements.

    Parameters
    ----------
    path : path
        JSON object of eV/atom by symbol, ``{"Li": -1.91, "O": -4.95}``, or of objects with ``per_atom``, as Matbench
        Discovery keeps those of the Materials Project.

    Returns
    -------
    tuple of (str, float)
        By symbol in alphabetical order.

    Raises
    ------
    LabelError
        If it is no such file.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise LabelError(f"{path} cannot be read as JSON of energies of elements; check it.") from None
    good = isinstance(found, dict) and found
    if good:
        found = {k: v.get("per_atom") if isinstance(v, dict) else v for k, v in found.items()}
    for symbol, energy in found.items() if good else ():
        number = isinstance(energy, (int, float)) and not isinstance(energy, bool) and abs(energy) < 1e3
        good = good and number and atomic_numbers.get(symbol, 0) > 0
        if not good:
            raise LabelError(
                f"{path} gives {clean(symbol, 20)!r} no energy in eV/atom; write an object such as "
                '{"Li": -1.91, "O": -4.95}.'
            )
    if not good:
        raise LabelError(
            f'{path} holds no energies of elements; write an object of eV/atom such as {{"Li": -1.91}}.'
        )
    return tuple(sorted((symbol, float(energy)) for symbol, energy in found.items()))
