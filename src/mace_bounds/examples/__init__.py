"""Something to start with: crystals from textbooks, and real all-electron DFT energies of strained elements."""

from mace_bounds.examples.crystals import example_files, example_store
from mace_bounds.examples.strain import (
    LABEL,
    SCALES,
    EquationOfState,
    crystal_at,
    equation_of_state,
    strain_records,
    write_extxyz,
)

__all__ = [
    "LABEL",
    "SCALES",
    "EquationOfState",
    "crystal_at",
    "equation_of_state",
    "example_files",
    "example_store",
    "strain_records",
    "write_extxyz",
]
