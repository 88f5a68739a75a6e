"""Bounds for energies that a model published: coverage and sharpness over repeated folds.

python scripts/wbm_published.py wbm.extxyz.gz wbm_mace_energies.csv out.json --energy-column mace_mpa_0_relaxed_energy_ev

Features come from ``mini``; the published energies are after relaxation by the published model. Every repeat is five
folds of compositions: each row is bounded by a head that has not seen its composition in fit, scale or calibration. A
split is one fold of one repeat. The constant width that it is held against is the conformal quantile of |r| of the
same training rows, around the published energy: nothing is fitted, so it may use them all.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mace_bounds import FitConfig, extract, load_model, read
from mace_bounds.audit._cross_fit import cross_fitted
from mace_bounds.audit._measured import labelled
from mace_bounds.audit._predictions import check_predictions, read_predictions, with_predictions
from mace_bounds.calibration import conformal_quantile, interval_score


def splits(rows, manifest, config, levels):
    """Per fold: coverage and interval score of the head and of a constant width, at each level."""
    made = cross_fitted(rows, manifest, config)
    table = made.detailed_table(rows, made.full.levels[-1], None)
    folds = made.folds(rows)
    everything = labelled(table, made.full.levels, suspect=True)
    assert len(everything) == len(table) == len(folds)
    low, high = everything.bounds()
    error = everything.error
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("structures", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--energy-column", action="append", required=True)
    parser.add_argument("--repeats", type=int, default=4, help="five splits each")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = extract(read(args.structures), Path(folder) / "store", load_model("mini"))
        rows, manifest = store.read(), store.manifest
    records = []
    for column in args.energy_column:
        published = with_predictions(rows, read_predictions(args.predictions, column)).labelled()
        check_predictions(published, column)
        for repeat in range(args.repeats):
            config = replace(FitConfig(), seed=100 * repeat)
            records += [{"column": column, **r} for r in splits(published, manifest, config, (0.9, 0.95))]
            found = [summary(records, column, level) for level in (0.9, 0.95)]
            print(json.dumps(found), flush=True)
            said = [
                summary(records, c, x)
                for c in dict.fromkeys(r["column"] for r in records)
                for x in (0.9, 0.95)
            ]
            args.out.write_text(json.dumps({"summary": said, "splits": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
