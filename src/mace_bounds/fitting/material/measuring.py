"""What a head of one chemistry does on frames that took no part, family by family."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds import detailed_table
from mace_bounds.calibration import CalibratedHead, raw_coefficients
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.features import FeatureRows
from mace_bounds.fitting.material.derivatives import FORCES
from mace_bounds.fitting.measured import coverage, labelled, overall

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.fitting.material.regression import MaterialRows

LEVEL = 0.95


def measure(
    head: CalibratedHead, found: FeatureRows, rows: MaterialRows, test: NDArray[np.bool_]
) -> tuple[pd.DataFrame, list[dict[str, float]]]:
    """Errors, coverage at 95 % and share within the envelope for the frames of a mask (n,).

    Returns
    -------
    families : DataFrame
        A line for each family and one for all, ``n_fit``, ``n_test``, ``mae_mev_per_atom``, ``mae_forces_ev_per_a``,
        ``covered``, ``median_width_mev_per_atom``, ``in_envelope``; None where there is nothing to measure.
    coverage : list of dict
        Over all of them, at every level (:func:`mace_bounds.fitting.overall`).
    """
    import pandas as pd

    table = detailed_table(found.take(test), head, head.levels[-1], None)
    measured = replace(labelled(table, head.levels, suspect=True), name="test")
    low, high = measured.bounds_at(LEVEL if LEVEL in head.levels else head.levels[-1])
    lowest, highest = (measured.column(f"support_{side}") for side in ("lower", "upper"))
    error = measured.error
    frames = {
        "mae_mev_per_atom": MEV_PER_EV * np.abs(measured.deviation),
        "covered": ((low <= error) & (error <= high)).astype(float),
        "in_envelope": ((lowest <= error) & (error <= highest)).astype(float),
    }
    width, forces = MEV_PER_EV * (high - low), _force_errors(head, rows, test)
    lines: list[dict[str, Any]] = []
    for family in [*np.unique(rows.families), None]:
        of = np.ones(len(test), dtype=bool) if family is None else rows.families == family
        own = of[test]
        of_forces = np.concatenate([e for name, e in forces if family in (None, name)] or [np.empty(0)])
        lines.append(
            {
                "family": "all" if family is None else str(family),
                "n_fit": int((of & ~test).sum()),
                "n_test": int(own.sum()),
                **{name: float(values[own].mean()) if own.any() else None for name, values in frames.items()},
                "median_width_mev_per_atom": float(np.median(width[own])) if own.any() else None,
                "mae_forces_ev_per_a": float(of_forces.mean()) if len(of_forces) else None,
            }
        )
    return pd.DataFrame(lines).astype(object).where(lambda x: x.notna(), None), overall(
        coverage(measured), "test"
    )


def _force_errors(
    head: CalibratedHead, rows: MaterialRows, frames: NDArray[np.bool_]
) -> list[tuple[str, NDArray[np.float64]]]:
    """Family and absolute errors of the components of forces, eV/Å, of the frames of a mask that have derivatives."""
    weights = raw_coefficients(head)[0][: len(head.identity.columns)]
    return [
        (str(rows.families[part.frame]), np.abs(part.y - part.x @ weights))
        for part in rows.shards.rows()
        if part.kind == FORCES and frames[part.frame]
    ]
