"""Every way to put bounds on MACE energies, on the same features and the same splits, side by side."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.backbones import training_compositions
from mace_bounds.benchmark import folder
from mace_bounds.benchmark.drawing import write_plots
from mace_bounds.benchmark.groups import distinct_structures
from mace_bounds.benchmark.page import write_page
from mace_bounds.benchmark.splits import make_splits
from mace_bounds.benchmark.summary import flag_table, group_table, method_table, split_table
from mace_bounds.calibration import FitConfig, usable_rows
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureStore
from mace_bounds.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.benchmark.splits import Split
    from mace_bounds.features import FeatureRows, Manifest


@dataclass(frozen=True, eq=False)
class CompareReport:
    """What a comparison found; every table is also a CSV file in ``folder``.

    Attributes
    ----------
    table : DataFrame
        One row per kind of split and method (``compare.csv``).
    groups : DataFrame
        Coverage and interval score by source, size, chemistry, element and flag (``groups.csv``).
    flags : DataFrame
        What the product's flags catch (``flags.csv``).
    splits : DataFrame
        One row per split and method (``splits.csv``).
    seconds : DataFrame
        Processor time of fits and predictions (``seconds.csv``): the only numbers that differ between two runs.
    left_out : dict of str to int
        Rows of the store that took no part, by reason.
    folder : Path
    """

    table: pd.DataFrame
    groups: pd.DataFrame
    flags: pd.DataFrame
    splits: pd.DataFrame
    seconds: pd.DataFrame
    left_out: dict[str, int]
    folder: Path


def compare(
    store: str | Path | FeatureStore,
    out: str | Path,
    config: FitConfig | None = None,
    *,
    model: str | Path | None = None,
    repeats: int = 10,
    loco: int = 0,
    drop_subsystems: bool = False,
    methods: Sequence[str] | None = None,
    include_training: bool = False,
    test_keys: NDArray[np.uint64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CompareReport:
    """Measure the product and everything that a user might take instead on the same splits.

    Every method gets the same rows to fit, to calibrate and to test on, and the same conformal layer (split
    conformal, symmetric); methods that only know widths share the product's centre. ``mace_bounds`` is the
    product as ``config`` makes it, with its own conformal layer, which may use fit and calibration rows for both
    (cross-conformal); where that differs, ``mace_bounds_split`` is the product under the common layer.

    Parameters
    ----------
    store : path or FeatureStore
        A finished feature store with labels.
    out : path
        Folder of tables, plots and page. Killed and started again, a comparison goes on after the last
        finished split and ends with the same bytes but for the seconds.
    config : FitConfig, optional
        Settings of the product; its shares, seed and ``split_by`` make the splits of all methods.
    model : str or path, optional
        Where the compositions of the model's own training are looked up; the store's model by default.
    repeats : int
        Composition splits, of the seeds ``config.seed`` onwards.
    loco : int
        Folds of whole chemical systems, which are absent from fit and calibration; 0 for none.
    drop_subsystems : bool
        Leave their subsystems (Li and Li-O beside Fe-Li-O) out as well.
    methods : sequence of str, optional
        Names to compare; all by default. ``"constant"`` always takes part.
    include_training : bool
        Use rows of compositions from the model's own training as well.
    test_keys : ndarray of uint64, optional
        Compositions (:func:`mace_bounds.structures.composition_keys`) to which the test rows are restricted.
    progress : callable, optional
        Called with (splits done, splits in all).

    Returns
    -------
    CompareReport

    Raises
    ------
    HeadError
        If a method is unknown, or there are too few usable rows.
    StoreError
        If the store is missing or unfinished, or ``out`` holds something else.
    """
    from mace_bounds.benchmark.split_run import chosen_methods, run_split  # here, as baselines import much

    config = config or FitConfig()
    _check(config, repeats, loco)
    names = chosen_methods(methods, config)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    manifest, everything = store.manifest, store.read()
    seen = training_compositions(model if model is not None else manifest.model, manifest.model_digest)
    rows, left_out = usable_rows(everything, None if include_training else seen)
    splits = make_splits(
        rows.table, config, repeats=repeats, loco=loco, drop_subsystems=drop_subsystems, test_keys=test_keys
    )
    settings = _settings(manifest, config, names, rows, drop_subsystems, include_training, test_keys)
    out = Path(out)
    folder.open_comparison(out, settings)
    records = []
    for done, split in enumerate(splits):
        if progress is not None:
            progress(done, len(splits))
        record = folder.read_split(out, split.name)
        if record is None:
            record, seconds = run_split(rows, manifest, split, names)
            folder.write_split(out, split.name, record, seconds)
        records.append(record)
    report = _report(out, records, splits, rows, config, left_out)
    full = {"command": "compare", "settings": settings, "left_out": left_out, "n_rows": len(rows.table)}
    tables = {
        folder.TABLE: report.table,
        folder.GROUPS: report.groups,
        folder.FLAGS: report.flags,
        folder.SPLIT_ROWS: report.splits,
        folder.SECONDS: report.seconds,
    }
    folder.write_tables(out, tables, full)
    plots = write_plots(
        out / folder.PLOTS, report.table, report.groups, report.flags, report.splits, config.levels
    )
    write_page(out / folder.PAGE, full, report, plots)
    if progress is not None:
        progress(len(splits), len(splits))
    return report


def _check(config: FitConfig, repeats: int, loco: int) -> None:
    if repeats < 0 or loco < 0 or repeats + loco == 0 or loco == 1:
        raise HeadError(
            f"expected at least one split, and no or at least two folds of chemical systems, got {repeats} and {loco}; "
            "ask for more."
        )
    if not (config.fit_share > 0 and config.calibration_share > 0) or (
        config.fit_share + config.calibration_share >= 1
    ):
        raise HeadError(
            f"expected shares that leave rows to test on, got {config.fit_share:g} + {config.calibration_share:g}; "
            "lower one."
        )


def _settings(
    manifest: Manifest,
    config: FitConfig,
    names: Sequence[str],
    rows: FeatureRows,
    drop_subsystems: bool,
    include_training: bool,
    test_keys: NDArray[np.uint64] | None,
) -> dict[str, Any]:
    """What must agree before a comparison may go on; the number of splits may change."""
    keys = None if test_keys is None else hashlib.sha256(np.sort(test_keys).tobytes()).hexdigest()
    return {
        "model": {"name": manifest.model, "digest": manifest.model_digest, "head": manifest.model_head},
        "store": {"ids_sha256": manifest.ids_sha256, "kind": manifest.kind, "usable_rows": len(rows.table)},
        "fit": {**asdict(config), "levels": list(config.levels)},
        "methods": list(names),
        "drop_subsystems": drop_subsystems,
        "include_training": include_training,
        "test_keys_sha256": keys,
        "versions": {name: versions()[name] for name in ("mace-bounds", "numpy")},
    }


def _report(
    out: Path,
    records: list[dict[str, Any]],
    splits: list[Split],
    rows: FeatureRows,
    config: FitConfig,
    left_out: dict[str, int],
) -> CompareReport:
    import pandas as pd

    per_split = split_table(records)
    groups = group_table(records, distinct_structures(splits, rows.table), config.levels)
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
        folder=out,
    )
