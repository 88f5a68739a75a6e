"""The frozen model: its exact last-layer features, and the store that keeps them."""

from mace_bounds.features._columns import atomic_fractions, design_matrix
from mace_bounds.features._extract import extract, extract_rows
from mace_bounds.features._model import DEFAULT_MODEL, FeatureBlock, FrozenModel, load_model
from mace_bounds.features._store import FeatureRows, FeatureStore, Manifest, is_store

__all__ = [
    "DEFAULT_MODEL",
    "FeatureBlock",
    "FeatureRows",
    "FeatureStore",
    "FrozenModel",
    "Manifest",
    "atomic_fractions",
    "design_matrix",
    "extract",
    "extract_rows",
    "is_store",
    "load_model",
]
