"""A source to a report: bounds for every structure, measured coverage, atlas, suspects."""

from mace_bounds.auditing.config import AuditConfig
from mace_bounds.auditing.drawing import (
    plot,
)
from mace_bounds.auditing.folder import (
    records,
    write_csv,
    write_json,
)
from mace_bounds.auditing.report import (
    number,
    percent,
    template,
)
from mace_bounds.auditing.run import (
    AuditResult,
    audit,
)

__all__ = [
    "AuditConfig",
    "AuditResult",
    "audit",
    "number",
    "percent",
    "plot",
    "records",
    "template",
    "write_csv",
    "write_json",
]
