"""Python objects of other libraries as records, known by what they offer (nothing heavy is imported); XSF, by ase."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mace_bounds.errors import StructureError
from mace_bounds.structures.crystal import Crystal, Record, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.documents import records_of
from mace_bounds.structures.formats.entries import (
    PARTIAL_OCCUPANCIES,
    name_of,
    record_of_entry,
    record_of_values,
)
from mace_bounds.structures.text import one_line

CONVERT = "convert it to a path, Structure, Atoms or ComputedStructureEntry"


def is_object(item: object) -> bool:
    """Tell whether an item is one structure (or a dictionary of them) rather than a collection or a path."""
    return isinstance(item, (Crystal, Record, dict)) or any(
        test(item) for test in (_is_atoms, _is_entry, _is_structure, _is_molecule)
    )


def records_of_object(item: Any, energy_key: str | None = None) -> Iterator[Record]:
    """Yield the records of one Python object."""
    if isinstance(item, Record):
        yield item
    elif isinstance(item, Crystal):
        yield Record(crystal=item)
    elif isinstance(item, dict):
        yield from records_of(item, energy_key)
    elif _is_entry(item):
        yield _record_of_entry(item, energy_key)
    elif _is_structure(item):
        yield record_of_structure(item, energy_key=energy_key)
    elif _is_atoms(item):
        yield _record_of_atoms(item, energy_key)
    elif _is_molecule(item):
        yield Record.failed("the structure is a molecule without a cell; put it into a cell with vacuum.")
    else:
        yield Record.failed(f"an object of type {type(item).__name__} is no structure; {CONVERT}.")


def record_of_structure(structure: Any, *, name: str = "", energy_key: str | None = None) -> Record:
    """Return the record of a :class:`pymatgen.core.Structure`; a label may be in its ``properties``."""
    properties = getattr(structure, "properties", None) or {}
    name = name or name_of(properties)
    try:
        crystal, flags = _crystal_of_structure(structure)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    properties = {"charge": getattr(structure, "_charge", None), **properties}
    return record_of_values(properties, crystal, flags, energy_key, name=name)


def _crystal_of_structure(structure: Any) -> tuple[Crystal, tuple[str, ...]]:
    require_periodic(structure.lattice.pbc, has_cell=True)
    if not structure.is_ordered:
        raise StructureError(PARTIAL_OCCUPANCIES)
    numbers, flags = numbers_of([_symbol_of(site.specie) for site in structure])
    return crystal_of(numbers, structure.cart_coords, structure.lattice.matrix), flags


def _symbol_of(specie: Any) -> str:
    """Return the symbol; the symbol of pymatgen's deuterium is "H", only its name says D."""
    name = getattr(getattr(specie, "element", specie), "name", None)
    return name if name in ("D", "T") else str(specie.symbol)


def _record_of_entry(entry: Any, energy_key: str | None) -> Record:
    name = "" if entry.entry_id is None else str(entry.entry_id)
    if getattr(entry, "structure", None) is None:
        return Record.failed("the entry is without structure; fetch entries with their structures.", id=name)
    try:
        crystal, flags = _crystal_of_structure(entry.structure)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    fields = {
        "entry_id": name,
        "energy": entry.uncorrected_energy,
        "parameters": entry.parameters,
        "data": entry.data,
        "charge": getattr(entry.structure, "_charge", None),
    }
    return record_of_entry(fields, name, crystal, flags, energy_key)


def _record_of_atoms(atoms: Any, energy_key: str | None) -> Record:
    results = getattr(atoms.calc, "results", {})
    # a calculator that computes may be the model itself; its energy is a label only where the user names it
    live = atoms.calc is not None and not any("SinglePoint" in c.__name__ for c in type(atoms.calc).__mro__)
    named = energy_key is not None and energy_key in results
    info = {**({} if live and not named else results), **atoms.info}
    name = name_of(atoms.info)
    try:
        require_periodic(atoms.pbc, has_cell=bool(atoms.cell.rank))
        crystal = crystal_of(atoms.numbers, atoms.positions, atoms.cell.array)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    source = str(atoms.info.get("source") or "")
    record = record_of_values(info, crystal, (), energy_key, name=name, source=source)
    if record.energy_ev is None and live and not named and "energy" in results:
        calculator = type(atoms.calc).__name__
        reason = (
            f"the energy of the attached calculator {calculator} is no stored DFT energy; if it is one, name it "
            "(energy_key='energy'), else keep labels in atoms.info."
        )
        record = replace(record, label_reason=reason)
    return record


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


_LOOK = re.compile(r"\s*(#[^\n]*\s+)*(ANIMSTEPS|CRYSTAL|SLAB|POLYMER|ATOMS|MOLECULE|PRIMVEC)\b")


def parse_xsf(text: str, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per image; grids of data are left out."""
    from ase.io.xsf import iread_xsf

    images = iread_xsf(iter(text.splitlines()))
    while True:
        try:
            atoms = next(images, None)
        except Exception as error:
            raise StructureError(
                f"the XSF is damaged or not of a kind that ase reads ({type(error).__name__}: {one_line(error, 50)}); "
                "correct it, or write extxyz."
            ) from None
        if atoms is None:
            return
        yield from records_of_object(atoms, options.energy_key)


XSF = Format(
    name="XSF",
    suffixes=(".xsf", ".axsf"),
    sniff=lambda data: _LOOK.match(beginning(data)) is not None,
    parse=parse_xsf,
    max_bytes=100_000_000,
)
