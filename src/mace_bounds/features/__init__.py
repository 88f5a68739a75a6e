"""Rows of features: extraction from records, the store on disk, engines."""

from mace_bounds.features.engines import usable_cores
from mace_bounds.features.engines.work import block_rows, extract_rows, failed_rows
from mace_bounds.features.extraction import extract
from mace_bounds.features.label_guard import (
    LABEL_COLUMNS,
    Refused,
    checked_labels,
    judged_labels,
    label_sentences,
    label_summary,
    refused_labels,
    refused_rows,
    require_labels,
    same_quantity,
    without_refused,
)
from mace_bounds.features.manifest import Manifest, is_store
from mace_bounds.features.merging import join, merge, store_with_energies, training_keys
from mace_bounds.features.rows import AtomRows, FeatureRows, atomic_fractions, design_matrix, element_counts
from mace_bounds.features.settings import READING_FIELDS, STORING_FIELDS, ExtractSettings, parse_memory
from mace_bounds.features.store import FeatureStore

__all__ = [
    "LABEL_COLUMNS",
    "READING_FIELDS",
    "STORING_FIELDS",
    "AtomRows",
    "ExtractSettings",
    "FeatureRows",
    "FeatureStore",
    "Manifest",
    "Refused",
    "atomic_fractions",
    "block_rows",
    "checked_labels",
    "design_matrix",
    "element_counts",
    "extract",
    "extract_rows",
    "failed_rows",
    "is_store",
    "join",
    "judged_labels",
    "label_sentences",
    "label_summary",
    "merge",
    "parse_memory",
    "refused_labels",
    "refused_rows",
    "require_labels",
    "same_quantity",
    "store_with_energies",
    "training_keys",
    "usable_cores",
    "without_refused",
]
