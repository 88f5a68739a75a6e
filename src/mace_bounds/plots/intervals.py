"""Plots of numbers with intervals: hull distances, properties, probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds.metrics import clopper_pearson
from mace_bounds.plots.style import BLUE, GREY, INK, ORANGE, finish, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_FADED = 0.15  # opacity of a phase that is surely not on the hull


def plot_hull_distances(table: pd.DataFrame, *, most: int = 40, ax: Axes | None = None) -> Axes:
    """Plot the distance of each candidate from the hull with its interval, nearest first.

    ``table``: of :meth:`mace_bounds.BoundsPredictor.hull`; ``most``: only the nearest are drawn; ``ax``: a new figure
    by default. Axes in meV/atom. Points are as dark as the crystal is probably stable.
    """
    from matplotlib.colors import to_rgba

    rows = table[table["reason"].isna()].sort_values("e_above_hull_ev_per_atom", kind="stable").head(most)
    ax = new_axes(5.0, 1.2 + 0.18 * max(len(rows), 4)) if ax is None else ax
    place = np.arange(len(rows))
    middle, lower, upper = (
        1000 * rows[name].to_numpy(dtype=float)
        for name in ("e_above_hull_ev_per_atom", "lower_ev_per_atom", "upper_ev_per_atom")
    )
    ax.axvline(0, color=GREY, lw=1)
    ax.hlines(place, lower, upper, color=BLUE, lw=1.2, alpha=0.6)
    shade = _FADED + (1 - _FADED) * np.nan_to_num(rows["p_stable"].to_numpy(dtype=float), nan=1.0)
    ax.scatter(middle, place, s=16, color=[to_rgba(INK, float(a)) for a in shade], zorder=3)
    ax.set_yticks(place, [f"{f}  {i}" for f, i in zip(rows["formula"], rows["id"], strict=True)], fontsize=7)
    ax.invert_yaxis()
    return finish(ax, "", "Energy above the hull (meV/atom)", "")


def plot_probability_reliability(
    probability: ArrayLike, happened: ArrayLike, *, n_bins: int = 10, ax: Axes | None = None
) -> Axes:
    """Plot how often things were so against the probability that was said, with 95 % confidence intervals by bin."""
    p, true = np.asarray(probability, dtype=float), np.asarray(happened, dtype=bool)
    ax = new_axes(3.4, 3.5) if ax is None else ax
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)))
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    for b in np.unique(bins):
        inside = bins == b
        k, n = int(true[inside].sum()), int(inside.sum())
        low, high = (float(end) for end in clopper_pearson(k, n))
        ax.errorbar(
            p[inside].mean(),
            k / n,
            yerr=[[k / n - low], [high - k / n]],
            fmt="o",
            color=ORANGE,
            ms=4,
            lw=1,
            capsize=2,
        )
        ax.annotate(str(n), (p[inside].mean(), k / n), xytext=(4, -9), textcoords="offset points", fontsize=6)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return finish(ax, "", "Probability said", "Share that was so")


def plot_properties(table: pd.DataFrame, *, most: int = 40, ax: Axes | None = None) -> Axes:
    """Plot values of a table of properties with their intervals, each relative to the size of its value.

    ``table``: of :func:`mace_bounds.propagation.propagate`; ``most``: only the first rows are drawn; ``ax``: a new
    figure by default. Numbers beside the points are in the units of the table.
    """
    rows = table[table["reason"].isna()].head(most)
    ax = new_axes(5.4, 1.2 + 0.24 * max(len(rows), 4)) if ax is None else ax
    value, lower, upper = (rows[name].to_numpy(dtype=float) for name in ("value", "lower", "upper"))
    size = np.maximum(np.abs(value), 1e-12)
    place = np.arange(len(rows))
    ax.axvline(0, color=GREY, lw=1)
    ax.hlines(place, 100 * (lower - value) / size, 100 * (upper - value) / size, color=BLUE, lw=1.4)
    ax.scatter(np.zeros(len(rows)), place, s=16, color=INK, zorder=3)
    labels = [
        f"{formula} {name}  {number:.4g} {unit or ''}"
        for formula, name, number, unit in zip(
            rows["formula"], rows["property"], value, rows["unit"], strict=True
        )
    ]
    ax.set_yticks(place, labels, fontsize=7.5)
    ax.invert_yaxis()
    return finish(ax, "", "Interval less value (% of the value)", "")
