"""Heads of one chemistry: potentials with error bars, from energies, forces and stress."""

from mace_bounds.fitting.material.card import (
    families,
    families_left_out,
)
from mace_bounds.fitting.material.config import MaterialConfig
from mace_bounds.fitting.material.frames import Frame, frames_of, read_frames
from mace_bounds.fitting.material.run import MaterialReport, fit_material

__all__ = [
    "Frame",
    "MaterialConfig",
    "MaterialReport",
    "families",
    "families_left_out",
    "fit_material",
    "frames_of",
    "read_frames",
]
