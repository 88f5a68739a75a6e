"""Comparisons of the tiny store, and the splits that they are made on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mace_bounds import FeatureStore, FitConfig
from mace_bounds.benchmark import CompareConfig, compare
from mace_bounds.benchmark.splits import make_splits
from mace_bounds.calibration import fit_head

CONFIG = FitConfig(fit_share=0.4, calibration_share=0.3, conformal="cross", n_folds=2, ellipsoid=False)


QUICK = replace(CONFIG, conformal="split")


def run(store, model, out, fit=QUICK, *, test_keys=None, progress=None, plots=False, **settings):
    config = CompareConfig(fit=fit, include_training=True, plots=plots, **settings)
    return compare(store, out, config, model=model, test_keys=test_keys, progress=progress)


def splits_of(table, n_splits=0, system_folds=0, drop_subsystems=False):
    """Splits of a table with the settings of these tests."""
    return make_splits(
        table,
        CompareConfig(
            n_splits=n_splits, system_folds=system_folds, drop_subsystems=drop_subsystems, fit=CONFIG
        ),
    )


def split_rows(store, seed=0):
    """Rows of a composition split by the hashes that DESIGN and the docstrings promise, and what is known of them."""
    rows = FeatureStore(store).read()
    split = splits_of(rows.table, seed + 1)[seed]
    table = rows.table
    error = ((table["energy_ev"] - table["energy_model_ev"]) / table["n_atoms"]).to_numpy()
    return rows, split, error


def split_head(store, rows, split):
    """Fit the product with the conformal layer that every method gets."""
    config = replace(split.config, conformal="split")
    return fit_head(rows.take(split.fit | split.calibration), FeatureStore(store).manifest, config).head


def quantile_by_hand(scores, groups, level):
    """Smallest score such that so many of the rows, and of one more group of mean size, are not above it."""
    ordered = np.sort(scores)
    needed = level * (len(scores) + len(scores) / len(set(groups)))
    place = int(np.ceil(needed - 1e-9)) - 1
    return ordered[place] if place < len(ordered) else np.inf
