"""Entries whose label looks wrong: far outside their bounds, and why it may be the label or the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.audit._measured import SUSPECT
from mace_bounds.audit._neighbours import neighbourly
from mace_bounds.audit._table import MEV_PER_EV

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.audit._measured import Measured
    from mace_bounds.audit._neighbours import Neighbourly

    Array = NDArray[np.float64]

SURE, DOUBTFUL = 0.99, 0.95  # bounds that a suspect lies outside of
FAR = 5.0  # standard deviations from what neighbours or polymorphs say
_ALIKE, _TWIN = 3.0, 0.25  # standard deviations within which they agree; distance of near-duplicates
_NOVEL = ("extrapolates", "unseen_element", "unseen_pair")
COLUMNS = (
    "rank",
    "id",
    "formula",
    "n_atoms",
    "source",
    "run_type",
    "error_mev_per_atom",
    "lower_mev_per_atom",
    "upper_mev_per_atom",
    "outside",
    "excess_sigmas",
    "neighbours_expect_mev_per_atom",
    "neighbours_std_mev_per_atom",
    "neighbour_sigmas",
    "likely",
    "reasons",
    "seen_in",
    "flags",
)


def suspect_table(rows: Measured, features: Array) -> pd.DataFrame:
    """Rank labelled rows whose label may be wrong.

    Parameters
    ----------
    rows : Measured
        Every labelled row, suspect labels too.
    features : ndarray, shape (n, p)
        Their features per atom.

    Returns
    -------
    DataFrame
        Rows outside their 99 % bounds; and rows outside their 95 % bounds that are also five standard deviations
        from what their neighbours in feature space say: where one label in a hundred is wrong, the 99 % bounds
        reach out to the wrong ones. Sorted by ``neighbour_sigmas``, the distance to what the neighbours say in their
        standard deviations; ``excess_sigmas`` is that from the bound ``outside`` in units of the head's σ.
        ``likely`` is ``"label"``, ``"model"`` or ``"unclear"``, and ``reasons`` says why; a hint, not a proof.
    """
    import pandas as pd

    levels = [level for level in (SURE, DOUBTFUL) if level in rows.levels] or [rows.levels[-1]]
    excess = {level: _excess(rows, level) for level in levels}
    candidates = np.flatnonzero(excess[levels[-1]] > 0)
    if len(candidates) == 0:
        return pd.DataFrame(columns=list(COLUMNS))
    deviation = rows.deviation
    scale = float(np.median(rows.column("sigma")))
    said = neighbourly(features, deviation, scale, candidates)
    away = np.abs(deviation[candidates] - said.expected) / said.std
    outside = np.full(len(candidates), levels[-1])
    for level in reversed(levels):
        outside[excess[level][candidates] > 0] = level
    keep = (outside == levels[0]) | (away >= FAR)
    order = np.flatnonzero(keep)[np.argsort(-away[keep], kind="stable")]
    picked = rows.table.iloc[candidates[order]].reset_index(drop=True)
    reasons = [_reasons(rows, deviation, scale, candidates, said, int(i)) for i in order]
    beyond = (
        np.array([excess[outside[i]][candidates[i]] for i in order]) / rows.column("sigma")[candidates[order]]
    )
    bounds = np.array([_bounds(rows, outside[i])[:, candidates[i]] for i in order]).reshape(-1, 2)
    centre = (rows.error - deviation)[candidates[order]]
    out = picked.assign(
        rank=np.arange(1, len(order) + 1),
        lower_mev_per_atom=bounds[:, 0] * MEV_PER_EV,
        upper_mev_per_atom=bounds[:, 1] * MEV_PER_EV,
        outside=outside[order],
        excess_sigmas=beyond,
        neighbours_expect_mev_per_atom=(said.expected[order] + centre) * MEV_PER_EV,
        neighbours_std_mev_per_atom=said.std[order] * MEV_PER_EV,
        neighbour_sigmas=away[order],
        likely=[likely for likely, _ in reasons],
        reasons=["; ".join(text) for _, text in reasons],
    )
    return out[list(COLUMNS)]


def _bounds(rows: Measured, level: float) -> Array:
    low, high = rows.bounds()
    at = rows.levels.index(level)
    return np.stack([low[:, at], high[:, at]])


def _excess(rows: Measured, level: float) -> Array:
    """Distance to the nearer bound, eV/atom; negative inside."""
    low, high = _bounds(rows, level)
    return np.asarray(np.maximum(low - rows.error, rows.error - high))


def _reasons(
    rows: Measured, deviation: Array, scale: float, candidates: NDArray[np.int64], said: Neighbourly, i: int
) -> tuple[str, list[str]]:
    """What it is likely to be, and the sentences for it."""
    at = int(candidates[i])
    row = rows.table.iloc[at]
    flags = str(row["flags"] or "").split(";")
    label = [
        *_other_quantity(flags),
        *_lone(rows.table["formula"].to_numpy(), deviation, scale, at),
        *_stray_run_type(rows.table, at),
        *_twin(rows.table, deviation, scale, at, int(said.nearest[i]), float(said.distance[i])),
    ]
    away = abs(deviation[at] - said.expected[i]) / said.std[i]
    model = [f"unlike the head's data ({flag.replace('_', ' ')})" for flag in _NOVEL if flag in flags]
    if away < _ALIKE and abs(said.expected[i]) > scale:
        model.append("its neighbours in feature space are off in the same way")
    if away >= FAR and not model:
        label.append(f"{away:.0f} standard deviations from what its neighbours in feature space say")
    likely = "label" if label and not model else "model" if model and not label else "unclear"
    return likely, label + model or ["nothing else is odd about it"]


def _other_quantity(flags: Sequence[str]) -> list[str]:
    return ["so far off that it is rather another quantity"] if SUSPECT in flags else []


def _lone(formulas: NDArray[np.object_], deviation: Array, scale: float, at: int) -> list[str]:
    """Alone among entries of one composition that agree with each other."""
    same = np.flatnonzero(formulas == formulas[at])
    others = deviation[same[same != at]]
    if len(others) < 2:
        return []
    middle = float(np.median(others))
    spread = max(1.4826 * float(np.median(np.abs(others - middle))), scale)
    if (
        abs(deviation[at] - middle) < FAR * spread
        or np.mean(np.abs(others - middle) < _ALIKE * spread) < 0.75
    ):
        return []
    return [f"alone among {len(same)} entries of {formulas[at]}, of which most agree"]


def _stray_run_type(table: pd.DataFrame, at: int) -> list[str]:
    """Another run type than nearly all others of its chemical system."""
    row = table.iloc[at]
    mine = row["run_type"]
    system = table[(table["chemical_system"] == row["chemical_system"]).to_numpy()]["run_type"].dropna()
    if not isinstance(mine, str) or len(system) < 4 or (system == mine).mean() > 0.25:
        return []
    usual = system.value_counts().index[0]
    return [f"run type {mine} where most of {row['chemical_system']} is {usual}"]


def _twin(
    table: pd.DataFrame, deviation: Array, scale: float, at: int, nearest: int, distance: float
) -> list[str]:
    """Nearly the structure of another entry, with another energy."""
    gap = deviation[at] - deviation[nearest]
    same = table["formula"].iloc[at] == table["formula"].iloc[nearest]
    if not same or distance > _TWIN or abs(gap) < FAR * scale:
        return []
    return [
        f"nearly the structure of {table['id'].iloc[nearest]}, {gap * MEV_PER_EV:+.0f} meV/atom from it: "
        "another magnetic or electronic state"
    ]
