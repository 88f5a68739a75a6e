"""Width to interval with stated coverage; coverage statistics; proper scores; plots (DESIGN 6)."""

from mace_bounds.calibration import _plot_style as plot_style
from mace_bounds.calibration._calibrated import (
    CalibratedHead,
    FoldHead,
    HeadIdentity,
    head_inputs,
    load_head,
    scale_inputs,
)
from mace_bounds.calibration._centre import Centre, select_centre
from mace_bounds.calibration._chemistry import CLASSES, chemistry_class, chemistry_classes
from mace_bounds.calibration._conformal import (
    LEVELS,
    ConformalTable,
    conformal_quantile,
    conformal_quantiles,
    conformal_scores,
    mondrian_quantiles,
    weighted_conformal_quantile,
)
from mace_bounds.calibration._conformal_cross import cv_plus_bounds, cv_plus_level
from mace_bounds.calibration._conformal_layer import ConformalLayer, conformal_layer
from mace_bounds.calibration._coverage import (
    clopper_pearson,
    clustered_interval,
    clustered_variance,
    coverage_table,
    effective_number,
    interval_score,
    violations,
)
from mace_bounds.calibration._fit import (
    FitResult,
    cross_fit,
    fit_head,
    residual_ev_per_atom,
    row_weights,
    usable_rows,
)
from mace_bounds.calibration._fit_config import FitConfig
from mace_bounds.calibration._groups import (
    Groups,
    Membership,
    codes_of,
    element_membership,
    fraction_membership,
    groups_of,
    membership,
    quantile_bins,
    size_bins,
)
from mace_bounds.calibration._intervals import Intervals
from mace_bounds.calibration._novelty import GRADES, Novelty, NoveltyGrades
from mace_bounds.calibration._novelty_fit import fit_novelty
from mace_bounds.calibration._plot_style import save as save_plot
from mace_bounds.calibration._plots import (
    plot_calibration,
    plot_coverage_by_group,
    plot_error_against_width,
    plot_parity,
    plot_reliability,
    plot_residuals,
    plot_widths,
)
from mace_bounds.calibration._scale import KINDS as SCALE_KINDS
from mace_bounds.calibration._scale import ScaleModel
from mace_bounds.calibration._scale_fit import fit_scale, select_scale
from mace_bounds.calibration._scale_inputs import ScaleInputs
from mace_bounds.calibration._slab import worst_slab_coverage
from mace_bounds.calibration._splits import (
    assign_splits,
    composition_key,
    composition_keys,
    compositions_in,
    group_folds,
)
from mace_bounds.calibration._statistics import (
    CalibrationCurve,
    WidthMetrics,
    ause,
    binned_errors,
    calibration_curve,
    crps_from_quantiles,
    crps_gaussian,
    ence,
    miscalibration_area,
    nll_gaussian,
    sharpness,
    sparsification,
    spearman,
    symmetric_quantiles,
    width_metrics,
)

__all__ = [
    "CLASSES",
    "GRADES",
    "LEVELS",
    "SCALE_KINDS",
    "CalibratedHead",
    "CalibrationCurve",
    "Centre",
    "ConformalLayer",
    "ConformalTable",
    "FitConfig",
    "FitResult",
    "FoldHead",
    "Groups",
    "HeadIdentity",
    "Intervals",
    "Membership",
    "Novelty",
    "NoveltyGrades",
    "ScaleInputs",
    "ScaleModel",
    "WidthMetrics",
    "assign_splits",
    "ause",
    "binned_errors",
    "calibration_curve",
    "chemistry_class",
    "chemistry_classes",
    "clopper_pearson",
    "clustered_interval",
    "clustered_variance",
    "codes_of",
    "composition_key",
    "composition_keys",
    "compositions_in",
    "conformal_layer",
    "conformal_quantile",
    "conformal_quantiles",
    "conformal_scores",
    "coverage_table",
    "cross_fit",
    "crps_from_quantiles",
    "crps_gaussian",
    "cv_plus_bounds",
    "cv_plus_level",
    "effective_number",
    "element_membership",
    "ence",
    "fit_head",
    "fit_novelty",
    "fit_scale",
    "fraction_membership",
    "group_folds",
    "groups_of",
    "head_inputs",
    "interval_score",
    "load_head",
    "membership",
    "miscalibration_area",
    "mondrian_quantiles",
    "nll_gaussian",
    "plot_calibration",
    "plot_coverage_by_group",
    "plot_error_against_width",
    "plot_parity",
    "plot_reliability",
    "plot_residuals",
    "plot_style",
    "plot_widths",
    "quantile_bins",
    "residual_ev_per_atom",
    "row_weights",
    "save_plot",
    "scale_inputs",
    "select_centre",
    "select_scale",
    "sharpness",
    "size_bins",
    "sparsification",
    "spearman",
    "symmetric_quantiles",
    "usable_rows",
    "violations",
    "weighted_conformal_quantile",
    "width_metrics",
    "worst_slab_coverage",
]
