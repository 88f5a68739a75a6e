"""The record that flows through every stage."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ase import Atoms
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    from mace_bounds.structures.containers import Upload
    from mace_bounds.structures.crystal import Crystal


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


Path: TypeAlias = "str | os.PathLike[str]"
StructureLike: TypeAlias = (
    "Record | Crystal | Upload | Structure | ComputedStructureEntry | Atoms | Mapping[str, Any] | Path"
)
"""One structure, or the name of a file, folder, pattern or query that holds some."""

Source: TypeAlias = "StructureLike | Iterable[StructureLike]"
"""Whatever :func:`mace_bounds.structures.read` reads."""
