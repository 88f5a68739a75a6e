"""A source to a report: bounds for every structure, measured coverage, atlas, suspects."""

from mace_bounds.auditing.config import AuditConfig
from mace_bounds.auditing.drawing import plot, plot_calibration
from mace_bounds.auditing.report import number, percent, template
from mace_bounds.auditing.run import AuditResult, audit
from mace_bounds.auditing.suspects import per_atom, suspect_table

__all__ = [
    "AuditConfig",
    "AuditResult",
    "audit",
    "number",
    "per_atom",
    "percent",
    "plot",
    "plot_calibration",
    "suspect_table",
    "template",
]
