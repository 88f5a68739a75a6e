"""The label guard at the source: structure and uncorrected energy out of one entry of one document.

A thermodynamic document of the Materials Project names one material, what kind of hull it belongs to, and holds
the entries (structure, total energy, correction) that this hull was made from. Its own top-level fields
may be of another calculation, so only the entry is taken, and the fields serve to check it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import LabelError
from mace_bounds.structures import REFUSED, canonical, cell_of, clean, functional_of, guard_label

if TYPE_CHECKING:
    from collections.abc import Mapping

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
"""Fields of a document that are asked for."""

_ENERGY_TOLERANCE = 2e-3  # eV/atom; documents may round
_VOLUME_TOLERANCE = 2e-3  # relative
_TAKE = "take structure and uncorrected energy of the same GGA_GGA+U entry"


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
    found = _entry(document)
    entry = dict(found or {})
    run_type = _text(document.get("energy_type"))
    entry["entry_id"] = f"{name}-{run_type}" if run_type else name  # as the database writes it, in one way
    entry.setdefault("energy", None)
    builder = _mapping(document.get("builder_meta"))
    known = {
        "material_id": name or None,
        "thermo_type": _text(document.get("thermo_type")),
        "energy_above_hull": document.get("energy_above_hull"),
        "license": _mapping(entry.get("data")).get("license") or builder.get("license"),
        "database_version": database_version,
    }
    data = {
        **_mapping(entry.get("data")),
        **{key: value for key, value in known.items() if value is not None},
    }
    data.pop(REFUSED, None)
    try:
        check_entry(document, found)
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
    thermo_type, run_type = _text(document.get("thermo_type")), _text(document.get("energy_type"))
    if entry is None:
        raise LabelError(
            f"expected the entry of the {clean(run_type or 'stated', 20)} calculation, got "
            f"{_listing(document)}; {_TAKE}"
        )
    parameters, data = _mapping(entry.get("parameters")), _mapping(entry.get("data"))
    if thermo_type is None:
        raise LabelError(f"expected the thermo type GGA_GGA+U, got none; {_TAKE}")
    functional = functional_of(parameters)
    for stated in dict.fromkeys((run_type, _text(parameters.get("run_type")), _text(data.get("run_type")))):
        guard_label(entry.get("energy"), run_type=stated, thermo_type=thermo_type, functional=functional)
    others = [
        t for t in (parameters.get("run_type"), data.get("run_type")) if not _same_run_type(t, run_type)
    ]
    if others:
        raise LabelError(
            f"expected an entry of the run type {clean(run_type, 20)}, got {clean(others[0], 20)}; {_TAKE}"
        )
    structure = _mapping(entry.get("structure"))
    n_atoms = len(structure.get("sites") or ())
    if n_atoms == 0:
        raise LabelError(f"expected an entry with its own structure, got none; {_TAKE}")
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
        raise LabelError(
            "expected an uncorrected energy, got the corrected one; take entry.uncorrected_energy instead"
        )
    raise LabelError(
        f"expected the document's uncorrected energy of {uncorrected:.4f} eV/atom, got {energy:.4f} in the entry, "
        f"which is another calculation; {_TAKE}"
    )


def _check_geometry(
    document: Mapping[str, Any], entry: Mapping[str, Any], structure: Mapping[str, Any]
) -> None:
    sites = structure["sites"]
    nsites, volume = _number(document.get("nsites")), _number(document.get("volume"))
    if nsites is not None and nsites != len(sites):
        raise LabelError(
            f"expected the {nsites:g} atoms of the document, got {len(sites)} in the entry, which is the "
            f"geometry of another calculation; {_TAKE}"
        )
    own = _volume(structure)
    if volume is not None and own is not None and abs(own - volume) > _VOLUME_TOLERANCE * volume:
        raise LabelError(
            f"expected the document's cell of {volume:.2f} Å³, got {own:.2f} Å³ in the entry, which is the "
            f"geometry of another calculation; {_TAKE}"
        )
    composition = entry.get("composition")
    if isinstance(composition, dict) and composition and not _same_atoms(composition, sites):
        raise LabelError(
            "expected the atoms of the entry's composition, got others in its structure, which is the geometry "
            f"of another calculation; {_TAKE}"
        )
    task = _mapping(entry.get("data")).get("task_id")
    origins = document.get("origins")
    tasks = {
        _mapping(origin).get("name"): _mapping(origin).get("task_id")
        for origin in (origins if isinstance(origins, list) else ())
    }
    for what in ("energy", "structure"):
        if task and tasks.get(what) and _differ(str(tasks[what]), str(task)):
            raise LabelError(
                f"expected the entry of calculation {clean(tasks[what], 40)} as the document says of its {what}, got "
                f"{clean(task, 40)}; {_TAKE}"
            )


def _volume(structure: Mapping[str, Any]) -> float | None:
    try:
        return float(abs(np.linalg.det(cell_of(_mapping(structure.get("lattice"))))))
    except (KeyError, TypeError, ValueError):
        return None  # the reader will say what is wrong with it


def _differ(one: str, other: str) -> bool:
    """Compare ids of calculations; the database's old ids in digits and new ones in letters are not compared."""
    return one != other and one[-1:].isdigit() == other[-1:].isdigit()


def _same_run_type(one: Any, other: str | None) -> bool:
    return one is None or other is None or canonical(str(_text(one))) == canonical(other)


def _same_atoms(composition: Mapping[str, Any], sites: Any) -> bool:
    counts: dict[str, float] = {}
    for site in sites:
        for species in _mapping(site).get("species") or ():
            element = str(_mapping(species).get("element"))
            counts[element] = counts.get(element, 0.0) + float(_mapping(species).get("occu") or 1.0)
    wanted = {element: float(n) for element, n in composition.items() if n}
    return counts.keys() == wanted.keys() and all(abs(counts[e] - wanted[e]) < 1e-3 for e in wanted)


def _entry(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry that the document's energy is of: the one under its run type."""
    found = _mapping(document.get("entries")).get(str(_text(document.get("energy_type"))))
    return found if isinstance(found, dict) else None


def _listing(document: Mapping[str, Any]) -> str:
    names = [clean(name, 20) for name in _mapping(document.get("entries"))]
    return f"entries of {', '.join(names[:5])} only" if names else "a document without entries"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def _number(value: Any) -> float | None:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )
