"""The shapes of JSON in which databases hand out structures, read one structure at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from io import BufferedReader
from typing import Any

from mace_bounds.errors import StructureError
from mace_bounds.structures.crystal import Record, crystal_of, numbers_of, require_periodic
from mace_bounds.structures.formats.ase_rows import is_ase_row, record_of_row
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.entries import (
    PARTIAL_OCCUPANCIES,
    is_entry,
    load_json,
    name_of,
    parse_entry,
    record_of_values,
)
from mace_bounds.structures.formats.json_stream import JsonReader
from mace_bounds.structures.text import as_mapping, clean, one_line

_LIST_KEYS = ("entries", "data", "structures")
_ENTRY_KEYS = ("computed_structure_entry", "entry")
_STRUCTURE_KEYS = ("initial_structure", "relaxed_structure", "final_structure", "opt_structure")
_COLUMN_KEYS = (*_ENTRY_KEYS, *_STRUCTURE_KEYS, "structure")
_FIELDS = {
    "structure", "lattice", "output", "input", "atoms", "attributes", "data", "parameters", "meta", "links",
    "composition", *_COLUMN_KEYS,
}  # fmt: skip
"""Members of one document; under any other key an object that holds a structure is one of many."""
_SEVERAL_LINES = re.compile(r"\s*\{[^\n]*\}\s*\n\s*\{")
_EMPTY = "the list of entries is empty; check the source."
_SCALARS = (
    "the JSON is a list of values, neither a ComputedStructureEntry nor a Structure; export entries with their "
    "structures."
)
_MAX_DEPTH = 4
_MAX_FIELDS = 10_000
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)

TASK_LABEL = (
    "the energy of a task document is that of one calculation, of whatever kind; take structure and uncorrected energy "
    "of the GGA_GGA+U entry (MPRester.get_entries), or name the key (--energy-key energy)."
)
_FOREIGN = (
    (
        {"kinds", "sites", "cell"},
        "a StructureData of AiiDA, which is not read; export it (`verdi data core.structure export --format cif PK`)",
    ),
    (
        {"unit_cell", "sites"},
        "an entry of OQMD's own interface, which is not read; fetch it through OPTIMADE",
    ),
    (
        {"positions_fractional"},
        "an entry of AFLOW's own interface, which is not read; fetch its CONTCAR.relax.vasp, or through OPTIMADE",
    ),
    (
        {"positions_cartesian"},
        "an entry of AFLOW's own interface, which is not read; fetch its CONTCAR.relax.vasp",
    ),
    ({"run", "metadata"}, "an archive of NOMAD, which is not read; download the raw files (vasprun.xml)"),
)
"""Keys of JSON of others, and what it is."""

JARVIS_LABEL = (
    "JARVIS computes energies with OptB88vdW and others, not with PBE; add PBE energies of your own."
)


def parse_json(stream: BufferedReader, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per structure of a JSON file, read value by value.

    Parameters
    ----------
    stream : binary stream
        A document, a list of documents, ``{"entries": [...]}``, a mapping from ids to documents (of two floors in
        MPtrj), or a table by columns (pandas); several such values may follow each other. A document is an entry or
        a structure of pymatgen, or one of the Materials Project, WBM, MPtrj, Alexandria, OPTIMADE, JARVIS or ase.
    options : ReadOptions
        Key of the label; None takes the document's uncorrected energy.
    """
    reader = JsonReader(stream, options.max_value)
    while opening := reader.peek():
        if opening == "[":
            empty = True
            for _ in reader.items():
                item = reader.value()
                if empty and not isinstance(item, (dict, list)):
                    raise StructureError(_SCALARS)
                empty = False
                yield from records_of(item, options.energy_key)
            if empty:
                yield Record.failed(_EMPTY)
        elif opening == "{":
            yield from _records_of_members(reader, options)
        else:
            yield from records_of(reader.value(), options.energy_key)


def _records_of_members(reader: JsonReader, options: ReadOptions) -> Iterator[Record]:
    """Yield the records of one object: it is read as a whole only where it is one document."""
    fields: dict[str, Any] = {}
    streamed, start = False, reader.position
    for key in reader.members():
        opening = reader.peek()
        if opening == "[" and key in _LIST_KEYS and not is_entry(fields):
            before, streamed = streamed, True
            empty = True
            for _ in reader.items():
                empty = False
                yield from records_of(reader.value(), options.energy_key)
            if empty and not before:
                yield Record.failed(_EMPTY)
            continue
        if opening == "{" and key in _COLUMN_KEYS:
            column = _column(reader, fields, options.energy_key)
            first = next(column)
            if isinstance(first, Record):
                streamed = True
                yield first
                yield from (record for record in column if isinstance(record, Record))
            else:
                fields[key] = first
            continue
        value = reader.value()
        if isinstance(value, dict) and key not in _FIELDS and (streamed or _holds_structures(value)):
            streamed = True
            yield from records_of(value, options.energy_key, name=key)
        else:
            fields[key] = value
        if not streamed and (reader.position - start > options.max_value or len(fields) > _MAX_FIELDS):
            raise StructureError(
                f"the JSON holds no structure in its first {reader.position:,} characters; check the source."
            )
    if not streamed:
        yield from records_of(fields, options.energy_key)


def _column(reader: JsonReader, fields: Mapping[str, Any], energy_key: str | None) -> Iterator[Any]:
    """Yield the records of a column of a table; or, if it is no column, the one object that it is."""
    plain: dict[str, Any] = {}
    is_column = False
    names = _names_of_rows(fields)
    for key in reader.members():
        value = reader.value()
        is_column = is_column or (not plain and key not in _FIELDS and _holds_structures(value))
        if is_column:
            yield from records_of(value, energy_key, name=str(names.get(key, key)), outer=True)
        else:
            plain[key] = value
    if not is_column:
        yield plain


def _names_of_rows(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ids by row of a table by columns; empty if there are none."""
    return next((as_mapping(table.get(key)) for key in ("material_id", "id", "mp_id") if key in table), {})


def _holds_structures(value: Any, depth: int = 0) -> bool:
    """Tell whether a value is a document, or an object of documents; looks at the first of its members."""
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return False
    if is_entry(value) or is_ase_row(value) or _reader_of(value) is not None:
        return True
    return _holds_structures(next(iter(value.values()), None), depth + 1)


def records_of(
    data: Any, energy_key: str | None = None, *, name: str = "", outer: bool = False, depth: int = 0
) -> Iterator[Record]:
    """Yield the records of parsed JSON in any of the shapes of :func:`parse_json`.

    Parameters
    ----------
    data : object
        The value.
    energy_key : str, optional
        Key of the label.
    name : str
        Id for a document that has none, or, if ``outer``, in place of its own.
    """
    if depth > _MAX_DEPTH:
        yield Record.failed("the JSON is nested too deeply; export entries with their structures.", id=name)
        return
    if isinstance(data, list):
        inner = [item for item in data if item is None or isinstance(item, (dict, list))]
        for item in inner or data:  # a row of a table has plain values too
            yield from records_of(item, energy_key, depth=depth + 1)
        if not data:
            yield Record.failed(_EMPTY)
        return
    if isinstance(data, dict) and not is_entry(data):
        reader = _reader_of(data)
        if reader is not None or is_ase_row(data):
            record = _safely(reader or record_of_row, data, energy_key, name)
            yield replace(record, id=name) if outer and name else record
            return
        for key in _LIST_KEYS:
            if isinstance(data.get(key), list) or _holds_structures(data.get(key)):
                yield from records_of(data[key], energy_key, depth=depth + 1)
                return
        column = next((key for key in _COLUMN_KEYS if _holds_structures(data.get(key))), None)
        if column is not None or _holds_structures(data):
            names = _names_of_rows(data) if column else {}
            for key, value in (data[column] if column else data).items():
                if isinstance(value, dict):
                    shown = str(names.get(key, key))
                    yield from records_of(
                        value, energy_key, name=shown, outer=column is not None, depth=depth + 1
                    )
            return
        if (answer := _answer_of_server(data)) is not None:
            yield Record.failed(
                f"the file is the answer of a server ({clean(answer, 80)!r}) and holds no structures; fetch it again."
            )
            return
        if (foreign := next((text for keys, text in _FOREIGN if keys <= data.keys()), None)) is not None:
            yield Record.failed(f"the JSON is {foreign}.", id=name_of(data) or name)
            return
        if isinstance(data.get("sites"), list):
            yield Record.failed(
                "the structure is a molecule without a cell; put it into a cell with vacuum.", id=name
            )
            return
    record = parse_entry(data, energy_key, name=name)
    yield replace(record, id=name) if outer and name else record


def _safely(
    reader: Callable[[Mapping[str, Any], str | None, str], Record],
    document: Mapping[str, Any],
    energy_key: str | None,
    name: str,
) -> Record:
    name = name_of(document) or ("" if reader is record_of_row else name)
    try:
        return reader(document, energy_key, name)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    except _DAMAGE as error:
        return Record.failed(
            f"the document is damaged ({type(error).__name__}: {one_line(error, 80)}); export it again.",
            id=name,
        )


def _reader_of(document: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str | None, str], Record] | None:
    """Return the reader of a document that is not itself an entry or a structure, else None."""
    if any(is_entry(as_mapping(document.get(key))) for key in (*_ENTRY_KEYS, *_STRUCTURE_KEYS)):
        return _wrapped
    if is_entry(as_mapping(document.get("output"))):
        return _task
    if "lattice_vectors" in as_mapping(document.get("attributes")):
        return _optimade
    if "lattice_mat" in as_mapping(document.get("atoms")):
        return _jarvis
    if "lattice_mat" in document and "elements" in document:
        return lambda atoms, key, name: _jarvis({"atoms": atoms}, key, name)
    return None


def _wrapped(document: Mapping[str, Any], energy_key: str | None, name: str) -> Record:
    """WBM and the like: an entry or a structure under a key of its own; the outer id counts."""
    key = next(key for key in (*_ENTRY_KEYS, *_STRUCTURE_KEYS) if is_entry(as_mapping(document.get(key))))
    record = parse_entry(document[key], energy_key, name=name)
    return replace(record, id=name or record.id)


def _task(document: Mapping[str, Any], energy_key: str | None, name: str) -> Record:
    """A task document of the Materials Project."""
    output = document["output"]
    if energy_key is not None:
        run_type = document.get("run_type")
        fields = {**document, **output, "parameters": {"run_type": run_type}}
        return parse_entry(fields, energy_key, name=name)
    record = parse_entry({"structure": output["structure"]}, name=name)
    offered = output.get("energy") is not None
    return replace(record, label_reason=TASK_LABEL if offered else None)


def _optimade(document: Mapping[str, Any], energy_key: str | None, name: str) -> Record:
    """A structure of OPTIMADE, specification 1.1, entry list of structures."""
    fields = document["attributes"]
    species = {kind["name"]: kind for kind in fields.get("species") or []}
    symbols = []
    for site in fields["species_at_sites"]:
        kind = species.get(site, {"chemical_symbols": [site], "concentration": [1.0]})
        if len(kind["chemical_symbols"]) != 1 or abs(float(kind["concentration"][0]) - 1.0) > 1e-6:
            raise StructureError(PARTIAL_OCCUPANCIES)
        symbols.append(str(kind["chemical_symbols"][0]))
    require_periodic(fields.get("dimension_types") or [1, 1, 1], has_cell=bool(fields["lattice_vectors"]))
    numbers, flags = numbers_of(symbols)
    crystal = crystal_of(numbers, fields["cartesian_site_positions"], fields["lattice_vectors"])
    return record_of_values(fields, crystal, flags, energy_key, name=name)


def _jarvis(document: Mapping[str, Any], energy_key: str | None, name: str) -> Record:
    """A document of JARVIS (jarvis-tools: ``Atoms.to_dict``)."""
    atoms = document["atoms"]
    numbers, flags = numbers_of([str(symbol) for symbol in atoms["elements"]])
    crystal = crystal_of(numbers, atoms["coords"], atoms["lattice_mat"])
    if not atoms.get("cartesian"):
        crystal = crystal_of(numbers, crystal.positions @ crystal.cell, crystal.cell)
    if energy_key is not None:
        return record_of_values(document, crystal, flags, energy_key, name=name)
    offered = any("energy" in key for key in document)
    return Record(name, crystal=crystal, flags=flags, label_reason=JARVIS_LABEL if offered else None)


def _answer_of_server(data: Mapping[str, Any]) -> str | None:
    """Return what a server said in place of data, else None."""
    for key in ("detail", "error", "errors", "message", "Error"):
        if data.get(key):
            value = data[key][0] if isinstance(data[key], list) else data[key]
            return str(as_mapping(value).get("detail") or as_mapping(value).get("msg") or value)
    return None


def parse_lines(lines: Iterable[str], options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield the records of JSON lines, one document a line; a damaged line is a record with a reason."""
    for line in lines:
        if not line.strip():
            continue
        try:
            document = load_json(line.encode())
        except StructureError as error:
            yield Record.failed(str(error))
        else:
            yield from records_of(document, options.energy_key)


def _looks_like_lines(data: bytes) -> bool:
    return _SEVERAL_LINES.match(beginning(data)) is not None


def _looks_like_json(data: bytes) -> bool:
    return beginning(data).lstrip()[:1] in ("[", "{") and not _looks_like_lines(data)


_LABELS = "uncorrected energy of entries (`energy`; MPtrj: `uncorrected_total_energy`)"

JSON = Format(
    name="JSON",
    suffixes=(".json",),
    sniff=_looks_like_json,
    parse=parse_json,
    takes="stream",
    help="JSON entries",
    labels=_LABELS,
)
JSON_LINES = Format(
    name="JSON lines",
    suffixes=(".jsonl", ".ndjson"),
    sniff=_looks_like_lines,
    parse=parse_lines,
    takes="lines",
    labels=_LABELS,
)
