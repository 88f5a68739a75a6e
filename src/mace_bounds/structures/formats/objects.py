"""Python objects of other libraries as drafts; known by what they offer: nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds.errors import LabelError, StructureError
from mace_bounds.structures.draft import Draft, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.formats.entries import label_of_entry, name_of, parse_entries
from mace_bounds.structures.labels import find_label, hull_distance, licence_flags, require_known_functional
from mace_bounds.structures.record import Crystal, Record

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_object(item: object) -> bool:
    """Tell whether an item is one structure (or a dictionary of them) rather than a collection or a path."""
    return isinstance(item, (Crystal, Record, dict)) or any(
        test(item) for test in (_is_atoms, _is_entry, _is_structure, _is_molecule)
    )


def drafts_of_object(item: Any, *, energy_key: str | None = None) -> Iterator[Draft]:
    """Yield the drafts of one Python object."""
    if isinstance(item, Crystal):
        yield Draft(crystal=item)
    elif isinstance(item, dict):
        yield from parse_entries(item, energy_key=energy_key)
    elif _is_entry(item):
        yield _draft_of_entry(item, energy_key)
    elif _is_structure(item):
        yield draft_of_structure(item, energy_key=energy_key)
    elif _is_atoms(item):
        yield _draft_of_atoms(item, energy_key)
    elif _is_molecule(item):
        yield Draft(reason="expected a periodic crystal, got a molecule; put it into a cell with vacuum")
    else:
        yield Draft(
            reason=f"expected a path, Structure, Atoms or ComputedStructureEntry, got {type(item).__name__}; "
            "convert it first"
        )


def draft_of_structure(structure: Any, *, name: str | None = None, energy_key: str | None = None) -> Draft:
    """Return the draft of a :class:`pymatgen.core.Structure`; a label may be in its ``properties``."""
    properties = getattr(structure, "properties", None) or {}
    name = name or name_of(properties)
    try:
        crystal, flags = _crystal_of_structure(structure)
    except StructureError as error:
        return Draft(id=name, reason=str(error))
    energy, kind, why = find_label(properties, energy_key)
    return Draft(name, None, crystal, energy, kind, None, flags, None, why, hull_distance(properties))


def _crystal_of_structure(structure: Any) -> tuple[Crystal, tuple[str, ...]]:
    require_periodic(structure.lattice.pbc, has_cell=True)
    if not structure.is_ordered:
        raise StructureError(
            "expected every site to hold one element, got partial occupancies; "
            "order the structure first (e.g. pymatgen's OrderDisorderedStructureTransformation)"
        )
    numbers, flags = numbers_of([_symbol_of(site.specie) for site in structure])
    return crystal_of(numbers, structure.cart_coords, structure.lattice.matrix), flags


def _symbol_of(specie: Any) -> str:
    """Return the symbol; pymatgen's deuterium says "H" there and tells itself by its name only."""
    name = getattr(getattr(specie, "element", specie), "name", None)
    return name if name in ("D", "T") else str(specie.symbol)


def _draft_of_entry(entry: Any, energy_key: str | None) -> Draft:
    name = None if entry.entry_id is None else str(entry.entry_id)
    if getattr(entry, "structure", None) is None:
        return Draft(
            id=name,
            reason="expected a ComputedStructureEntry, got an entry without structure; "
            "fetch entries with structures",
        )
    try:
        crystal, flags = _crystal_of_structure(entry.structure)
    except StructureError as error:
        return Draft(id=name, reason=str(error))
    fields = {
        "entry_id": name,
        "energy": entry.uncorrected_energy,
        "parameters": entry.parameters,
        "data": entry.data,
    }
    return label_of_entry(fields, name, crystal, flags, energy_key)


def _draft_of_atoms(atoms: Any, energy_key: str | None) -> Draft:
    info = {**getattr(atoms.calc, "results", {}), **atoms.info}
    name = name_of(atoms.info)
    try:
        require_periodic(atoms.pbc, has_cell=bool(atoms.cell.rank))
        crystal = crystal_of(atoms.numbers, atoms.positions, atoms.cell.array)
    except StructureError as error:
        return Draft(id=name, reason=str(error))
    run_type = atoms.info.get("run_type")
    flags = licence_flags(name, atoms.info.get("licence") or atoms.info.get("license"))
    energy, kind, why = find_label(info, energy_key)
    if energy is not None:
        try:
            require_known_functional(run_type, atoms.info.get("thermo_type"))
        except LabelError as error:
            energy, kind, why = None, None, str(error)
    source, hull = atoms.info.get("source"), hull_distance(atoms.info)
    return Draft(name, source, crystal, energy, kind, run_type, flags, None, why, hull)


def _is_atoms(item: object) -> bool:
    return all(hasattr(item, name) for name in ("numbers", "positions", "cell", "pbc", "info"))


def _is_entry(item: object) -> bool:
    return all(hasattr(item, name) for name in ("entry_id", "uncorrected_energy", "parameters"))


def _is_structure(item: object) -> bool:
    return all(hasattr(item, name) for name in ("lattice", "is_ordered", "cart_coords"))


def _is_molecule(item: object) -> bool:
    return all(
        hasattr(item, name) for name in ("is_ordered", "cart_coords", "species")
    ) and not _is_structure(item)
