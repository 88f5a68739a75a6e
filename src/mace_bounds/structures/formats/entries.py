"""ComputedStructureEntry and Structure dictionaries (JSON), without building pymatgen objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mace_bounds.errors import LabelError, StructureError
from mace_bounds.structures.crystal import Crystal, Record, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.labels import (
    REFUSED,
    Label,
    charge_flags,
    find_label,
    functional_of,
    guard_label,
    hull_distance,
    licence_flags,
    potential_titles,
    require_pbe,
    run_type_of,
    stated_functional,
    to_energy,
    unlike_a_crystal,
    ytterbium_flags,
)
from mace_bounds.structures.text import as_mapping, as_text, clean, one_line

_ID_KEYS = ("entry_id", "id", "material_id", "name", "task_id", "jid")
MPTRJ_ENERGY = "uncorrected_total_energy"
"""Key of the label in the public file of MPtrj."""

_DERIVED_KEYS = ("uncorrected_energy_per_atom", "energy_per_atom", "energy_above_hull", "corrected_energy")
_OCCUPANCY_TOLERANCE = 1e-6
_DERIVED_ONLY = (
    "the document holds derived energies only, as summary documents do, and not the total energy; take structure and "
    "uncorrected energy of the same GGA_GGA+U entry."
)
PARTIAL_OCCUPANCIES = (
    "some sites are only partly occupied; order the structure first (e.g. with pymatgen's "
    "OrderDisorderedStructureTransformation)."
)


def load_json(data: bytes) -> Any:
    """Return parsed JSON; NaN and Infinity pass (they become reasons later).

    Raises
    ------
    StructureError
        If the text is no JSON.
    """
    with suppress(ValueError):
        return orjson.loads(data)
    try:
        return json.loads(data)  # knows NaN and Infinity
    except (ValueError, RecursionError) as error:
        raise StructureError(
            f"the text is no JSON ({one_line(error)}); check that the file is complete."
        ) from None


def _is_table(members: Mapping[str, Any]) -> bool:
    """Whether an object is a row of plain values that gives an energy, or columns of such values by their ids."""
    plain = [value is None or isinstance(value, (str, int, float)) for value in members.values()]
    columns = [isinstance(value, dict) and not _holds_objects(value) for value in members.values()]
    return (all(plain) and "energy" not in members and len(plain) > 1) or all(columns)


def _holds_objects(value: Mapping[str, Any]) -> bool:
    return any(isinstance(cell, (dict, list)) for cell in value.values())


def parse_entry(entry: Any, energy_key: str | None = None, *, name: str = "") -> Record:
    """Return the record of one ``ComputedStructureEntry`` or ``Structure`` dictionary."""
    if not isinstance(entry, dict) or not is_entry(entry):
        members = as_mapping(entry)
        remedy = "export entries with their structures"
        if members and _is_table(members):
            what, remedy = "a table without structures", f"{remedy}; energies by id belong to --predictions"
        elif "energy" in members:
            what = "an entry without structure"
        else:
            what = "neither a ComputedStructureEntry nor a Structure"
        return Record.failed(f"the JSON holds {what}; {remedy}.", id=name_of(members))
    name = name_of(entry) or name
    structure = entry.get("structure", entry)
    try:
        crystal, flags = parse_structure(structure)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        return Record.failed(
            f"the pymatgen Structure is damaged ({type(error).__name__}: {one_line(error, 80)}); export it again.",
            id=name,
        )
    if structure is entry:
        properties = {"charge": _stated_charge(entry), **as_mapping(entry.get("properties"))}
        return record_of_values(properties, crystal, flags, energy_key, name=name)
    return record_of_entry(entry, name, crystal, flags, energy_key)


def record_of_values(
    info: Mapping[str, Any],
    crystal: Crystal,
    flags: tuple[str, ...],
    energy_key: str | None,
    *,
    name: str = "",
    source: str = "",
) -> Record:
    """Return the record of a crystal with named values beside it, among which label, run type and the like may be."""
    run_type = info.get("run_type")
    run_type = run_type if isinstance(run_type, str) else None
    label = find_label(info, energy_key, run_type=run_type, thermo_type=as_text(info.get("thermo_type")))
    flags += licence_flags(name, info.get("licence") or info.get("license")) + charge_flags(info)
    return Record(
        name,
        source,
        crystal,
        **label.fields,
        run_type=run_type,
        flags=flags,
        hull_distance_ev_per_atom=hull_distance(info),
    )


def record_of_entry(
    entry: Mapping[str, Any],
    name: str,
    crystal: Crystal,
    flags: tuple[str, ...],
    energy_key: str | None,
) -> Record:
    """Return the record of a ``ComputedStructureEntry``: its crystal with label, or why the label was not taken."""
    parameters, data = as_mapping(entry.get("parameters")), as_mapping(entry.get("data"))
    run_type = run_type_of(parameters, {**entry, **data}, name)
    potentials = (
        parameters.get("potcar_symbols")
        or as_mapping(parameters.get("pseudo_potential")).get("labels")
        or potential_titles(parameters)
    )
    flags += licence_flags(name, data.get("licence") or data.get("license") or entry.get("license"))
    flags += ytterbium_flags(
        name, list(crystal.counts), potentials if isinstance(potentials, list) else [str(potentials)]
    )
    charge = {
        **data,
        **entry,
        "charge": entry.get("charge") or _stated_charge(as_mapping(entry.get("structure"))),
    }
    label = _label_of(entry, run_type, energy_key)
    if label.energy_ev is not None and (why := unlike_a_crystal(charge)) is not None:
        label = Label(reason=why)
    return Record(
        name,
        crystal=crystal,
        **label.fields,
        run_type=run_type and clean(run_type, 40),
        flags=flags + charge_flags(charge),
        hull_distance_ev_per_atom=hull_distance({**entry, **data}),
    )


def _stated_charge(structure: Mapping[str, Any]) -> float | None:
    """Charge of a Structure dictionary; None for one that only sums its oxidation states, which may be guesses."""
    charge = to_energy(structure.get("charge"))
    if not charge:
        return None
    species = [s for site in structure.get("sites", ()) for s in as_mapping(site).get("species", ())]
    formal = sum(to_energy(as_mapping(s).get("oxidation_state")) or 0.0 for s in species)
    return None if abs(formal - charge) < 1e-3 else charge


def _label_of(entry: Mapping[str, Any], run_type: str | None, energy_key: str | None) -> Label:
    """Return an entry's label, or why one that is there was not taken."""
    parameters, data = as_mapping(entry.get("parameters")), as_mapping(entry.get("data"))
    thermo_type = as_text(entry.get("thermo_type") or data.get("thermo_type"))
    if energy_key is not None:
        named = {**parameters, **data, **entry}
        return find_label(named, energy_key, run_type=run_type, thermo_type=thermo_type)
    if data.get(REFUSED):  # the guard refused it when the entry was downloaded
        return Label(reason=str(data[REFUSED]))
    if entry.get("energy") is None and entry.get(MPTRJ_ENERGY) is not None:
        entry = {**entry, "energy": entry[MPTRJ_ENERGY]}
    if entry.get("energy") is None:
        derived = any(key in entry for key in _DERIVED_KEYS)
        return Label(reason=_DERIVED_ONLY if derived else None)
    try:
        require_pbe(stated_functional(entry, data, parameters))
        energy, kind = guard_label(
            entry["energy"], run_type=run_type, thermo_type=thermo_type, functional=functional_of(parameters)
        )
    except LabelError as error:
        return Label(reason=str(error))
    return Label(energy, kind)


def is_entry(item: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary is an entry with its structure, or a structure."""
    return isinstance(item.get("structure"), dict) or ("lattice" in item and "sites" in item)


def name_of(entry: Mapping[str, Any]) -> str:
    """Return the identifier of an entry; empty where it has none."""
    places = (entry, as_mapping(entry.get("data")), as_mapping(entry.get("properties")))
    values = (place.get(key) for place in places for key in _ID_KEYS)
    return next((str(value) for value in values if isinstance(value, (str, int)) and str(value)), "")


def parse_structure(structure: Mapping[str, Any]) -> tuple[Crystal, tuple[str, ...]]:
    """Return crystal and flags of a pymatgen ``Structure`` dictionary."""
    lattice, sites = structure["lattice"], structure["sites"]
    require_periodic(lattice.get("pbc", (True, True, True)), has_cell=True)
    cell = cell_of(lattice)
    symbols = [_symbol_of(site) for site in sites]
    numbers, flags = numbers_of(symbols)
    if not numbers:
        raise StructureError("the structure is empty; check the source.")
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
        raise StructureError(PARTIAL_OCCUPANCIES)
    return str(species[0]["element"])
