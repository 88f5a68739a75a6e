"""Calibration plots: arrays and optional axes in, axes out. Arrays in eV/atom, axes in meV/atom.

In all of them ``split`` says for the title what the rows are, as "unseen compositions"; ``ax`` is where to draw, a new
figure by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.levels import LEVELS, TOLERANCE, percent
from mace_bounds.metrics import CalibrationCurve
from mace_bounds.plots.style import (
    BLUE,
    GREY,
    INK,
    LEVEL_COLOURS,
    ORANGE,
    OVERLAY_COLOURS,
    PALE,
    RED,
    SKY,
    finish,
    legend,
    new_axes,
    plain_log,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_CURVE = "measured coverage"
_NAME_WIDTH = 34  # characters of a group's name in a line
_DFT = r"$E_\mathrm{DFT}$"
_HEXBIN_FROM = 2000  # rows above which points become a density


def plot_calibration(
    curve: CalibrationCurve,
    *,
    label: str = "measured",
    marks: Sequence[float] = LEVELS,
    ax: Axes | None = None,
) -> Axes:
    """Plot the measured coverage against the level with its confidence band and the diagonal, as for a paper.

    The legend gives the number of structures and the mean gap: the mean distance between coverage and level over all
    levels, in percentage points, which is the area between curve and diagonal (:attr:`CalibrationCurve.area`). There is
    no title: what the rows are belongs into the caption.

    ``label``: name of the curve in the legend; ``marks``: levels with a mark on the curve; ``ax``: a new figure of one
    column's width (3.4 inches) by default; axes with a curve get one more, in another colour.
    """
    ax = new_axes(3.4, 3.5) if ax is None else ax
    before = sum(line.get_gid() == _CURVE for line in ax.lines)
    colour = OVERLAY_COLOURS[before % len(OVERLAY_COLOURS)]
    level, observed, low, high = (100 * x for x in (curve.level, curve.observed, curve.low, curve.high))
    if before == 0:
        ax.plot([0, 100], [0, 100], color=GREY, lw=1, ls=(0, (4, 3)))
    ax.fill_between(level, low, high, color=colour, alpha=0.2, lw=0)
    text = f"{label}\nn = {curve.n:,}, mean gap {100 * curve.area:.1f} points"
    ax.plot(level, observed, color=colour, lw=1.6, label=text, gid=_CURVE)
    at = 100 * np.array([x for x in marks if curve.level.size and level[0] <= 100 * x <= level[-1]])
    ax.plot(at, np.interp(at, level, observed), "o", ms=4.5, mfc="white", mec=colour, mew=1.2, clip_on=False)
    ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=range(0, 101, 20), yticks=range(0, 101, 20))
    drawn = [np.asarray(line.get_xydata(), dtype=np.float64) for line in ax.lines if line.get_gid() == _CURVE]
    above = sum(float(np.mean(points[:, 1] - points[:, 0])) for points in drawn)
    legend(ax, loc="lower right" if above >= 0 else "upper left", framealpha=0.0)
    return finish(ax, "", "Nominal coverage (%)", "Measured coverage (%)")


def plot_coverage_by_group(
    table: pd.DataFrame, by: str, level: float, *, split: str = "", most: int = 40, ax: Axes | None = None
) -> Axes:
    """Plot the coverage of each group with its confidence interval, lowest first.

    ``table``: from :func:`coverage_table`; ``by``: which grouping of the table; ``level``: which level of the
    table; ``most``: with more groups, only this many with the lowest coverage are drawn, and the title says
    so. Coloured are those whose coverage differs from the level beyond chance (``significant``).
    """
    rows = table[(table["by"] == by) & np.isclose(table["level"], level, rtol=0, atol=TOLERANCE)]
    rows = rows.sort_values(["coverage", "n"], kind="stable")
    shown = rows.iloc[:most]
    counts = shown[[name for name in ("n", "n_compositions") if name in shown]].to_numpy(dtype=int)
    names = [
        fill(f"{group}  ({'; '.join(f'{n:,}' for n in count)})", _NAME_WIDTH)
        for group, count in zip(shown["group"], counts, strict=True)
    ]
    lines = np.array([1 + name.count("\n") for name in names], dtype=np.float64)
    ax = new_axes(4.8, max(2.0, 1.3 + 0.2 * float(lines.sum()))) if ax is None else ax
    y = lines.sum() - np.cumsum(lines) + 0.5 * (lines - 1)
    coverage, low, high = (
        100 * shown[name].to_numpy(dtype=np.float64) for name in ("coverage", "coverage_low", "coverage_high")
    )
    beyond = shown["significant"].to_numpy(dtype=bool)
    nominal = 100 * level
    kinds = (
        (~beyond, GREY),
        (beyond & (coverage >= nominal), BLUE),
        (beyond & (coverage < nominal), RED),
    )
    for mask, colour in kinds:
        if mask.any():
            ax.hlines(y[mask], low[mask], high[mask], color=colour, lw=1.4, alpha=0.55)
            ax.plot(coverage[mask], y[mask], "o", ms=4.5, color=colour)
    ax.axvline(nominal, color=INK, lw=1, ls=(0, (4, 3)), zorder=0)
    ax.set_yticks(y, names)
    ax.set_ylim(-0.7, max(float(lines.sum()) - 0.3, 0.7))
    ax.set_xlim(max(0.0, min(float(low.min(initial=nominal)), nominal) - 3), 101)
    ax.grid(axis="y", color=PALE, lw=0.5)
    what = f"Coverage by {by.replace('_', ' ')}"
    if len(rows) > len(shown):
        what += f", {len(shown)} lowest of {len(rows)}"
    notes = [f"measured coverage (%), nominal {percent(level)} %"]
    notes += ["in brackets: structures; compositions"] if counts.shape[1] > 1 else []
    notes += ["red, blue: below, above the level beyond chance"] if beyond.any() else []
    finish(
        ax,
        _title(what, split, None),
        "\n".join(fill(note, _NAME_WIDTH) for note in notes),
        "",
        most=_NAME_WIDTH,
    )
    ax.tick_params(axis="y", length=0)
    return ax


def plot_reliability(
    residual: ArrayLike, sigma: ArrayLike, *, n_bins: int = 12, split: str = "", ax: Axes | None = None
) -> Axes:
    """Plot the size of errors, binned by σ, against σ: on the diagonal the widths mean what they say.

    ``residual``, ``sigma`` (n,): eV/atom. Drawn per equal-count bin: RMSE, and the 68.3 % quantile of
    |residual| (robust to outliers); ``n_bins``: number of bins.
    """
    ax = new_axes(5.4, 3.8) if ax is None else ax
    r, s = 1e3 * np.asarray(residual, dtype=np.float64), 1e3 * np.asarray(sigma, dtype=np.float64)
    parts = np.array_split(np.argsort(s, kind="stable"), min(n_bins, s.size))
    width = np.array([np.sqrt(np.mean(s[part] ** 2)) for part in parts])
    rmse = np.array([np.sqrt(np.mean(r[part] ** 2)) for part in parts])
    typical = np.array([np.quantile(np.abs(r[part]), 0.683) for part in parts])
    ends = np.array([min(width.min(), typical.min()), max(width.max(), rmse.max())]) * [0.8, 1.25]
    ax.plot(ends, ends, color=GREY, lw=1, ls=(0, (4, 3)), label="ideal")
    ax.plot(width, rmse, "s-", color=ORANGE, lw=1, ms=4.5, label="root mean square")
    ax.plot(width, typical, "o-", color=BLUE, lw=1.4, ms=4.5, label="68.3 % quantile")
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log(ax)
    ax.grid(color=PALE, lw=0.5)
    legend(ax, loc="upper left", bbox_to_anchor=(1.01, 1.0), title="error in bin", borderaxespad=0)
    return finish(
        ax, _title("Reliability", split, s.size), "predicted σ (meV/atom)", f"|{_DFT} − centre| (meV/atom)"
    )


def plot_error_against_width(
    residual: ArrayLike,
    sigma: ArrayLike,
    quantiles: Mapping[float, float],
    *,
    split: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot |residual| against σ, with the half-width q·σ of each level as a line.

    ``residual``, ``sigma`` (n,): eV/atom; ``quantiles``: level to conformal quantile; infinite ones are left
    out.
    """
    ax = new_axes(5.0, 4.0) if ax is None else ax
    s, r = 1e3 * np.asarray(sigma, dtype=np.float64), 1e3 * np.abs(np.asarray(residual, dtype=np.float64))
    floor = max(float(np.quantile(r, 0.01, method="lower")), 1e-3 * float(np.median(s)), 1e-9)
    seen = r >= floor
    if s.size > _HEXBIN_FROM:
        ax.hexbin(
            s[seen],
            r[seen],
            xscale="log",
            yscale="log",
            gridsize=45,
            cmap="Greys",
            bins="log",
            mincnt=1,
            lw=0,
        )
    else:
        ax.scatter(s[seen], r[seen], s=7, color=INK, alpha=0.35, lw=0)
    ends = np.array([s.min() / 1.05, s.max() * 1.05])
    finite = [(level, q) for level, q in sorted(quantiles.items()) if np.isfinite(q)]
    for i, (level, q) in enumerate(finite):
        colour = LEVEL_COLOURS[i % len(LEVEL_COLOURS)]
        measured = float(np.mean(r <= q * s))
        ax.plot(ends, q * ends, color=colour, lw=1.6, label=f"{100 * level:g} %  ({100 * measured:.1f})")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*ends)
    ax.set_ylim(floor / 1.2, 1.4 * max(float(r.max()), *(q * ends[1] for _, q in finite), floor))
    plain_log(ax)
    if finite:
        legend(
            ax,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            title="level (measured %)",
            borderaxespad=0,
        )
    return finish(
        ax,
        _title("Error against width", split, s.size),
        "predicted σ (meV/atom)",
        f"|{_DFT} − centre| (meV/atom)",
    )


def plot_parity(
    energy_dft: ArrayLike,
    energy_model: ArrayLike,
    *,
    model: str = "MACE",
    split: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot DFT against model energies, with the residuals as an inset.

    ``energy_dft``, ``energy_model`` (n,): eV/atom; ``model``: name of the model, for the axis.
    """
    ax = new_axes(4.4, 4.5) if ax is None else ax
    dft, model_energy = np.asarray(energy_dft, dtype=np.float64), np.asarray(energy_model, dtype=np.float64)
    ends = np.array([min(dft.min(), model_energy.min()), max(dft.max(), model_energy.max())])
    ends += np.array([-0.04, 0.04]) * max(float(np.ptp(ends)), 1e-3)
    ax.plot(ends, ends, color=GREY, lw=1, ls=(0, (4, 3)))
    if dft.size > _HEXBIN_FROM:
        ax.hexbin(dft, model_energy, gridsize=70, cmap="Blues", bins="log", mincnt=1, lw=0)
    else:
        ax.scatter(dft, model_energy, s=8, color=BLUE, alpha=0.45, lw=0)
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_aspect("equal")
    r = 1e3 * (dft - model_energy)
    ax.text(
        0.04,
        0.96,
        f"mean |error| {np.mean(np.abs(r)):.3g} meV/atom\nmedian |error| {np.median(np.abs(r)):.3g} meV/atom",
        transform=ax.transAxes,
        va="top",
        fontsize=8.5,
        color=INK,
    )
    inset = ax.inset_axes((0.6, 0.13, 0.36, 0.25))
    _residual_bars(inset, r, n_bins=31)
    inset.set_yticks([])
    inset.spines[["top", "right", "left"]].set_visible(False)
    inset.tick_params(labelsize=7, colors=INK, width=0.5, length=2)
    inset.set_title(rf"{_DFT} − $E_\mathrm{{model}}$ (meV/atom)", fontsize=7, color=INK, pad=2)
    inset.patch.set_alpha(0.8)
    return finish(
        ax,
        _title("Parity", split, dft.size),
        "DFT energy (eV/atom)",
        fill(f"energy by {model} (eV/atom)", 48),
    )


def plot_widths(half_widths: Mapping[float, ArrayLike], *, split: str = "", ax: Axes | None = None) -> Axes:
    """Plot the distribution of interval half-widths per level: how sharp the bounds are.

    ``half_widths`` (n,): level to half-widths, eV/atom; infinite ones are left out.
    """
    ax = new_axes(4.6, 3.4) if ax is None else ax
    data = {level: 1e3 * np.asarray(h, dtype=np.float64) for level, h in sorted(half_widths.items())}
    data = {level: h[np.isfinite(h) & (h > 0)] for level, h in data.items()}
    data = {level: h for level, h in data.items() if h.size}
    n = max((h.size for h in data.values()), default=0)
    if data:
        everything = np.concatenate(list(data.values()))
        bins = np.geomspace(everything.min() / 1.02, everything.max() * 1.02, 60)
        for i, (level, h) in enumerate(data.items()):
            colour = LEVEL_COLOURS[i % len(LEVEL_COLOURS)]
            label = f"{100 * level:g} %  (median {np.median(h):.3g})"
            ax.hist(
                h,
                bins=bins.tolist(),
                weights=np.full(h.size, 100.0 / h.size),
                histtype="stepfilled",
                color=colour,
                alpha=0.18,
            )
            ax.hist(
                h,
                bins=bins.tolist(),
                weights=np.full(h.size, 100.0 / h.size),
                histtype="step",
                color=colour,
                lw=1.4,
                label=label,
            )
        ax.set_xscale("log")
        ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
        plain_log(ax, "x")
        legend(ax, loc="upper left", ncols=2, framealpha=0.0)
    return finish(
        ax, _title("Sharpness", split, n), "half-width of the interval (meV/atom)", "share of rows (%)"
    )


def plot_residuals(residual: ArrayLike, *, split: str = "", ax: Axes | None = None) -> Axes:
    """Plot the distribution of residuals; what lies outside the central 99 % is counted in the last bars.

    ``residual`` (n,): E_DFT - E_model, eV/atom.
    """
    ax = new_axes(4.6, 3.4) if ax is None else ax
    r = 1e3 * np.asarray(residual, dtype=np.float64)
    _residual_bars(ax, r, n_bins=61)
    ax.set_ylim(0, 1.15 * ax.get_ylim()[1])  # room for the legend
    median = float(np.median(r))
    ax.axvline(median, color=ORANGE, lw=1.4, label=f"median {median:+.3g} meV/atom")
    ax.axvline(0.0, color=GREY, lw=1, ls=(0, (4, 3)))
    legend(ax, loc="upper left")
    return finish(
        ax, _title("Residuals", split, r.size), rf"{_DFT} − $E_\mathrm{{model}}$ (meV/atom)", "rows"
    )


def _residual_bars(ax: Axes, residual: NDArray[np.float64], n_bins: int) -> None:
    limit = max(float(np.quantile(np.abs(residual), 0.99)), 1e-9)
    ax.hist(
        np.clip(residual, -limit, limit), bins=np.linspace(-limit, limit, n_bins).tolist(), color=SKY, lw=0
    )


def _title(what: str, split: str, n: int | None) -> str:
    tail = ", ".join(part for part in (split, f"n = {n:,}" if n is not None else "") if part)
    return f"{what}: {tail}" if tail else what
