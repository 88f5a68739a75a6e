"""Reading structures: files and objects in, records out."""

from mace_bounds.structures._check import check, reduced_cell, structure_flags
from mace_bounds.structures._files import source_digest
from mace_bounds.structures._labels import (
    DEFAULT_ENERGY_KEYS,
    guard_energy_key,
    guard_label,
    suspect_label,
)
from mace_bounds.structures._reader import read
from mace_bounds.structures._record import Crystal, Record
from mace_bounds.structures._symmetry import crystal_system, space_group

__all__ = [
    "DEFAULT_ENERGY_KEYS",
    "Crystal",
    "Record",
    "check",
    "crystal_system",
    "guard_energy_key",
    "guard_label",
    "read",
    "reduced_cell",
    "source_digest",
    "space_group",
    "structure_flags",
    "suspect_label",
]
