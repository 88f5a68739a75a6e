"""Bounds for energies that a model published: coverage and sharpness over repeated folds.

python scripts/wbm_published.py wbm.extxyz.gz wbm_mace_energies.csv out.json --energy-column mace_mpa_0_relaxed_energy_ev

Features come from ``mini``; the published energies are after relaxation by the published model. Every repeat is five
folds of compositions: each row is bounded by a head that has not seen its composition in fit, scale or calibration. A
split is one fold of one repeat. The constant width that it is held against is the conformal quantile of |r| of the
same training rows, around the published energy: nothing is fitted, so it may use them all.

--picture FILE draws what the README shows: measured against nominal coverage over all repeats, and error against
half-width of the 95 % intervals of the first repeat.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mace_bounds import FitConfig, extract, load_model, read
from mace_bounds.calibration import conformal_quantile
from mace_bounds.fitting import (
    CURVE_LEVELS,
    check_predictions,
    cross_fitted,
    labelled,
    read_predictions,
    with_predictions,
)
from mace_bounds.metrics import interval_score

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a929b"


def splits(rows, manifest, config, levels, drawn):
    """Per fold: coverage and interval score of the head and of a constant width, at each level.

    What the picture needs of this repeat goes to the list ``drawn``.
    """
    made = cross_fitted(rows, manifest, config)
    table = made.detailed_table(rows, made.full.levels[-1])
    folds = made.folds(rows)
    everything = labelled(table, made.full.levels, suspect=True)
    assert len(everything) == len(table) == len(folds)
    low, high = everything.bounds()
    error = everything.error
    at = made.full.levels.index(0.95)
    drawn.append(
        {
            "least": everything.table["covered_above_level"].to_numpy(dtype=float),
            "half": (high - low)[:, at] / 2,
            "off": np.abs(error - (high + low)[:, at] / 2),
            "constant": conformal_quantile(np.abs(error), 0.95),
        }
    )
    for fold in np.unique(folds):
        held = folds == fold
        for level in levels:
            j = made.full.levels.index(level)
            half = conformal_quantile(np.abs(error[~held]), level)
            constant = np.full(held.sum(), half)
            a, b, e = low[held, j], high[held, j], error[held]
            yield {
                "seed": config.seed, "fold": int(fold), "level": level, "n": int(held.sum()),
                "scale": made.heads[fold].scale.kind, "centre": made.heads[fold].centre.describe(),
                "coverage": float(((a <= e) & (e <= b)).mean()),
                "coverage_constant": float((np.abs(e) <= half).mean()),
                "score_mev": float(interval_score(e, a, b, level).mean() * 1e3),
                "score_constant_mev": float(interval_score(e, -constant, constant, level).mean() * 1e3),
                "median_width_mev": float(np.median(b - a) * 1e3), "width_constant_mev": float(2e3 * half),
            }  # fmt: skip


def summary(records, column, level):
    """What the README says of one model and level."""
    picked = [r for r in records if r["column"] == column and r["level"] == level]
    n = np.array([r["n"] for r in picked], dtype=float)
    score, constant = (np.array([r[k] for r in picked]) for k in ("score_mev", "score_constant_mev"))
    coverage = np.array([r["coverage"] for r in picked])
    return {
        "column": column, "level": level, "n_splits": len(picked),
        "coverage": float(coverage.mean()), "coverage_std": float(coverage.std(ddof=1)),
        "coverage_constant": float(np.mean([r["coverage_constant"] for r in picked])),
        "score_mev": float(np.average(score, weights=n)), "score_constant_mev": float(np.average(constant, weights=n)),
        "ratio": float(np.sum(score * n) / np.sum(constant * n)), "mean_of_ratios": float(np.mean(score / constant)),
        "median_width_mev": float(np.mean([r["median_width_mev"] for r in picked])),
        "width_constant_mev": float(np.mean([r["width_constant_mev"] for r in picked])),
    }  # fmt: skip


def picture(path, drawn):
    """Draw calibration of every column, and error against width of the first repeat, one panel for each column."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    names = {c: c.removesuffix("_relaxed_energy_ev").replace("_", "-").upper() for c in drawn}
    figure, axes = plt.subplots(
        1, 1 + len(drawn), figsize=(4.1 * (1 + len(drawn)), 3.9), layout="constrained"
    )
    axes[0].plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)))
    for colour, (column, repeats) in zip((BLUE, ORANGE), drawn.items(), strict=False):
        covered = np.array([[(r["least"] < x - 1e-9).mean() for x in CURVE_LEVELS] for r in repeats])
        axes[0].fill_between(CURVE_LEVELS, covered.min(0), covered.max(0), color=colour, alpha=0.2, lw=0)
        axes[0].plot(CURVE_LEVELS, covered.mean(0), color=colour, lw=1.8, label=names[column])
    axes[0].set(
        xlabel="nominal coverage", ylabel="measured coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
    axes[0].set_title(f"Coverage, {len(repeats)} repeats of 5 folds", loc="left", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9)
    for ax, (column, repeats) in zip(axes[1:], drawn.items(), strict=True):
        half, off = 1e3 * repeats[0]["half"], 1e3 * np.maximum(repeats[0]["off"], 3e-4)
        inside = off <= half
        ends = np.array([0.9 * half.min(), 1.1 * half.max()])
        ax.plot(half[inside], off[inside], "o", ms=2.6, color=BLUE, alpha=0.5, mew=0)
        ax.plot(half[~inside], off[~inside], "o", ms=3.2, color=ORANGE, mew=0)
        ax.plot(ends, ends, color=BLUE, lw=1.2)
        constant = 1e3 * repeats[0]["constant"]
        ax.axhline(constant, color=GREY, lw=1, ls=(0, (4, 3)))
        ax.annotate(
            "one constant width",
            (ends[1], constant),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#5b6776",
        )
        ax.set(
            xscale="log",
            yscale="log",
            xlim=ends,
            xlabel="half-width of the 95 % bounds, meV/atom",
            ylabel="|E_DFT − E_published − centre|, meV/atom",
        )
        ax.set_title(
            f"{names[column]}: {100 * inside.mean():.1f} % of {len(half)} inside", loc="left", fontsize=10
        )
    for axis in (ax.xaxis for ax in axes[1:]):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("structures", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--energy-column", action="append", required=True)
    parser.add_argument("--repeats", type=int, default=4, help="five splits each")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = extract(read(args.structures), Path(folder) / "store", load_model("mini"))
        rows, manifest = store.read(), store.manifest
    records, drawn = [], {column: [] for column in args.energy_column}
    for column in args.energy_column:
        published = with_predictions(rows, read_predictions(args.predictions, column)).labelled()
        check_predictions(published, column)
        for repeat in range(args.repeats):
            config = replace(FitConfig(), seed=100 * repeat)
            records += [
                {"column": column, **r}
                for r in splits(published, manifest, config, (0.9, 0.95), drawn[column])
            ]
            found = [summary(records, column, level) for level in (0.9, 0.95)]
            print(json.dumps(found), flush=True)
            said = [
                summary(records, c, x)
                for c in dict.fromkeys(r["column"] for r in records)
                for x in (0.9, 0.95)
            ]
            args.out.write_text(json.dumps({"summary": said, "splits": records}, indent=1) + "\n")
    if args.picture:
        picture(args.picture, drawn)


if __name__ == "__main__":
    main()
