"""Rows of features: extraction from records, the store on disk, engines."""

from mace_bounds.features.engines import open_engine, usable_cores
from mace_bounds.features.engines.work import extract_rows
from mace_bounds.features.extraction import extract
from mace_bounds.features.manifest import Manifest, is_store
from mace_bounds.features.merging import join, merge
from mace_bounds.features.rows import AtomRows, FeatureRows, atomic_fractions, design_matrix
from mace_bounds.features.settings import ExtractSettings
from mace_bounds.features.store import FeatureStore

__all__ = [
    "AtomRows",
    "ExtractSettings",
    "FeatureRows",
    "FeatureStore",
    "Manifest",
    "atomic_fractions",
    "design_matrix",
    "extract",
    "extract_rows",
    "is_store",
    "join",
    "merge",
    "open_engine",
    "usable_cores",
]
