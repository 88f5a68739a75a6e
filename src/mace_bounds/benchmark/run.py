"""Every way to put bounds on a model's energies, on the same features and the same splits, side by side."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds._io import locked
from mace_bounds.backbones import training_compositions
from mace_bounds.benchmark import folder
from mace_bounds.benchmark.config import CompareConfig
from mace_bounds.benchmark.drawing import write_plots
from mace_bounds.benchmark.folder import CompareReport
from mace_bounds.benchmark.methods import chosen_methods, prepare, run_method
from mace_bounds.benchmark.metrics import (
    calibrated,
    flag_table,
    group_table,
    measure,
    method_table,
    split_table,
    tally,
)
from mace_bounds.benchmark.splits import distinct_structures, make_splits, row_groups
from mace_bounds.calibration import TrainedRows, residual_ev_per_atom, usable_rows
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureStore, checked_labels, label_summary
from mace_bounds.fitting import read_predictions, with_predictions
from mace_bounds.threads import one_blas_thread
from mace_bounds.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mace_bounds.backbones import Backbone
    from mace_bounds.benchmark.methods import Outcome, SplitData
    from mace_bounds.benchmark.splits import Split
    from mace_bounds.calibration import Intervals
    from mace_bounds.features import FeatureRows, Manifest
    from mace_bounds.metrics import Membership


def compare(
    store: str | Path | FeatureStore,
    out: str | Path,
    config: CompareConfig = CompareConfig(),
    *,
    model: str | Path | Backbone | None = None,
    test_keys: NDArray[np.uint64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CompareReport:
    """Measure the product and everything that a user might take instead on the same splits.

    Every method gets the same rows to fit, to calibrate and to test on, and the same conformal layer (split
    conformal, symmetric); methods that only know widths share the product's centre. ``mace_bounds`` is the
    product as ``config.fit`` makes it, with its own conformal layer, which may use fit and calibration rows for both
    (cross-conformal); where that differs, ``mace_bounds_split`` is the product under the common layer.

    Parameters
    ----------
    store : path or FeatureStore
        A finished feature store with labels.
    out : path
        Folder of tables, plots and page. Killed and started again, a comparison goes on after the last
        finished split. One run at a time.
    config : CompareConfig, optional
        Splits, methods and the settings of the product.
    model : str, path or Backbone, optional
        Where the compositions of the model's own training are looked up; the store's model by default.
    test_keys : ndarray of uint64, optional
        Compositions (:func:`mace_bounds.structures.composition_keys`) to which the test rows are restricted.
    progress : callable, optional
        Called with (splits done, splits in all).

    Returns
    -------
    CompareReport

    Raises
    ------
    LabelError
        If the labels are the model's own energies, or another quantity than total energies.
    HeadError
        If a method is unknown, or there are too few usable rows.
    StoreError
        If the store is missing or unfinished, or ``out`` holds something else or is being written by another run.
    """
    out = Path(out)
    names = chosen_methods(config.methods, config.fit, others=config.predictions is not None)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    manifest, everything = store.manifest, checked_labels(store.read())
    training_keys = training_compositions(
        model if model is not None else manifest.model, manifest.model_digest, config.fit.trained_on
    )
    left_keys = None if config.include_training else training_keys
    rows, left_out = usable_rows(everything, left_keys)
    trained = TrainedRows.of(everything, left_keys, config.fit)
    rows, others, missing = _other_energies(rows, config)
    left_out |= missing
    splits = make_splits(rows.table, config, test_keys)
    settings = _settings(manifest, config, names, rows, test_keys)
    folder.check_folder(out, settings)
    with locked(out):
        folder.open_comparison(out, settings)
        finished = []
        for done, split in enumerate(splits):
            if progress is not None:
                progress(done, len(splits))
            record = folder.read_split(out, split.name)
            if record is None:
                record, seconds = run_split(rows, manifest, split, names, others, trained)
                folder.write_split(out, split.name, record, seconds)
            finished.append(record)
        labels = label_summary(everything.scored().table)
        report = _report(out, finished, splits, rows, config, left_out, labels)
        full = {
            "command": "compare",
            "settings": settings,
            "left_out": left_out,
            "labels": labels,
            "n_rows": len(rows.table),
        }
        folder.write_tables(report, full)
        plots = write_plots(out / folder.PLOTS, report, config.fit.levels) if config.plots else []
        folder.write_page(report, full, plots)
    if progress is not None:
        progress(len(splits), len(splits))
    return report


@one_blas_thread
def run_split(
    rows: FeatureRows,
    manifest: Manifest,
    split: Split,
    names: Sequence[str],
    others: NDArray[np.float64] | None = None,
    trained: TrainedRows | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit and measure every method on one split.

    Returns ``record``: sizes, and of each method its metrics, its sums by group, or the reason why it could
    not be fitted; ``seconds``: of each method, what fitting and predicting took.
    """
    data = prepare(rows, manifest, split, others, trained)
    y = residual_ev_per_atom(data.test.rows)
    groups = row_groups(data.test.rows.table, _flags(data.intervals))
    methods: dict[str, Any] = {}
    seconds: dict[str, Any] = {}
    for name in names:
        try:
            outcome = run_method(name, data)
        except HeadError as error:
            methods[name] = {"metrics": {}, "groups": {}, "n_bytes": None, "reason": str(error)}
            continue
        methods[name] = _measured(outcome, data, y, groups, split.config.levels)
        seconds[name] = {"fit_seconds": outcome.fit_seconds, "predict_seconds": outcome.predict_seconds}
    record = {
        "split": split.name,
        "kind": split.kind,
        "n_fit": int(split.fit.sum()),
        "n_calibration": int(split.calibration.sum()),
        "n_test": int(split.test.sum()),
        "scale": data.head.scale.kind,
        "methods": methods,
    }
    return record, seconds


def _other_energies(
    rows: FeatureRows, config: CompareConfig
) -> tuple[FeatureRows, NDArray[np.float64] | None, dict[str, int]]:
    """Energies of other models less those of the store's, eV/atom (n, k), and the rows that have all of them."""
    if config.predictions is None or config.energy_columns is None:
        return rows, None, {}
    parts = [
        with_predictions(rows, read_predictions(config.predictions, column, config.id_column)).table[
            "energy_model_ev"
        ]
        for column in config.energy_columns
    ]
    energies = np.column_stack([part.to_numpy(dtype=np.float64) for part in parts])
    known = np.isfinite(energies).all(axis=1)
    if not known.any():
        raise HeadError("none of the structures has an energy of every model; check the ids of both.")
    rows = rows.take(known)
    own, n_atoms = (rows.table[name].to_numpy(dtype=np.float64) for name in ("energy_model_ev", "n_atoms"))
    missing = int((~known).sum())
    left = {"without an energy of every other model": missing} if missing else {}
    return rows, (energies[known] - own[:, None]) / n_atoms[:, None], left


def _flags(intervals: Intervals) -> dict[str, NDArray[np.bool_]]:
    """Flags of the bounds table that tell what is new to the fit."""
    flags = {"extrapolates": intervals.extrapolates, "unseen_element": intervals.unseen}
    if intervals.novelty is not None:
        flags["unseen_pair"] = intervals.novelty.unseen_pair
    return flags


def _measured(
    outcome: Outcome,
    data: SplitData,
    y: NDArray[np.float64],
    groups: Mapping[str, Membership],
    levels: Sequence[float],
) -> dict[str, Any]:
    bounds = calibrated(outcome, data)
    metrics, per_row = measure(y, outcome.test, bounds, levels)
    metrics["model_mae_mev_per_atom"] = float(np.mean(np.abs(y))) * MEV_PER_EV
    return {
        "metrics": metrics,
        "groups": tally(per_row, groups),
        "n_bytes": outcome.n_bytes,
        "reason": None,
    }


def _settings(
    manifest: Manifest,
    config: CompareConfig,
    names: Sequence[str],
    rows: FeatureRows,
    test_keys: NDArray[np.uint64] | None,
) -> dict[str, Any]:
    """What must agree before a comparison may go on; the number of splits may change."""
    keys = None if test_keys is None else hashlib.sha256(np.sort(test_keys).tobytes()).hexdigest()
    return {
        "model": {"name": manifest.model, "digest": manifest.model_digest, "head": manifest.model_head},
        "store": {"ids_sha256": manifest.ids_sha256, "kind": manifest.kind, "usable_rows": len(rows.table)},
        "fit": {**asdict(config.fit), "levels": list(config.fit.levels)},
        "methods": list(names),
        "energy_columns": list(config.energy_columns or ()),
        "drop_subsystems": config.drop_subsystems,
        "include_training": config.include_training,
        "test_keys_sha256": keys,
        "versions": {name: versions()[name] for name in ("mace-bounds", "numpy")},
    }


def _report(
    out: Path,
    finished: list[dict[str, Any]],
    splits: list[Split],
    rows: FeatureRows,
    config: CompareConfig,
    left_out: dict[str, int],
    labels: dict[str, Any],
) -> CompareReport:
    import pandas as pd

    per_split = split_table(finished)
    groups = group_table(finished, distinct_structures(splits, rows.table), config.fit.levels)
    spent = [
        {"split": split.name, "kind": split.kind, "method": method, **seconds}
        for split in splits
        for method, seconds in folder.read_seconds(out, split.name).items()
    ]
    seconds = pd.DataFrame(spent).groupby(["kind", "method"], sort=False)[["fit_seconds", "predict_seconds"]]
    summary = seconds.agg(["mean", "std"])
    summary.columns = ["_".join(name) for name in summary.columns]
    return CompareReport(
        table=method_table(per_split, groups),
        groups=groups,
        flags=flag_table(groups),
        splits=per_split,
        seconds=summary.reset_index(),
        left_out=left_out,
        labels=labels,
        folder=out,
    )
