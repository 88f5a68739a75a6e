"""Frozen networks: crystals in, exact last-layer features and energies out."""

from mace_bounds.backbones.catalogue import (
    ModelInfo,
    list_models,
)

__all__ = [
    "ModelInfo",
    "list_models",
]
