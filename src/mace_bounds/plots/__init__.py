"""Plots of coverage, widths and errors: they take and return axes."""

from mace_bounds.plots.calibration import (
    plot_calibration,
    plot_coverage_by_group,
    plot_error_against_width,
    plot_parity,
    plot_reliability,
    plot_residuals,
    plot_widths,
)
from mace_bounds.plots.intervals import (
    plot_hull_distances,
    plot_probability_reliability,
    plot_properties,
)
from mace_bounds.plots.periodic_table import plot_periodic_map
from mace_bounds.plots.phase_diagram import plot_binary_hull, plot_phase_diagram, plot_ternary_hull
from mace_bounds.plots.style import save_plot

__all__ = [
    "plot_binary_hull",
    "plot_calibration",
    "plot_coverage_by_group",
    "plot_error_against_width",
    "plot_hull_distances",
    "plot_parity",
    "plot_periodic_map",
    "plot_phase_diagram",
    "plot_probability_reliability",
    "plot_properties",
    "plot_reliability",
    "plot_residuals",
    "plot_ternary_hull",
    "plot_widths",
    "save_plot",
]
