"""ComputedStructureEntry and Structure dictionaries (JSON), without building pymatgen objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import LabelError, StructureError
from mace_bounds.structures.draft import Draft, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.labels import (
    REFUSED,
    find_label,
    functional_of,
    guard_label,
    hull_distance,
    licence_flags,
    potential_titles,
    require_known_functional,
    run_type_of,
    ytterbium_flags,
)
from mace_bounds.structures.text import clean, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from mace_bounds.structures.record import Crystal

_LIST_KEYS = ("entries", "data", "structures")
_ID_KEYS = ("entry_id", "id", "material_id", "name")
_DERIVED_KEYS = ("uncorrected_energy_per_atom", "energy_per_atom", "energy_above_hull", "corrected_energy")
_OCCUPANCY_TOLERANCE = 1e-6


def load_json(data: bytes) -> Any:
    """Return parsed JSON; NaN and Infinity pass (they become reasons later).

    Raises
    ------
    StructureError
        If the text is no JSON.
    """
    try:
        import orjson

        return orjson.loads(data)
    except (ImportError, ValueError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StructureError(
            f"expected JSON, got text that cannot be parsed ({sentence(error)}); check that it is complete"
        ) from None


def parse_lines(lines: Iterable[str], *, energy_key: str | None = None) -> Iterator[Draft]:
    """Yield one draft per line of JSON; a damaged line is a draft with a reason.

    Parameters
    ----------
    lines : iterable of str
        One entry or structure a line.
    energy_key : str, optional
        As in :func:`parse_entries`.
    """
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = load_json(line.encode())
        except StructureError as error:
            yield Draft(reason=str(error))
        else:
            yield parse_entry(entry, energy_key=energy_key)


def parse_entries(data: Any, *, energy_key: str | None = None) -> Iterator[Draft]:
    """Yield one draft per entry or structure in parsed JSON.

    Parameters
    ----------
    data : list or dict
        A list of entries, one entry, one structure, ``{"entries": [...]}``, or a mapping from ids to either.
    energy_key : str, optional
        Key of the label in the entry or its ``data``; None takes the entry's uncorrected energy.
    """
    if isinstance(data, list):
        for item in data:
            yield parse_entry(item, energy_key=energy_key)
        if not data:
            yield Draft(reason="expected entries, got an empty list; check the source")
        return
    if isinstance(data, dict) and not _is_entry(data):
        for key in _LIST_KEYS:
            if isinstance(data.get(key), list):
                yield from parse_entries(data[key], energy_key=energy_key)
                return
        if data and all(isinstance(value, dict) and _is_entry(value) for value in data.values()):
            for key, value in data.items():
                yield parse_entry(value, energy_key=energy_key, name=str(key))
            return
    yield parse_entry(data, energy_key=energy_key)


def parse_entry(entry: Any, *, energy_key: str | None = None, name: str | None = None) -> Draft:
    """Return the draft of one ``ComputedStructureEntry`` or ``Structure`` dictionary."""
    if not isinstance(entry, dict) or not _is_entry(entry):
        has_energy = isinstance(entry, dict) and "energy" in entry
        got = "an entry without structure" if has_energy else "something else"
        return Draft(
            id=name_of(entry) if isinstance(entry, dict) else None,
            reason=f"expected a ComputedStructureEntry or a Structure, got {got}; "
            "export entries with their structures",
        )
    name = name_of(entry) or name
    structure = entry.get("structure", entry)
    try:
        crystal, flags = _parse_structure(structure)
    except StructureError as error:
        return Draft(id=name, reason=str(error))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        return Draft(
            id=name,
            reason=f"expected a pymatgen Structure dictionary, got a damaged one ({type(error).__name__}: "
            f"{sentence(error, 80)}); export it again",
        )
    if structure is entry:
        properties = _mapping(entry.get("properties"))
        energy, kind, why = find_label(properties, energy_key)
        return Draft(name, None, crystal, energy, kind, None, flags, None, why, hull_distance(properties))
    return label_of_entry(entry, name, crystal, flags, energy_key)


def label_of_entry(
    entry: Mapping[str, Any],
    name: str | None,
    crystal: Crystal,
    flags: tuple[str, ...],
    energy_key: str | None,
) -> Draft:
    """Label of an entry, its kind, and why one that is there was not taken."""
    parameters, data = _mapping(entry.get("parameters")), _mapping(entry.get("data"))
    run_type = run_type_of(parameters, {**entry, **data}, name)
    thermo_type = _text(entry.get("thermo_type") or data.get("thermo_type"))
    potentials = (
        parameters.get("potcar_symbols")
        or _mapping(parameters.get("pseudo_potential")).get("labels")
        or potential_titles(parameters)
    )
    flags += licence_flags(name, data.get("licence") or data.get("license") or entry.get("license"))
    flags += ytterbium_flags(
        name, list(crystal.counts), potentials if isinstance(potentials, list) else [str(potentials)]
    )
    energy, kind, why = None, None, None
    try:
        if energy_key is None and data.get(REFUSED):  # said when the entry was downloaded
            raise LabelError(str(data[REFUSED]))
        if energy_key is not None:
            require_known_functional(run_type, thermo_type)
            energy, kind, why = find_label({**data, **entry}, energy_key)
        elif entry.get("energy") is not None:
            functional = functional_of(parameters)
            energy, kind = guard_label(
                entry["energy"], run_type=run_type, thermo_type=thermo_type, functional=functional
            )
        elif any(key in entry for key in _DERIVED_KEYS):
            raise LabelError(
                "expected a ComputedStructureEntry with its total energy, got a summary document with "
                "derived energies; take structure and uncorrected energy of the same GGA_GGA+U entry"
            )
    except LabelError as error:
        why = str(error)
    run_type, hull = run_type and clean(run_type, 40), hull_distance({**entry, **data})
    return Draft(name, None, crystal, energy, kind, run_type, flags, None, why, hull)


def _is_entry(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("structure"), dict) or ("lattice" in item and "sites" in item)


def name_of(entry: Mapping[str, Any]) -> str | None:
    """Identifier of an entry, where it has one."""
    places = (entry, _mapping(entry.get("data")), _mapping(entry.get("properties")))
    values = (place.get(key) for place in places for key in _ID_KEYS)
    return next((str(value) for value in values if isinstance(value, (str, int)) and str(value)), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def _parse_structure(structure: Mapping[str, Any]) -> tuple[Crystal, tuple[str, ...]]:
    lattice, sites = structure["lattice"], structure["sites"]
    require_periodic(lattice.get("pbc", (True, True, True)), has_cell=True)
    cell = cell_of(lattice)
    symbols = [_symbol_of(site) for site in sites]
    numbers, flags = numbers_of(symbols)
    if not numbers:
        raise StructureError("expected at least one atom, got an empty structure; check the source")
    if all("abc" in site for site in sites):
        with np.errstate(all="ignore"):  # absurd numbers are refused later
            positions = np.array([site["abc"] for site in sites], dtype=np.float64) @ cell
    else:
        positions = np.array([site["xyz"] for site in sites], dtype=np.float64)
    return crystal_of(numbers, positions, cell), flags


def cell_of(lattice: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the vectors (3, 3), Å, of a pymatgen lattice given as matrix or as lengths and angles."""
    if "matrix" in lattice:
        return np.array(lattice["matrix"], dtype=np.float64).reshape(3, 3)
    from ase.geometry.cell import cellpar_to_cell

    parameters = [float(lattice[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")]
    return np.array(cellpar_to_cell(parameters), dtype=np.float64)


def _symbol_of(site: Mapping[str, Any]) -> str:
    species = site["species"]
    if len(species) != 1 or abs(float(species[0].get("occu", 1.0)) - 1.0) > _OCCUPANCY_TOLERANCE:
        raise StructureError(
            "expected every site to hold one element, got partial occupancies; "
            "order the structure first (e.g. pymatgen's OrderDisorderedStructureTransformation)"
        )
    return str(species[0]["element"])
