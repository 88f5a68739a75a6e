"""Plots of propagated properties: every value with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.plots.style import BLUE, GREY, INK, finish, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


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
