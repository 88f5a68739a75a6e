"""Bulk runs: bounds for every structure of a source, measured coverage, report.

The room is also the verb: ``mace_bounds.audit(source, out)`` is :func:`mace_bounds.audit.audit`.
"""

import sys
from types import ModuleType

from mace_bounds.audit._compare import CompareReport, compare
from mace_bounds.audit._compare_folder import rows_of
from mace_bounds.audit._fit import FitReport, fit
from mace_bounds.audit._folder import records
from mace_bounds.audit._library import HeadCard, find_head, list_heads, read_card, user_heads
from mace_bounds.audit._plot import plot
from mace_bounds.audit._run import AuditResult, audit
from mace_bounds.audit._score import concat, open_pair, score, score_batches
from mace_bounds.audit._table import bounds_table
from mace_bounds.audit._versions import now, versions

__all__ = [
    "AuditResult",
    "CompareReport",
    "FitReport",
    "HeadCard",
    "audit",
    "bounds_table",
    "compare",
    "concat",
    "find_head",
    "fit",
    "list_heads",
    "now",
    "open_pair",
    "plot",
    "read_card",
    "records",
    "rows_of",
    "score",
    "score_batches",
    "user_heads",
    "versions",
]


class _Verb(ModuleType):
    """A package and a function of one name: whoever asks for ``mace_bounds.audit`` may call it."""

    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Verb
