"""Plots of an audit, drawn from what its folder keeps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.auditing.folder import (
    ATLAS,
    COVERAGE,
    CURVE,
    ELEMENT_BIAS,
    HULL,
    HULL_PHASES,
    PLOTS,
    AuditFolder,
    energies_name,
    read_summary,
)
from mace_bounds.columns import MEV_PER_EV, bound_columns
from mace_bounds.errors import StoreError
from mace_bounds.fitting import MIN_ROWS_PER_GROUP, Measured, labelled
from mace_bounds.levels import TOLERANCE, Levels, percent
from mace_bounds.metrics import CalibrationCurve
from mace_bounds.plots import plot_calibration as draw_calibration
from mace_bounds.plots import (
    plot_coverage_by_group,
    plot_error_against_width,
    plot_hull_distances,
    plot_parity,
    plot_periodic_map,
    plot_phase_diagram,
    plot_reliability,
    plot_residuals,
    plot_widths,
    save_plot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    Figures = Iterator[tuple[str, Callable[[], Axes]]]

FORMATS = ("png", "svg", "pdf")
_MOST_DRAWN = 3  # elements of a phase diagram
_GROUPED = ("chemistry", "element", "source", "size", "run_type")


def plot(
    out: str | Path,
    *,
    level: float | None = None,
    formats: Sequence[str] = ("png", "svg"),
    folder: str | Path | None = None,
) -> list[Path]:
    """Draw the plots of an audit again.

    Parameters
    ----------
    out : path
        Folder of an audit.
    level : float, optional
        Level of the plots of coverage by group; the audit's own by default.
    formats : sequence of {"png", "svg", "pdf"}
        File formats.
    folder : path, optional
        Where they go; ``OUT/plots`` by default.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    StoreError
        If ``out`` is no finished audit, or a format is unknown.
    HeadError
        If the audit's head is not calibrated for the level.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise StoreError(
            f"plots are drawn as {', '.join(FORMATS)}, not as {', '.join(unknown) or 'nothing'}; choose one of these."
        )
    summary = read_summary(Path(out))
    return draw_plots(Path(out), summary, level=level, formats=formats, folder=folder)


def plot_calibration(out: str | Path, *, label: str = "measured", ax: Axes | None = None) -> Axes:
    """Draw the calibration curve of an audit, as for a paper.

    Parameters
    ----------
    out : path
        Folder of an audit.
    label : str
        Name of the curve in the legend.
    ax : Axes, optional
        Where to draw: axes with a curve get one more in another colour, so that audits can be compared. A new figure of
        one column's width (3.4 inches) by default.

    Returns
    -------
    Axes
        Percent against percent. The mean gap in the legend is the area between curve and diagonal, in percentage
        points; the band is the 95 % confidence interval, clustered by composition.

    Raises
    ------
    StoreError
        If ``out`` is no finished audit, or had no labels to measure coverage on.
    """
    folder = AuditFolder(Path(out))
    if not read_summary(folder.path)["measured_on"]["n"]:
        raise StoreError(
            f"the audit in {out} had no labels, so that it has no calibration curve; audit labelled ones."
        )
    return draw_calibration(_curve(folder), label=label, ax=ax)


def draw_plots(
    out: Path,
    summary: dict[str, Any],
    *,
    level: float | None = None,
    formats: Sequence[str] = ("png", "svg"),
    folder: str | Path | None = None,
) -> list[Path]:
    """:func:`plot` of an audit whose summary is known, written or not."""
    levels = Levels.of(summary["head"]["levels"])
    level = float(summary["settings"]["level"]) if level is None else level
    levels.index(level)
    target = Path(folder) if folder is not None else out / PLOTS
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in figures(out, summary, level):
        paths = [target / f"{name}.{suffix}" for suffix in formats]
        save_plot(draw(), *paths)
        written += paths
    return written


def figures(out: Path, summary: dict[str, Any], level: float) -> Figures:
    """Name and maker of every plot that the audit's data allow."""
    levels = Levels.of(summary["head"]["levels"])
    folder = AuditFolder(out)
    table = folder.bounds_for_plots(levels)
    rows = labelled(table, levels).only(str(summary["measured_on"]["rows"]))
    half_widths = _half_widths(table, levels)
    yield from _hull_figures(folder, summary)
    if len(rows) == 0:
        yield "widths", lambda: plot_widths(half_widths, split="all structures")
        return
    title = rows.title
    yield from _measured_figures(rows, summary)
    coverage = folder.read(COVERAGE)
    coverage = coverage[coverage["rows"] == rows.name]
    for by in _GROUPED:
        n_groups = int((coverage["by"] == by).sum()) // len(levels)
        if n_groups > 1 or (n_groups == 1 and by in ("chemistry", "element")):
            yield f"coverage_by_{by}", partial(plot_coverage_by_group, coverage, by, level, split=title)
    yield from _map_figures(folder, level)
    yield "calibration", lambda: draw_calibration(_curve(folder))
    yield "widths", lambda: plot_widths(half_widths, split="all structures")


def _hull_figures(folder: AuditFolder, summary: dict[str, Any]) -> Figures:
    """Distances from the hull of a chemical system, and its phase diagram."""
    if not summary.get("hull"):
        return
    table, phases = folder.read(HULL), folder.read(HULL_PHASES)
    yield "hull_distances", lambda: plot_hull_distances(table)
    if len(summary["hull"]["elements"]) <= _MOST_DRAWN:
        yield "phase_diagram", lambda: plot_phase_diagram(table, phases)


def _map_figures(folder: AuditFolder, level: float) -> Figures:
    """Periodic tables of coverage and bias."""
    if not folder.has(ATLAS):
        return
    atlas, bias = folder.read(ATLAS), folder.read(ELEMENT_BIAS)
    at_level = np.isclose(atlas["level"], level, rtol=0, atol=TOLERANCE)
    picked = atlas[(atlas["by"] == "element").to_numpy() & at_level]
    if len(picked):
        yield (
            "map_coverage",
            lambda: plot_periodic_map(
                dict(zip(picked["group"], 100 * picked["coverage"], strict=True)),
                label=f"measured coverage of the {percent(level)} % bounds, %",
                limits=(100 * (3 * level - 2), 100 * level, 100),
                beyond_chance=set(picked[picked["significant"].astype(bool)]["group"]),
            ),
        )
    shown = bias[bias["n"] >= MIN_ROWS_PER_GROUP]
    if len(shown):
        reach = max(1.0, float(shown["bias_mev_per_atom"].abs().quantile(0.95)))
        yield (
            "map_bias",
            lambda: plot_periodic_map(
                dict(zip(shown["element"], shown["bias_mev_per_atom"], strict=True)),
                label="expected error E_DFT − E_model that an element brings, meV/atom",
                limits=(-reach, 0.0, reach),
                beyond_chance=set(shown[shown["significant"].astype(bool)]["element"]),
                colours="PuOr",
            ),
        )


def _measured_figures(rows: Measured, summary: dict[str, Any]) -> Figures:
    """Errors and widths of the measured rows."""
    deviation, sigma, title = rows.deviation, rows.column("sigma"), rows.title
    n_atoms = rows.table["n_atoms"].to_numpy(dtype=np.float64)
    quantiles = {float(k): float(v) for k, v in summary["head"]["quantiles"].items()}
    if np.ptp(sigma) > 0:  # a constant width cannot tell small errors from large ones
        yield "reliability", lambda: plot_reliability(deviation, sigma, split=title)
        yield (
            "error_against_width",
            lambda: plot_error_against_width(deviation, sigma, quantiles, split=title),
        )
    yield (
        "parity",
        lambda: plot_parity(
            rows.table["energy_dft_ev"].to_numpy(dtype=np.float64) / n_atoms,
            rows.table["energy_model_ev"].to_numpy(dtype=np.float64) / n_atoms,
            model=energies_name(summary),
            split=title,
        ),
    )
    yield "residuals", lambda: plot_residuals(rows.error, split=title)


def _half_widths(table: pd.DataFrame, levels: Levels) -> dict[float, np.ndarray]:
    good = table[table["sigma_mev_per_atom"].notna()]
    pairs = {level: bound_columns(level) for level in levels}
    return {
        level: (good[b].to_numpy(dtype=np.float64) - good[a].to_numpy(dtype=np.float64)) / (2 * MEV_PER_EV)
        for level, (a, b) in pairs.items()
    }


def _curve(folder: AuditFolder) -> CalibrationCurve:
    table = folder.read(CURVE)
    level, observed, low, high = (
        table[name].to_numpy(dtype=np.float64)
        for name in ("level", "coverage", "coverage_low", "coverage_high")
    )
    return CalibrationCurve(level, observed, low, high, int(table["n"].iloc[0]))
