"""Plots of a comparison: which methods are sharp, which cover, and for which structures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.benchmark.config import PRODUCT, PRODUCT_SPLIT, REFERENCE, SCALE_PREFIX
from mace_bounds.benchmark.metrics import RATIO
from mace_bounds.benchmark.splits import COMPOSITION, SYSTEM
from mace_bounds.plots import style as plot_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from mace_bounds.benchmark.folder import CompareReport

TITLES = {COMPOSITION: "unseen compositions", SYSTEM: "unseen chemical systems"}
HEAT_GROUPINGS = ("source", "size", "chemistry")
_MIN_STRUCTURES_SHOWN = 30  # different structures, below which an interval score is the luck of a few misses
_TOLERANCE = 0.015  # the band in which a mean coverage counts as met


@dataclass(frozen=True)
class MethodStyle:
    """How a method is shown: its name in words, colour and marker."""

    label: str
    colour: str
    marker: str
    about: str = ""  # what it is, in a clause


# what this package makes in blues, POPS as it is in greens, other people's methods in warm colours and greys
_STYLES = {
    PRODUCT: MethodStyle(
        "mace-bounds", "#0072B2", "*", "the head of this package, with its own conformal layer"
    ),
    PRODUCT_SPLIT: MethodStyle(
        "mace-bounds, split conformal",
        "#4F9BD0",
        "*",
        "the same with the split-conformal layer of the others",
    ),
    "pops_hypercube": MethodStyle(
        "POPS hypercube", "#009E73", "o", "widths of the POPS posterior on its hypercube"
    ),
    "pops_ensemble": MethodStyle("POPS ensemble", "#44AA99", "s", "widths of an ensemble of POPS"),
    "pops_support": MethodStyle("POPS support", "#117733", "^", "half the extent of the POPS posterior"),
    "pops_ellipsoid": MethodStyle(
        "POPS ellipsoid", "#7FB800", "D", "widths of the POPS posterior on its ellipsoid"
    ),
    "popsregression": MethodStyle(
        "popsregression", "#999933", "v", "the package of the authors of POPS, as it is"
    ),
    REFERENCE: MethodStyle("constant width", "#333333", "o", "one width for all structures"),
    "bayesian_ridge": MethodStyle("Bayesian ridge", "#E69F00", "s", "posterior of a linear model"),
    "bayesian_ridge_noise": MethodStyle(
        "Bayesian ridge + noise", "#B8860B", "^", "the same with the variance of the noise"
    ),
    "llpr": MethodStyle("LLPR", "#D55E00", "D", "last-layer prediction rigidity"),
    "committee": MethodStyle("committee of heads", "#CC79A7", "v", "spread of 32 ridge heads on bootstraps"),
    "d_optimality": MethodStyle(
        "D-optimality γ", "#882255", "P", "a line in log(1 + γ) against all training rows"
    ),
    "d_optimality_local": MethodStyle(
        "D-optimality γ, local", "#AA4499", "X", "the same against the nearest cluster"
    ),
    "quantile": MethodStyle("quantile regression", "#CC3311", "p", "log-linear quantile of the error"),
    "llpr_readout": MethodStyle(
        "LLPR, readout features", "#E07B39", "D", "the same without atomic fractions, as in metatrain"
    ),
    "llpr_linear": MethodStyle("LLPR, linear readouts", "#F0A878", "D", "the same on linear readouts alone"),
    "readout_ensemble": MethodStyle(
        "readout ensemble",
        "#AA6688",
        "v",
        "spread of 32 readout layers, each refitted to half of the compositions",
    ),
    "quantile_boosting": MethodStyle(
        "quantile boosting", "#EE6677", "p", "5 and 95 % quantiles by gradient boosting of trees"
    ),
    "gmm_gamma": MethodStyle("mixture γ", "#774411", "P", "distance to the nearest cluster, as in GRACE"),
    "residual_pops": MethodStyle(
        "POPS, rows by residual", "#BBBB44", "v", "as popsregression 0.5 chooses its rows"
    ),
    "model_spread": MethodStyle("spread of models", "#555577", "h", "standard deviation over several models"),
}
_SCALE_COLOURS = ("#56B4E9", "#6699CC", "#332288", "#4477AA", "#88CCEE", "#225588", "#77AADD", "#004488")
_SCALE_MARKERS = "osD^vPXp"
_OTHER = "#8A8A8A"


def method_styles(names: Iterable[str]) -> dict[str, MethodStyle]:
    """Style of each method; scales are coloured in the order of their names."""
    names = list(names)
    scales = sorted(name for name in names if name.startswith(SCALE_PREFIX))
    return {name: _STYLES.get(name) or _unnamed(name, scales) for name in names}


def _unnamed(name: str, scales: list[str]) -> MethodStyle:
    if name not in scales:
        return MethodStyle(name.replace("_", " "), _OTHER, "o")
    place = scales.index(name)
    label = f"scale {name.removeprefix(SCALE_PREFIX).replace('_', ' ')}"
    about = "the head of this package with this kind of scale alone"
    colour, marker = _SCALE_COLOURS[place % len(_SCALE_COLOURS)], _SCALE_MARKERS[place % len(_SCALE_MARKERS)]
    return MethodStyle(label, colour, marker, about)


def write_plots(folder: Path, report: CompareReport, levels: Sequence[float]) -> list[Path]:
    """Draw every plot of a comparison as PNG and SVG; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = report.table, report.splits, report.groups, report.flags
    written = []
    for kind in report.table["kind"].unique():
        methods, rows, pooled, caught = (part[part["kind"] == kind] for part in tables)
        methods = methods[methods[f"{RATIO}_mean"].notna()]
        if len(methods) == 0:
            continue
        axes = {
            "interval_score": plot_scores(methods, rows, TITLES[kind]),
            "coverage": plot_coverages(methods, levels, TITLES[kind]),
            "groups": plot_groups(methods, pooled, TITLES[kind]),
            "sharpness": plot_sharpness(methods, TITLES[kind]),
        }
        if caught["flag"].eq("any").any():
            axes["flags"] = plot_flags(methods, caught, TITLES[kind])
        for name, ax in axes.items():
            png, svg = (folder / f"{kind}_{name}{suffix}" for suffix in (".png", ".svg"))
            plot_style.save_plot(ax, png, svg)
            written.append(png)
    return written


def plot_scores(methods: pd.DataFrame, splits: pd.DataFrame, what: str) -> Axes:
    """Plot each method's 95 % interval score relative to the constant width: every split, mean and spread."""
    ax, y = _method_axes(methods, 6.0)
    styles = method_styles(methods["method"])
    for place, row in zip(y, methods.to_dict("records"), strict=True):
        style = styles[row["method"]]
        single = splits.loc[splits["method"] == row["method"], RATIO].to_numpy(dtype=np.float64)
        ax.plot(single, np.full(len(single), place), "|", color=style.colour, alpha=0.45, ms=9, mew=1.1)
        _dot(ax, row, RATIO, place, style)
    ax.axvline(1.0, color=plot_style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    _clip_right(ax, methods[f"{RATIO}_mean"].to_numpy(dtype=np.float64))
    n = int(methods["n_splits"].max())
    return plot_style.finish(
        ax,
        f"Interval score: {what}, {n} split{'s' if n > 1 else ''}",
        "95 % interval score / that of a constant width",
        "",
    )


def plot_coverages(methods: pd.DataFrame, levels: Sequence[float], what: str) -> Axes:
    """Plot each method's coverage at every level: one panel a level, its band ±1.5 points about nominal."""
    panels, y = _method_panels(methods, len(levels))
    styles = method_styles(methods["method"])
    for ax, level in zip(panels, levels, strict=True):
        name = f"coverage_{100 * level:g}"
        for place, row in zip(y, methods.to_dict("records"), strict=True):
            _dot(ax, row, name, place, styles[row["method"]], scale=100)
        ax.axvspan(
            100 * (level - _TOLERANCE),
            100 * min(level + _TOLERANCE, 1.0),
            color=plot_style.PALE,
            alpha=0.55,
            lw=0,
            zorder=0,
        )
        ax.axvline(100 * level, color=plot_style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
        plot_style.finish(ax, f"nominal {100 * level:g} %", "", "")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color=plot_style.PALE, lw=0.5)
        ax.set_xlim(right=min(ax.get_xlim()[1], 100.3))
    figure: Any = panels[0].get_figure()
    figure.suptitle(f"Coverage: {what}", fontsize=10, color=plot_style.INK, x=0.01, ha="left")
    figure.supxlabel(
        "measured coverage (%), mean and standard deviation over splits", fontsize=9.5, color=plot_style.INK
    )
    return panels[0]


def plot_groups(methods: pd.DataFrame, groups: pd.DataFrame, what: str) -> Axes:
    """Plot a heat map of interval scores relative to the constant's: methods by groups of structures."""
    from matplotlib.colors import TwoSlopeNorm

    columns = [
        (by, str(group), int(n))
        for by in HEAT_GROUPINGS
        for group, n in _group_sizes(groups, by)
        if n >= _MIN_STRUCTURES_SHOWN
    ]
    names = [("all", "all", 0), *columns]
    indexed = groups.set_index(["method", "by", "group"])[RATIO]
    styles = method_styles(methods["method"])
    values = np.array(
        [[indexed.get((m, by, group), np.nan) for by, group, _ in names] for m in methods["method"]],
        dtype=np.float64,
    )
    ax = plot_style.new_axes(3.4 + 0.5 * len(names), 1.9 + 0.27 * len(methods))
    image = ax.imshow(
        np.clip(values, 0.4, 1.6), cmap="RdBu_r", norm=TwoSlopeNorm(1.0, 0.4, 1.6), aspect="auto"
    )
    best = np.nanmin(values, axis=0)
    for i, j in np.ndindex(*values.shape):
        if np.isfinite(values[i, j]):
            strong = abs(np.clip(values[i, j], 0.4, 1.6) - 1.0) > 0.38
            ax.text(
                j,
                i,
                f"{values[i, j]:.2f}" if values[i, j] < 10 else f"{values[i, j]:.0f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if strong else plot_style.INK,
                fontweight="bold" if values[i, j] <= best[j] + 1e-12 else "normal",
            )
    labels = ["all", *(f"{group}  ({n:,})" for _, group, n in columns)]
    ax.set_xticks(range(len(names)), labels, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(methods)), [styles[m].label for m in methods["method"]])
    edges = [j for j in range(1, len(names)) if names[j][0] != names[j - 1][0]]
    for edge in edges:
        ax.axvline(edge - 0.5, color="white", lw=3)
    figure: Any = ax.get_figure()
    bar = figure.colorbar(image, ax=ax, fraction=0.03, pad=0.015)
    bar.set_label("relative to constant width", fontsize=8.5, color=plot_style.INK)
    bar.ax.tick_params(labelsize=8, colors=plot_style.INK, width=0.5)
    bar.outline.set_visible(False)
    plot_style.finish(ax, f"95 % interval score by group: {what} (bold: best)", "", "")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    return ax


def plot_sharpness(methods: pd.DataFrame, what: str) -> Axes:
    """Plot coverage at 95 % against the mean width of the intervals: upper left is better."""
    ax = plot_style.new_axes(6.6, 4.2)
    styles = method_styles(methods["method"])
    width, cover = "mean_width_95_mev_per_atom", "coverage_95"
    ax.axhspan(
        100 * (0.95 - _TOLERANCE),
        100 * (0.95 + _TOLERANCE),
        color=plot_style.PALE,
        alpha=0.55,
        lw=0,
        zorder=0,
    )
    ax.axhline(95, color=plot_style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    for row in methods.to_dict("records"):
        style = styles[row["method"]]
        centre = (row[f"{width}_mean"], 100 * row[f"{cover}_mean"])
        spread = [np.nan_to_num(row[f"{width}_std"]), 100 * np.nan_to_num(row[f"{cover}_std"])]
        ax.errorbar(*centre, spread[1], spread[0], fmt="none", ecolor=style.colour, elinewidth=0.9, alpha=0.3)
        size = 13 if style.marker == "*" else 6.5
        ax.plot(*centre, style.marker, ms=size, color=style.colour, label=style.label)
    ax.set_xscale("log")
    plot_style.plain_log(ax, "x")
    ax.grid(color=plot_style.PALE, lw=0.5)
    plot_style.legend(ax, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return plot_style.finish(
        ax,
        f"Sharpness and coverage: {what}",
        "mean width of the 95 % interval (meV/atom)",
        "measured coverage (%)",
    )


def plot_flags(methods: pd.DataFrame, flags: pd.DataFrame, what: str) -> Axes:
    """Plot coverage at 95 % on flagged and unflagged structures, which the product's flags tell apart."""
    ax, y = _method_axes(methods, 6.6)
    styles = method_styles(methods["method"])
    rows = {row["method"]: row for row in flags[flags["flag"] == "any"].to_dict("records")}
    for place, method in zip(y, methods["method"], strict=True):
        row, colour = rows[method], styles[method].colour
        ends = [100 * row["coverage_95_flagged"], 100 * row["coverage_95_unflagged"]]
        ax.plot(ends, [place, place], color=colour, lw=1, alpha=0.5)
        ax.plot(ends[0], place, "o", ms=6, mfc="white", mec=colour)
        ax.plot(ends[1], place, "o", ms=6, color=colour)
    ax.axvline(95, color=plot_style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    share = 100 * float(next(iter(rows.values()))["share_flagged"])
    ax.plot([], [], "o", ms=6, color=plot_style.INK, label=f"not flagged ({100 - share:.1f} %)")
    ax.plot([], [], "o", ms=6, mfc="white", mec=plot_style.INK, label=f"flagged ({share:.1f} %)")
    plot_style.legend(ax, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return plot_style.finish(ax, f"What the flags catch: {what}", "measured coverage (%), nominal 95 %", "")


def _group_sizes(groups: pd.DataFrame, by: str) -> list[tuple[str, int]]:
    rows = groups[groups["by"] == by].drop_duplicates("group").sort_values("group", kind="stable")
    return list(zip(rows["group"], rows["n_structures"], strict=True))


def _dot(ax: Axes, row: dict[Any, Any], name: str, place: float, style: Any, *, scale: float = 1) -> None:
    ax.errorbar(
        scale * row[f"{name}_mean"],
        place,
        xerr=scale * np.nan_to_num(row[f"{name}_std"]),
        fmt=style.marker,
        ms=10 if style.marker == "*" else 5.5,
        color=style.colour,
        elinewidth=1.2,
    )


def _method_axes(methods: pd.DataFrame, width: float) -> tuple[Axes, np.ndarray]:
    ax = plot_style.new_axes(width, 1.2 + 0.26 * len(methods))
    return ax, _label_methods(ax, methods)


def _method_panels(methods: pd.DataFrame, n: int) -> tuple[list[Axes], np.ndarray]:
    first = plot_style.new_axes(2.2 + 1.75 * n, 1.5 + 0.26 * len(methods))
    figure: Any = first.get_figure()
    figure.clear()
    panels = list(figure.subplots(1, n, sharey=True, squeeze=False)[0])
    return panels, _label_methods(panels[0], methods)


def _label_methods(ax: Axes, methods: pd.DataFrame) -> np.ndarray:
    """One line a method, the best on top; returns their heights."""
    y = np.arange(len(methods))[::-1]
    styles = method_styles(methods["method"])
    ax.set_yticks(y, [styles[name].label for name in methods["method"]])
    ax.set_ylim(-0.7, len(methods) - 0.3)
    ax.grid(axis="y", color=plot_style.PALE, lw=0.5)
    ax.tick_params(axis="y", length=0)
    return y


def _clip_right(ax: Axes, means: np.ndarray) -> None:
    """Keep one hopeless method from squeezing all the others: an arrow at the edge stands for it."""
    limit = max(1.25, 1.15 * float(np.quantile(means, 0.75)))
    if float(means.max()) <= 1.6 * limit:
        return
    low, _ = ax.get_xlim()
    ax.set_xlim(low, limit)
    for place, mean in zip(np.arange(len(means))[::-1], means, strict=True):
        if mean > limit:
            ax.annotate(
                f"{mean:.3g} →", (limit, place), ha="right", va="center", fontsize=8, color=plot_style.INK
            )
