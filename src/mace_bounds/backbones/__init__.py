"""Frozen networks: crystals in, exact last-layer features and energies out."""

from mace_bounds.backbones.base import Backbone, FeatureBlock, FeatureKind
from mace_bounds.backbones.catalogue import (
    ModelInfo,
    list_models,
)

__all__ = [
    "Backbone",
    "FeatureBlock",
    "FeatureKind",
    "ModelInfo",
    "list_models",
]
