"""Bulk runs: bounds for every structure of a source, measured coverage, report."""

from mace_bounds.audit._table import bounds_table

__all__ = ["bounds_table"]
