"""The bounds table (DESIGN 7): one row per structure, whether it could be scored or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mace_bounds.bounds.geometry import geometry_columns
from mace_bounds.calibration import GRADES, residual_ev_per_atom
from mace_bounds.structures import compositions_in, suspect_label

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import CalibratedHead, Intervals
    from mace_bounds.features import FeatureRows

MEV_PER_EV = 1000.0
ONE_SIGMA = 0.68
IN_TRAINING = "in_training"
MIN_COVERING_LEVEL = "covered_above_level"
COLUMNS = (
    "id",
    "formula",
    "n_atoms",
    "model",
    "energy_model_ev",
    "energy_refit_ev",
    "expected_error_mev_per_atom",
    "std_mev_per_atom",
    "lower_mev_per_atom",
    "upper_mev_per_atom",
    "energy_lower_ev",
    "energy_upper_ev",
    "level",
    "support_lower_mev_per_atom",
    "support_upper_mev_per_atom",
    "extrapolation_grade",
    *GRADES,
    "novelty",
    "novel_atom",
    "chemistry",
    "seen_in",
    "run_type",
    "source",
    "energy_dft_ev",
    "error_mev_per_atom",
    "inside",
    "flags",
    "reason",
)


def bounds_table(
    rows: FeatureRows,
    head: CalibratedHead,
    level: float = 0.95,
    *,
    training_keys: NDArray[np.uint64] | None = None,
    said: Intervals | None = None,
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
        Compositions that the model's training has seen, where known.
    said : Intervals, optional
        ``head.intervals(rows.scored())`` where it has been computed.

    Returns
    -------
    DataFrame
        In the order of the rows. ``lower`` and ``upper`` bracket E_DFT - E_MACE per atom, so
        ``energy_lower_ev <= E_DFT <= energy_upper_ev`` at the stated ``level``;
        ``expected_error`` is the refit head's mean of E_DFT - E_MACE; ``std`` is the half-width of the
        68 % interval; ``support`` is the POPS range, uncalibrated; ``error`` and ``inside`` are set where the
        row has a label; ``seen_in`` says what the composition was used for (:meth:`CalibratedHead.roles`);
        the flag ``in_training`` that the model's training has seen it, whatever the head did with it.
        ``gamma`` … ``gamma_atom_local`` are the grades of :data:`mace_bounds.calibration.GRADES`, ``novelty`` the
        largest in units of its threshold, ``novel_atom`` the site (from 0) of largest local grade: empty where the
        head was made without them, or without the features of single atoms. They say what is new, not what is wrong.
    """
    import pandas as pd

    good = rows.table["reason"].isna().to_numpy()
    scored = rows.scored()
    said = head.intervals(scored) if said is None else said
    table = pd.DataFrame(index=rows.table.index, columns=list(COLUMNS), dtype=object)
    for name in ("id", "formula", "n_atoms", "energy_model_ev", "run_type", "source", "reason"):
        table[name] = rows.table[name]
    table["energy_dft_ev"] = rows.table["energy_ev"]
    table["model"] = head.identity.model
    for name, values in _scored_columns(scored, said, head, level, training_keys).items():
        table[name] = table[name].astype(_dtype(values))
        table.loc[good, name] = values
    table["flags"] = [";".join(flags) for flags in _flags(rows, good, said, table, training_keys)]
    return table


def _dtype(values: NDArray[np.generic]) -> Literal["float64", "object"]:
    return "float64" if values.dtype.kind == "f" else "object"


def _scored_columns(
    rows: FeatureRows,
    said: Intervals,
    head: CalibratedHead,
    level: float,
    training_keys: NDArray[np.uint64] | None,
) -> dict[str, NDArray[np.generic]]:
    n_atoms = rows.table["n_atoms"].to_numpy(dtype=np.float64)
    mace = rows.table["energy_model_ev"].to_numpy(dtype=np.float64)
    lower, upper = said.at(level)
    std = (
        np.subtract(*said.at(ONE_SIGMA)[::-1]) / 2 if ONE_SIGMA in head.levels else np.full(len(mace), np.nan)
    )
    error = residual_ev_per_atom(rows)
    inside = ((lower <= error) & (error <= upper)).astype(object)
    inside[np.isnan(error)] = None
    return {
        "energy_refit_ev": mace + said.refit * n_atoms,
        "expected_error_mev_per_atom": said.refit * MEV_PER_EV,
        "std_mev_per_atom": std * MEV_PER_EV,
        "lower_mev_per_atom": lower * MEV_PER_EV,
        "upper_mev_per_atom": upper * MEV_PER_EV,
        "energy_lower_ev": mace + lower * n_atoms,
        "energy_upper_ev": mace + upper * n_atoms,
        "level": np.full(len(mace), level),
        "support_lower_mev_per_atom": said.pops.support_lower * MEV_PER_EV,
        "support_upper_mev_per_atom": said.pops.support_upper * MEV_PER_EV,
        "extrapolation_grade": said.extrapolation_grade,
        **_novelty_columns(said),
        "chemistry": said.cells.astype(object),
        "seen_in": head.roles(rows.table["formula"].tolist(), training_keys).astype(object),
        "error_mev_per_atom": error * MEV_PER_EV,
        "inside": inside,
    }


def _novelty_columns(said: Intervals) -> dict[str, NDArray[np.generic]]:
    """Grades, and the atom of largest local grade; empty where the head or the rows do not have them."""
    if said.novelty is None:
        return {name: np.full(len(said.sigma), np.nan) for name in (*GRADES, "novelty", "novel_atom")}
    atom = np.where(said.novelty.atom >= 0, said.novelty.atom.astype(float), np.nan)
    grades = dict(zip(GRADES, said.novelty.grades.T, strict=True))
    return {**grades, "novelty": said.novelty.novelty, "novel_atom": atom}


def _flags(
    rows: FeatureRows,
    good: NDArray[np.bool_],
    said: Intervals,
    table: pd.DataFrame,
    training_keys: NDArray[np.uint64] | None,
) -> list[list[str]]:
    """The record's own flags, and what the head adds to them."""
    flags = [[str(flag) for flag in given] for given in rows.table["flags"]]
    in_training = compositions_in(rows.table["formula"].tolist(), training_keys)
    new_pair = np.zeros(len(said.unseen), dtype=bool) if said.novelty is None else said.novelty.unseen_pair
    own = {"unseen_element": said.unseen, "extrapolates": said.extrapolates, "unseen_pair": new_pair}
    for k, place in enumerate(np.flatnonzero(good)):
        row = flags[place]
        row += [flag for flag, raised in own.items() if raised[k]]
        if in_training[place]:
            row.append(IN_TRAINING)
        error = float(table["error_mev_per_atom"].iloc[place]) / MEV_PER_EV
        if not np.isnan(error) and suspect_label(error):
            row.append("suspect_label")
    for row, reason in zip(flags, rows.table["label_reason"], strict=True):
        if isinstance(reason, str):
            row.append("label_refused")
    return flags


def bound_columns(level: float) -> tuple[str, str]:
    """Names of the columns with the bounds of one level: ``lower_95_mev_per_atom`` and its partner."""
    return f"lower_{100 * level:g}_mev_per_atom", f"upper_{100 * level:g}_mev_per_atom"


def detailed_table(
    rows: FeatureRows, head: CalibratedHead, level: float, training_keys: NDArray[np.uint64] | None
) -> pd.DataFrame:
    """:func:`bounds_table` with what coverage is measured from.

    Centre, σ, the bounds of every level, and the level above which a row's intervals hold its error.
    """
    said = head.intervals(rows.scored())
    table = bounds_table(rows, head, level, training_keys=training_keys, said=said)
    table["chemical_system"] = rows.table["chemical_system"]
    table["label_kind"] = rows.table["label_kind"]
    for name, known in geometry_columns(rows.table).items():
        table[name] = known
    good = rows.table["reason"].isna().to_numpy()
    lower, upper = said.lower, said.upper
    values = {"centre_mev_per_atom": said.centre, "sigma_mev_per_atom": said.sigma}
    for j, one in enumerate(head.levels):
        low, high = bound_columns(one)
        values |= {low: lower[:, j], high: upper[:, j]}
    for name, column in values.items():
        full = np.full(len(good), np.nan)
        full[good] = column * MEV_PER_EV
        table[name] = full
    table[MIN_COVERING_LEVEL] = np.nan
    table.loc[good, MIN_COVERING_LEVEL] = head.min_covering_level(said, residual_ev_per_atom(rows.scored()))
    return table
