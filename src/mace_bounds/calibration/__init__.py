"""Residuals to intervals with stated coverage: centre, scale, conformal layer, novelty."""

from mace_bounds.calibration.calibrated import CalibratedHead, load_head
from mace_bounds.calibration.centre import Centre, select_centre
from mace_bounds.calibration.config import FitConfig
from mace_bounds.calibration.conformal import (
    LeftOutScores,
    conformal_quantile,
    conformal_scores,
    cv_plus_bounds,
    cv_plus_level,
)
from mace_bounds.calibration.cross_fitting import cross_fit, residual_ev_per_atom, row_weights
from mace_bounds.calibration.fit import (
    SEEN_IN_TRAINING,
    FitResult,
    fingerprint,
    fit_head,
    kept_rows,
    outer_folds,
    split_rows,
    usable_rows,
)
from mace_bounds.calibration.inputs import (
    DesignRows,
    ScaleInputs,
    energy_over_fixed,
    head_inputs,
    scale_inputs,
    square_distances,
)
from mace_bounds.calibration.kept_rows import KeptRows
from mace_bounds.calibration.layer import ConformalLayer, Intervals, conformal_layer, source_groups
from mace_bounds.calibration.material import (
    ELLIPSOID,
    ENVELOPE,
    Material,
    raw_coefficients,
    readout_coefficients,
)
from mace_bounds.calibration.novelty import Novelty, NoveltyGrades
from mace_bounds.calibration.novelty_fit import fit_novelty, measured_novelty
from mace_bounds.calibration.recalibrate import (
    MINIMUM_COMPOSITIONS,
    Adjustment,
    NewLabels,
    fit_adjustment,
    left_out_adjustments,
)
from mace_bounds.calibration.scale import ScaleModel, fit_scale, select_scale
from mace_bounds.calibration.scale_kinds import KINDS
from mace_bounds.calibration.schema import HeadIdentity, read_config
from mace_bounds.calibration.sources import EVERY_SOURCE, study_sources
from mace_bounds.calibration.splits import assign_splits, group_folds
from mace_bounds.calibration.trained import TrainedRows

__all__ = [
    "ELLIPSOID",
    "ENVELOPE",
    "EVERY_SOURCE",
    "KINDS",
    "MINIMUM_COMPOSITIONS",
    "SEEN_IN_TRAINING",
    "Adjustment",
    "CalibratedHead",
    "Centre",
    "ConformalLayer",
    "DesignRows",
    "FitConfig",
    "FitResult",
    "HeadIdentity",
    "Intervals",
    "KeptRows",
    "LeftOutScores",
    "Material",
    "NewLabels",
    "Novelty",
    "NoveltyGrades",
    "ScaleInputs",
    "ScaleModel",
    "TrainedRows",
    "assign_splits",
    "conformal_layer",
    "conformal_quantile",
    "conformal_scores",
    "cross_fit",
    "cv_plus_bounds",
    "cv_plus_level",
    "energy_over_fixed",
    "fingerprint",
    "fit_adjustment",
    "fit_head",
    "fit_novelty",
    "fit_scale",
    "group_folds",
    "head_inputs",
    "kept_rows",
    "left_out_adjustments",
    "load_head",
    "measured_novelty",
    "outer_folds",
    "raw_coefficients",
    "read_config",
    "readout_coefficients",
    "residual_ev_per_atom",
    "row_weights",
    "scale_inputs",
    "select_centre",
    "select_scale",
    "source_groups",
    "split_rows",
    "square_distances",
    "study_sources",
    "usable_rows",
]
