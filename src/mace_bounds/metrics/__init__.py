"""Coverage, proper scores and groups: pure functions on arrays."""

from mace_bounds.metrics.chemistry import (
    chemistry_class,
    chemistry_classes,
)
from mace_bounds.metrics.coverage import (
    clopper_pearson,
    clustered_interval,
    clustered_variance,
    coverage_table,
    effective_number,
    interval_score,
    violations,
)
from mace_bounds.metrics.groups import (
    Groups,
    Labels,
    Membership,
    codes_of,
    element_membership,
    fraction_membership,
    groups_of,
    membership,
    size_bins,
)
from mace_bounds.metrics.scores import (
    CalibrationCurve,
    WidthMetrics,
    ause,
    binned_errors,
    crps_from_quantiles,
    crps_gaussian,
    ence,
    miscalibration_area,
    nll_gaussian,
    sharpness,
    sparsification,
    spearman,
    width_metrics,
)
from mace_bounds.metrics.slab import (
    worst_slab_coverage,
)

__all__ = [
    "CalibrationCurve",
    "Groups",
    "Labels",
    "Membership",
    "WidthMetrics",
    "ause",
    "binned_errors",
    "chemistry_class",
    "chemistry_classes",
    "clopper_pearson",
    "clustered_interval",
    "clustered_variance",
    "codes_of",
    "coverage_table",
    "crps_from_quantiles",
    "crps_gaussian",
    "effective_number",
    "element_membership",
    "ence",
    "fraction_membership",
    "groups_of",
    "interval_score",
    "membership",
    "miscalibration_area",
    "nll_gaussian",
    "sharpness",
    "size_bins",
    "sparsification",
    "spearman",
    "violations",
    "width_metrics",
    "worst_slab_coverage",
]
