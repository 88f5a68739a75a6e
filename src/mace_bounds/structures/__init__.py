"""Anything that holds crystals to checked records: readers, labels, symmetry."""

from mace_bounds.structures.check import MOST_ATOMS, check, reduced_cell
from mace_bounds.structures.compositions import (
    composition_key,
    composition_keys,
    compositions_in,
    joined_keys,
    read_compositions,
)
from mace_bounds.structures.containers import Upload, unpacked
from mace_bounds.structures.crystal import Crystal, Record
from mace_bounds.structures.files import expand as source_files
from mace_bounds.structures.files import source_digest
from mace_bounds.structures.formats import cell_of, help_text, load_json
from mace_bounds.structures.label_checks import MINIMUM_ROWS, label_trouble
from mace_bounds.structures.labels import (
    REFUSED,
    TOTAL_ENERGY,
    canonical,
    functional_of,
    guard_energy_key,
    guard_label,
    licence_flags,
    parse_quantity,
    potential_titles,
    suspect_label,
    to_energy,
    ytterbium_flags,
)
from mace_bounds.structures.reader import (
    Source,
    StructureLike,
    read,
    reasons_in_short,
    require_usable,
    usable,
)
from mace_bounds.structures.references import read_element_energies
from mace_bounds.structures.surroundings import OXYGEN_BONDS, PLAIN_OXIDE, structure_flags
from mace_bounds.structures.symmetry import Symmetry, crystal_system, space_group, symmetry_of
from mace_bounds.structures.text import as_mapping, as_text, clean, one_line

__all__ = [
    "MINIMUM_ROWS",
    "MOST_ATOMS",
    "OXYGEN_BONDS",
    "PLAIN_OXIDE",
    "REFUSED",
    "TOTAL_ENERGY",
    "Crystal",
    "Record",
    "Source",
    "StructureLike",
    "Symmetry",
    "Upload",
    "as_mapping",
    "as_text",
    "canonical",
    "cell_of",
    "check",
    "clean",
    "composition_key",
    "composition_keys",
    "compositions_in",
    "crystal_system",
    "functional_of",
    "guard_energy_key",
    "guard_label",
    "help_text",
    "joined_keys",
    "label_trouble",
    "licence_flags",
    "load_json",
    "one_line",
    "parse_quantity",
    "potential_titles",
    "read",
    "read_compositions",
    "read_element_energies",
    "reasons_in_short",
    "reduced_cell",
    "require_usable",
    "source_digest",
    "source_files",
    "space_group",
    "structure_flags",
    "suspect_label",
    "symmetry_of",
    "to_energy",
    "unpacked",
    "usable",
    "ytterbium_flags",
]
