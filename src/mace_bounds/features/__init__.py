"""The frozen model: its exact last-layer features, and the store that keeps them."""

from mace_bounds.features._catalogue import ModelInfo, list_models
from mace_bounds.features._columns import atomic_fractions, design_matrix
from mace_bounds.features._embedded import training_compositions, weights_digest
from mace_bounds.features._extract import extract
from mace_bounds.features._feature_rows import AtomRows, FeatureRows
from mace_bounds.features._join import join
from mace_bounds.features._manifest import Manifest, is_store
from mace_bounds.features._merge import merge
from mace_bounds.features._model import DEFAULT_MODEL, FeatureBlock, FrozenModel, load_model
from mace_bounds.features._rows import extract_rows
from mace_bounds.features._store import FeatureStore
from mace_bounds.features._weights import Weights, fetch_weights, find_weights

__all__ = [
    "DEFAULT_MODEL",
    "AtomRows",
    "FeatureBlock",
    "FeatureRows",
    "FeatureStore",
    "FrozenModel",
    "Manifest",
    "ModelInfo",
    "Weights",
    "atomic_fractions",
    "design_matrix",
    "extract",
    "extract_rows",
    "fetch_weights",
    "find_weights",
    "is_store",
    "join",
    "list_models",
    "load_model",
    "merge",
    "training_compositions",
    "weights_digest",
]
