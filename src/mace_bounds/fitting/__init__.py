"""Features with labels to a calibrated head: fit, cross-fit, card."""

from mace_bounds.fitting.cross_fitting import (
    FULL,
)
from mace_bounds.fitting.measured import (
    ALL,
    NEW_TO_HEAD,
    SUSPECT,
    UNSEEN,
    Measured,
    coverage,
    curve,
    headline,
    labelled,
    metrics,
    overall,
    sentence,
    training_known,
    violation_table,
)
from mace_bounds.fitting.own_heads import (
    fit_own_head,
    published_energies,
)
from mace_bounds.fitting.run import (
    CardNotes,
    FitReport,
    fit,
)

__all__ = [
    "ALL",
    "FULL",
    "NEW_TO_HEAD",
    "SUSPECT",
    "UNSEEN",
    "CardNotes",
    "FitReport",
    "Measured",
    "coverage",
    "curve",
    "fit",
    "fit_own_head",
    "headline",
    "labelled",
    "metrics",
    "overall",
    "published_energies",
    "sentence",
    "training_known",
    "violation_table",
]
