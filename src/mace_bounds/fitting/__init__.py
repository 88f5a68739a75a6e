"""Features with labels to a calibrated head: fit, cross-fit, card; what is measured on labelled rows."""

from mace_bounds.fitting.cross_fit import (
    FULL,
    CrossFit,
    CrossFittedHeads,
    cross_fit_store,
    cross_fitted,
)
from mace_bounds.fitting.exposure import (
    ALL,
    NEW_TO_HEAD,
    SEEN_IN_TEXT,
    SUBSET_TITLE,
    UNSEEN,
    TrainingExposure,
)
from mace_bounds.fitting.measured import (
    CURVE_LEVELS,
    GROUPINGS,
    MIN_ROWS_PER_GROUP,
    Measured,
    coverage,
    curve,
    evaluation_subset,
    exposure_of,
    groupings,
    labelled,
    metrics,
    overall,
    sentence,
    violation_table,
)
from mace_bounds.fitting.own_labels import CalibrateConfig
from mace_bounds.fitting.predictions import (
    PublishedEnergies,
    check_predictions,
    read_predictions,
    with_predictions,
)
from mace_bounds.fitting.promise import LEFT_OUT_COLUMNS, left_out_lines, left_out_sentence, promise
from mace_bounds.fitting.recalibration import (
    CalibrateReport,
    Gain,
    calibrate,
    calibrated_before,
)
from mace_bounds.fitting.run import (
    CardNotes,
    FitReport,
    fit,
    fitted_before,
    inputs_sha256,
)
from mace_bounds.fitting.verdict import Verdict

__all__ = [
    "ALL",
    "CURVE_LEVELS",
    "FULL",
    "GROUPINGS",
    "LEFT_OUT_COLUMNS",
    "MIN_ROWS_PER_GROUP",
    "NEW_TO_HEAD",
    "SEEN_IN_TEXT",
    "SUBSET_TITLE",
    "UNSEEN",
    "CalibrateConfig",
    "CalibrateReport",
    "CardNotes",
    "CrossFit",
    "CrossFittedHeads",
    "FitReport",
    "Gain",
    "Measured",
    "PublishedEnergies",
    "TrainingExposure",
    "Verdict",
    "calibrate",
    "calibrated_before",
    "check_predictions",
    "coverage",
    "cross_fit_store",
    "cross_fitted",
    "curve",
    "evaluation_subset",
    "exposure_of",
    "fit",
    "fitted_before",
    "groupings",
    "inputs_sha256",
    "labelled",
    "left_out_lines",
    "left_out_sentence",
    "metrics",
    "overall",
    "promise",
    "read_predictions",
    "sentence",
    "violation_table",
    "with_predictions",
]
