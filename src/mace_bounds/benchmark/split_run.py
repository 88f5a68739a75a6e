"""One split of a comparison: every method fitted, calibrated alike, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.benchmark.groups import row_groups
from mace_bounds.benchmark.methods import chosen_methods, prepare, run_method
from mace_bounds.benchmark.metrics import MEV_PER_EV, calibrated, measure, tally
from mace_bounds.calibration import residual_ev_per_atom
from mace_bounds.errors import HeadError
from mace_bounds.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mace_bounds.benchmark.methods import Outcome, SplitData
    from mace_bounds.benchmark.splits import Split
    from mace_bounds.calibration import Intervals
    from mace_bounds.features import FeatureRows, Manifest
    from mace_bounds.metrics import Membership

__all__ = ["chosen_methods", "run_split"]


@one_blas_thread
def run_split(
    rows: FeatureRows, manifest: Manifest, split: Split, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit and measure every method on one split.

    Returns
    -------
    record : dict
        Sizes, and of each method its metrics, its sums by group, or the reason why it could not be fitted.
    seconds : dict
        Of each method, what fitting and predicting took.
    """
    data = prepare(rows, manifest, split)
    y = residual_ev_per_atom(data.test.rows)
    groups = row_groups(data.test.rows.table, _flags(data.said))
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


def _flags(said: Intervals) -> dict[str, NDArray[np.bool_]]:
    """Flags of the bounds table that tell what is new to the fit."""
    flags = {"extrapolates": said.extrapolates, "unseen_element": said.unseen}
    if said.novelty is not None:
        flags["unseen_pair"] = said.novelty.unseen_pair
    return flags


def _measured(
    outcome: Outcome,
    data: SplitData,
    y: NDArray[np.float64],
    groups: Mapping[str, Membership],
    levels: Sequence[float],
) -> dict[str, Any]:
    bounds = calibrated(outcome, data, levels)
    metrics, per_row = measure(y, outcome.test, bounds, levels)
    metrics["model_mae_mev_per_atom"] = float(np.mean(np.abs(y))) * MEV_PER_EV
    return {
        "metrics": metrics,
        "groups": tally(per_row, groups),
        "n_bytes": outcome.n_bytes,
        "reason": None,
    }
