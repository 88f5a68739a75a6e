"""Heads of one chemistry: potentials with error bars, from energies, forces and stress."""

from mace_bounds.fitting.material.card import (
    FAMILY_COLUMNS,
    FAMILY_LEFT_OUT_COLUMNS,
    families_left_out,
    family_lines,
)
from mace_bounds.fitting.material.config import MaterialConfig
from mace_bounds.fitting.material.frames import Frame, frames_of, read_frames
from mace_bounds.fitting.material.run import MaterialReport, fit_material

__all__ = [
    "FAMILY_COLUMNS",
    "FAMILY_LEFT_OUT_COLUMNS",
    "Frame",
    "MaterialConfig",
    "MaterialReport",
    "families_left_out",
    "family_lines",
    "fit_material",
    "frames_of",
    "read_frames",
]
