"""Rows of features and a head to the bounds table: one row per structure, whether it could be scored or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.geometry import geometry_columns
from mace_bounds.calibration import CalibratedHead, Intervals, energy_over_fixed, residual_ev_per_atom
from mace_bounds.columns import BOUNDS, GRADES, MEASURED, MEV_PER_EV, level_columns, names
from mace_bounds.features import FeatureRows, Refused, failed_rows, refused_rows
from mace_bounds.flags import flag_names
from mace_bounds.levels import ONE_SIGMA, Levels
from mace_bounds.structures import Record, compositions_in, suspect_label
from mace_bounds.tables import frame
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    import pandas as pd

    Values = dict[str, NDArray[np.generic]]

IN_TRAINING = "in_training"
SUSPECT = "suspect_label"
REFUSED_LABEL = "label_refused"
_UNLIKE = {"extrapolates", "isolated_atoms", "close_atoms", "vacuum", "unusual_energy"}
"""A structure with one of these is nothing like those of its composition that the model was trained on."""
_SHORT = 12
"""Hex digits of a digest in a table; the whole digest is in the footer of a Parquet file and in the head's card."""

_OF_THE_RECORD = {
    "id": "id",
    "formula": "formula",
    "n_atoms": "n_atoms",
    "energy_model_ev": "energy_model_ev",
    "run_type": "run_type",
    "source": "source",
    "energy_dft_ev": "energy_ev",
    "label_kind": "label_kind",
    "label_reason": "label_reason",
    "reason": "reason",
}
"""Columns that rows of features have, with their names there."""


def provenance(head: CalibratedHead, level: float) -> dict[str, Any]:
    """Values of :data:`mace_bounds.columns.PROVENANCE` for tables that a head gives at a level."""
    return {
        "model": head.identity.model,
        "features_of": head.identity.backbone,
        "model_digest": head.identity.model_digest[:_SHORT],
        "head": head.name,
        "head_digest": head.digest[:_SHORT],
        "level": level,
        "quantity": head.identity.quantity,
        "version": __version__,
    }


def bounds_table(
    rows: FeatureRows,
    head: CalibratedHead,
    level: float = 0.95,
    *,
    training_keys: NDArray[np.uint64] | None = None,
) -> pd.DataFrame:
    """Bounds for every row.

    Parameters
    ----------
    rows : FeatureRows
        Rows with features, and rows with a reason instead.
    head : CalibratedHead
        A head that fits the features.
    level : float
        Nominal coverage of the interval, one of ``head.levels``.
    training_keys : ndarray of uint64, optional
        Compositions that the model's training has seen, where known; those that the head keeps by default.

    Returns
    -------
    DataFrame
        Columns :data:`mace_bounds.columns.BOUNDS`, in the order of the rows. The energies bracket E_DFT:
        ``energy_lower_ev <= E_DFT <= energy_upper_ev`` at the ``level``.

    Raises
    ------
    HeadError
        If the head is not calibrated for the level.
    """
    return _table(rows, head, level, training_keys, detailed=False)


def unscored_table(records: Sequence[Record]) -> pd.DataFrame:
    """:func:`bounds_table` of records that all have a reason, for which neither model nor head is needed."""
    rows = failed_rows(records)
    columns: dict[str, Any] = {name: np.full(len(records), np.nan) for name in names([*BOUNDS])}
    columns |= {name: rows.table[there].to_numpy() for name, there in _OF_THE_RECORD.items()}
    columns["flags"] = [";".join(flags) for flags in rows.table["flags"]]
    return frame(columns)


def detailed_table(
    rows: FeatureRows, head: CalibratedHead, level: float, training_keys: NDArray[np.uint64] | None
) -> pd.DataFrame:
    """:func:`bounds_table` with what coverage is measured from: :data:`mace_bounds.columns.MEASURED`, all levels."""
    return _table(rows, head, level, training_keys, detailed=True)


def one_row(
    rows: FeatureRows, head: CalibratedHead, level: float, training_keys: NDArray[np.uint64] | None
) -> tuple[dict[str, Any], Intervals]:
    """The row of :func:`bounds_table` of one structure that has features, as plain values, and what it was made from.

    A table takes as long to build as the numbers in it to compute, which matters in molecular dynamics.
    """
    columns, intervals = _columns(rows, head, level, training_keys, detailed=False)
    return {column.name: _plain(columns[column.name][0], column.dtype) for column in BOUNDS}, intervals


def _plain(value: Any, dtype: str) -> Any:
    """A value as a row of a table has it: None where it is empty."""
    if value is None or value == "" or value != value:
        return None
    return {"text": str, "float": float, "integer": int, "boolean": bool}[dtype](value)


def _table(
    rows: FeatureRows,
    head: CalibratedHead,
    level: float,
    training_keys: NDArray[np.uint64] | None,
    *,
    detailed: bool,
) -> pd.DataFrame:
    columns, _ = _columns(rows, head, level, training_keys, detailed=detailed)
    chosen = [*BOUNDS, *MEASURED, *level_columns(head.levels)] if detailed else [*BOUNDS]
    return frame({name: columns[name] for name in names(chosen)})


def _columns(
    rows: FeatureRows,
    head: CalibratedHead,
    level: float,
    training_keys: NDArray[np.uint64] | None,
    *,
    detailed: bool,
) -> tuple[dict[str, Any], Intervals]:
    """Columns of a table, and the intervals of the rows that have features."""
    if training_keys is None:
        training_keys = head.training_compositions
    good = ~rows.failed
    scored = rows if good.all() else rows.scored()
    needed = None if detailed else Levels.of([level, *({ONE_SIGMA} if ONE_SIGMA in head.levels else ())])
    intervals = head.intervals(scored, needed)
    error = residual_ev_per_atom(scored)
    values = _bounds(scored, intervals, level, error) | _novelty(intervals)
    values |= {
        "chemistry": intervals.cells.astype(object),
        "seen_in": head.roles(scored.column("formula").tolist(), training_keys).astype(object),
    }
    columns: dict[str, Any] = {name: rows.column(there) for name, there in _OF_THE_RECORD.items()}
    if detailed:
        values |= _measured(scored, head, intervals, error)
        columns["chemical_system"] = rows.table["chemical_system"].to_numpy()
        columns |= geometry_columns(rows.table)
    columns |= {name: _filled(column, good) for name, column in values.items()}
    # what the network saw of a composition says nothing of a readout that was refitted to it
    trained_on = training_keys if head.material is None else None
    columns["flags"] = _flags(rows, good, _raised(scored, head, intervals, level, error), trained_on)
    columns |= {name: np.full(len(good), value) for name, value in provenance(head, level).items()}
    return columns, intervals


def refuse_labels(table: pd.DataFrame, refused: Refused) -> pd.DataFrame:
    """A bounds table without the labels that are refused (:func:`mace_bounds.features.refused_labels`)."""
    if not refused:
        return table
    sentences = refused_rows(table, refused, "energy_dft_ev")
    gone = np.array([sentence is not None for sentence in sentences], dtype=bool)
    columns: dict[str, Any] = {name: table[name].to_numpy() for name in table.columns}
    columns["label_reason"] = np.where(gone, sentences, columns["label_reason"])
    columns["inside"] = [None if there else value for value, there in zip(table["inside"], gone, strict=True)]
    for name in ("energy_dft_ev", "error_mev_per_atom"):
        columns[name] = np.where(gone, np.nan, columns[name])
    columns["flags"] = [
        ";".join([*(f for f in flag_names(flags) if f != SUSPECT), REFUSED_LABEL]) if there else flags
        for flags, there in zip(table["flags"], gone, strict=True)
    ]
    return frame(columns)


def _bounds(scored: FeatureRows, intervals: Intervals, level: float, error: NDArray[np.float64]) -> Values:
    """Columns of the interval at one level, for rows that have features."""
    n_atoms = scored.numbers("n_atoms")
    model = scored.numbers("energy_model_ev")
    lower, upper = intervals.at(level)
    std = np.full(len(model), np.nan)
    if ONE_SIGMA in intervals.levels:
        std = np.subtract(*intervals.at(ONE_SIGMA)[::-1]) / 2
    inside = ((lower <= error) & (error <= upper)).astype(object)
    inside[np.isnan(error)] = None
    return {
        "expected_error_mev_per_atom": intervals.centre * MEV_PER_EV,
        "energy_expected_ev": model + intervals.centre * n_atoms,
        "std_mev_per_atom": std * MEV_PER_EV,
        "lower_mev_per_atom": lower * MEV_PER_EV,
        "upper_mev_per_atom": upper * MEV_PER_EV,
        "energy_lower_ev": model + lower * n_atoms,
        "energy_upper_ev": model + upper * n_atoms,
        "support_lower_mev_per_atom": intervals.pops.support_lower * MEV_PER_EV,
        "support_upper_mev_per_atom": intervals.pops.support_upper * MEV_PER_EV,
        "extrapolation_grade": intervals.extrapolation_grade,
        "error_mev_per_atom": error * MEV_PER_EV,
        "inside": inside,
    }


def _novelty(intervals: Intervals) -> Values:
    """Grades, and the atom of largest local grade; empty where the head or the rows do not have them."""
    novelty = intervals.novelty
    if novelty is None:
        return {name: np.full(len(intervals.sigma), np.nan) for name in (*GRADES, "novelty", "novel_atom")}
    atom = np.where(novelty.atom >= 0, novelty.atom.astype(float), np.nan)
    grades = dict(zip(GRADES, novelty.grades.T, strict=True))
    return {**grades, "novelty": novelty.novelty, "novel_atom": atom}


def _measured(
    scored: FeatureRows, head: CalibratedHead, intervals: Intervals, error: NDArray[np.float64]
) -> Values:
    """Scale, the bounds of every level, and the level above which a row's intervals hold its error."""
    bounds = np.stack([intervals.lower, intervals.upper], axis=2).reshape(
        len(scored.table), 2 * len(head.levels)
    )
    by_level = zip(names(level_columns(head.levels)), bounds.T, strict=True)
    return {
        "sigma_mev_per_atom": intervals.sigma * MEV_PER_EV,
        "covered_above_level": head.min_covering_level(intervals, error),
        **{name: column * MEV_PER_EV for name, column in by_level},
    }


def _filled(column: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[Any]:
    """A column of the good rows among all rows; the others are empty."""
    if good.all():
        return column
    out = np.full(len(good), np.nan if column.dtype.kind == "f" else None, dtype=column.dtype)
    out[good] = column
    return out


def _raised(
    scored: FeatureRows,
    head: CalibratedHead,
    intervals: Intervals,
    level: float,
    error: NDArray[np.float64],
) -> dict[str, NDArray[np.bool_]]:
    """Flags that come from the head, shape (n,) each, for rows that have features."""
    novelty = intervals.novelty
    lower, upper = intervals.at(level)
    lowest, highest = head.energy_range_ev_per_atom
    energy = energy_over_fixed(scored)
    return {
        "refit_energy": np.full(len(error), head.material is not None),
        "unknown_family": intervals.unknown_family,
        "unseen_element": intervals.unseen,
        "extrapolates": intervals.extrapolates,
        "unseen_pair": np.zeros(len(error), dtype=bool) if novelty is None else novelty.unseen_pair,
        "unusual_energy": (energy < lowest) | (energy > highest),
        "no_useful_bound": upper - lower > highest - lowest,
        SUSPECT: np.array([not np.isnan(e) and suspect_label(e) for e in error], dtype=bool),
    }


def _flags(
    rows: FeatureRows,
    good: NDArray[np.bool_],
    raised: dict[str, NDArray[np.bool_]],
    training_keys: NDArray[np.uint64] | None,
) -> list[str]:
    """The record's own flags, and what the head adds to them, joined by ``;``."""
    flags = [[str(flag) for flag in given] for given in rows.column("flags")]
    for k, place in enumerate(np.flatnonzero(good)):
        flags[place] += [flag for flag, mask in raised.items() if mask[k]]
    for place in np.flatnonzero(compositions_in(rows.column("formula").tolist(), training_keys) & good):
        if _UNLIKE.isdisjoint(flags[place]):
            flags[place].append(IN_TRAINING)
    for row, reason in zip(flags, rows.column("label_reason"), strict=True):
        if isinstance(reason, str):
            row.append(REFUSED_LABEL)
    return [";".join(row) for row in flags]
