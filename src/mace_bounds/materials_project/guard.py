"""The label guard at the source: structure and uncorrected energy out of one entry of one document.

A thermodynamic document of the Materials Project names one material, what kind of hull it belongs to, and holds
the entries (structure, total energy, correction) that this hull was made from. Its own top-level fields
may be of another calculation, so only the entry is taken, and the fields serve to check it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mace_bounds.errors import LabelError
from mace_bounds.structures import (
    REFUSED,
    as_mapping,
    as_text,
    canonical,
    cell_of,
    clean,
    functional_of,
    guard_label,
)

FIELDS = (
    "material_id",
    "thermo_type",
    "energy_type",
    "entries",
    "uncorrected_energy_per_atom",
    "energy_per_atom",
    "energy_above_hull",
    "nsites",
    "volume",
    "origins",
    "builder_meta",
)
"""Fields of a document that are requested."""

_ENERGY_TOLERANCE = 2e-3  # eV/atom; documents may round
_VOLUME_TOLERANCE = 2e-3  # relative
_TAKE = "take structure and uncorrected energy of the same GGA_GGA+U entry."


def entry_of(document: Mapping[str, Any], database_version: str | None = None) -> dict[str, Any]:
    """Return the entry of a document as the dictionary that is kept, with a reason if its energy is no label.

    Parameters
    ----------
    document : mapping
        A ``ThermoDoc`` as JSON, with :data:`FIELDS`.
    database_version : str, optional
        Kept in the entry's ``data``.

    Returns
    -------
    dict
        A ``ComputedStructureEntry`` dictionary. Its ``data`` gains the material's id, the kind of hull, the
        distance from it in eV/atom, licence and database version, and where the guard refuses :data:`REFUSED`.
    """
    name = str(document.get("material_id") or "")
    original = _entry(document)
    entry = dict(original or {})
    run_type = as_text(document.get("energy_type"))
    entry["entry_id"] = f"{name}-{run_type}" if run_type else name  # as the database writes it, in one way
    entry.setdefault("energy", None)
    builder = as_mapping(document.get("builder_meta"))
    known = {
        "material_id": name or None,
        "thermo_type": as_text(document.get("thermo_type")),
        "energy_above_hull": document.get("energy_above_hull"),
        "license": as_mapping(entry.get("data")).get("license") or builder.get("license"),
        "database_version": database_version,
    }
    data = {
        **as_mapping(entry.get("data")),
        **{key: value for key, value in known.items() if value is not None},
    }
    data.pop(REFUSED, None)
    try:
        check_entry(document, original)
    except LabelError as error:
        data[REFUSED] = str(error)
    entry["data"] = data
    return entry


def check_entry(document: Mapping[str, Any], entry: Mapping[str, Any] | None) -> None:
    """Refuse an entry whose energy is not the uncorrected PBE(+U) energy of its own structure.

    Parameters
    ----------
    document : mapping
        The document that the entry is of.
    entry : mapping or None
        The entry that the document's energy was taken from.

    Raises
    ------
    LabelError
        For other thermo types, run types and pseudopotentials, corrected energies, geometries and energies of
        another calculation, and entries that are missing or hold no structure.
    """
    thermo_type, run_type = as_text(document.get("thermo_type")), as_text(document.get("energy_type"))
    if entry is None:
        raise LabelError(
            f"the document's energy is of the {clean(run_type or 'stated', 20)} calculation, but it has "
            f"{_listing(document)}; {_TAKE}"
        )
    parameters, data = as_mapping(entry.get("parameters")), as_mapping(entry.get("data"))
    if thermo_type is None:
        raise LabelError(f"the document names no thermo type, which must be GGA_GGA+U; {_TAKE}")
    functional = functional_of(parameters)
    for stated in dict.fromkeys(
        (run_type, as_text(parameters.get("run_type")), as_text(data.get("run_type")))
    ):
        guard_label(entry.get("energy"), run_type=stated, thermo_type=thermo_type, functional=functional)
    others = [
        t for t in (parameters.get("run_type"), data.get("run_type")) if not _same_run_type(t, run_type)
    ]
    if others:
        raise LabelError(
            f"the entry is of the run type {clean(others[0], 20)}, not {clean(run_type, 20)} as the document; {_TAKE}"
        )
    structure = as_mapping(entry.get("structure"))
    n_atoms = len(structure.get("sites") or ())
    if n_atoms == 0:
        raise LabelError(f"the entry has no structure of its own; {_TAKE}")
    _check_energy(document, entry, n_atoms)
    _check_geometry(document, entry, structure)


def _check_energy(document: Mapping[str, Any], entry: Mapping[str, Any], n_atoms: int) -> None:
    energy = float(entry["energy"]) / n_atoms
    uncorrected, corrected = (
        _number(document.get(key)) for key in ("uncorrected_energy_per_atom", "energy_per_atom")
    )
    if uncorrected is None or abs(energy - uncorrected) <= _ENERGY_TOLERANCE:
        return
    if corrected is not None and abs(energy - corrected) <= _ENERGY_TOLERANCE:
        raise LabelError("the entry's energy is the corrected one; take entry.uncorrected_energy instead.")
    raise LabelError(
        f"the entry's energy is {energy:.4f} eV/atom and the document's {uncorrected:.4f}, so it is that of another "
        f"calculation; {_TAKE}"
    )


def _check_geometry(
    document: Mapping[str, Any], entry: Mapping[str, Any], structure: Mapping[str, Any]
) -> None:
    sites = structure["sites"]
    nsites, volume = _number(document.get("nsites")), _number(document.get("volume"))
    if nsites is not None and nsites != len(sites):
        raise LabelError(
            f"the entry has {len(sites)} atoms and the document {nsites:g}, so it is the geometry of another "
            f"calculation; {_TAKE}"
        )
    own = _volume(structure)
    if volume is not None and own is not None and abs(own - volume) > _VOLUME_TOLERANCE * volume:
        raise LabelError(
            f"the entry's cell is {own:.2f} Å³ and the document's {volume:.2f}, so it is the geometry of another "
            f"calculation; {_TAKE}"
        )
    composition = entry.get("composition")
    if isinstance(composition, dict) and composition and not _same_atoms(composition, sites):
        raise LabelError(
            "the atoms of the entry's structure are not those of its composition, so it is the geometry of another "
            f"calculation; {_TAKE}"
        )
    task = as_mapping(entry.get("data")).get("task_id")
    origins = document.get("origins")
    tasks = {
        as_mapping(origin).get("name"): as_mapping(origin).get("task_id")
        for origin in (origins if isinstance(origins, list) else ())
    }
    for what in ("energy", "structure"):
        if task and tasks.get(what) and _differ(str(tasks[what]), str(task)):
            raise LabelError(
                f"the document's {what} is of calculation {clean(tasks[what], 40)}, the entry of {clean(task, 40)}; "
                f"{_TAKE}"
            )


def _volume(structure: Mapping[str, Any]) -> float | None:
    try:
        return float(abs(np.linalg.det(cell_of(as_mapping(structure.get("lattice"))))))
    except (KeyError, TypeError, ValueError):
        return None  # the reader refuses such a cell with its own reason


def _differ(task: str, other: str) -> bool:
    """Compare ids of calculations; the database's old ids in digits and new ones in letters are not compared."""
    return task != other and task[-1:].isdigit() == other[-1:].isdigit()


def _same_run_type(stated: Any, other: str | None) -> bool:
    return stated is None or other is None or canonical(str(as_text(stated))) == canonical(other)


def _same_atoms(composition: Mapping[str, Any], sites: Any) -> bool:
    counts: dict[str, float] = {}
    for site in sites:
        for species in as_mapping(site).get("species") or ():
            element = str(as_mapping(species).get("element"))
            counts[element] = counts.get(element, 0.0) + float(as_mapping(species).get("occu") or 1.0)
    wanted = {element: float(n) for element, n in composition.items() if n}
    return counts.keys() == wanted.keys() and all(abs(counts[e] - wanted[e]) < 1e-3 for e in wanted)


def _entry(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry that the document's energy is of: the one under its run type."""
    entry = as_mapping(document.get("entries")).get(str(as_text(document.get("energy_type"))))
    return entry if isinstance(entry, dict) else None


def _listing(document: Mapping[str, Any]) -> str:
    names = [clean(name, 20) for name in as_mapping(document.get("entries"))]
    return f"entries of {', '.join(names[:5])} only" if names else "a document without entries"


def _number(value: Any) -> float | None:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )
