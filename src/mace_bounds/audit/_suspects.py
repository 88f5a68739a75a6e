"""Entries whose label looks wrong: far outside their bounds, and why it may be the label or the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.audit._measured import SUSPECT
from mace_bounds.audit._neighbours import neighbourly, space
from mace_bounds.audit._table import MEV_PER_EV
from mace_bounds.audit._usual_error import evidence, fit_usual_error, usual_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.audit._measured import Measured
    from mace_bounds.audit._neighbours import Neighbourly, Space

    Array = NDArray[np.float64]

SURE, DOUBTFUL = 0.99, 0.95  # bounds that a suspect lies outside of
LEAST = 0.0  # powers of ten for a wrong label that bring a row beyond its 95 % bounds into the list
STRONG, WEAK = 2.0, 1.0  # odds are even at 2 where one label in a hundred is wrong, and one in ten at 1
_APART, _ALIKE, _TWIN = (
    5.0,
    3.0,
    0.25,
)  # scales apart, scales within which rows agree; distance of near-duplicates
_BLIND_EV = 1.0  # eV/atom, about a binding energy: the error of a model that sees no neighbours of an atom
_SAMPLE = 2000  # rows from which the usual error is learnt
_ISOLATED = "isolated_atoms"
_NOVEL = ("extrapolates", "unseen_element")  # errors are not larger where only a pair of elements is new
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
    "usual_error_mev_per_atom",
    "evidence",
    "likely",
    "reasons",
    "seen_in",
    "flags",
)


def suspect_table(
    rows: Measured, features: NDArray[np.floating], fractions: NDArray[np.floating], *, seed: int = 0
) -> pd.DataFrame:
    """Rank labelled rows whose label may be wrong.

    Parameters
    ----------
    rows : Measured
        Every labelled row, suspect labels too.
    features : ndarray, shape (n, p)
        Their features per atom; single precision is enough.
    fractions : ndarray, shape (n, 118)
        Their atomic fractions.
    seed : int
        Of the samples.

    Returns
    -------
    DataFrame
        Rows outside their 99 % bounds; and rows outside their 95 % bounds with ``evidence`` above 0: where one
        label in a hundred is wrong, the 99 % bounds reach out to the wrong ones. Sorted by ``evidence``: how many
        powers of ten likelier the error is if the label is wrong than if the model is, given what neighbours expect
        and the ``usual_error_mev_per_atom`` of rows with such neighbours and such σ. ``excess_sigmas`` is the
        distance from the bound ``outside`` in units of the head's σ.
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
    said, usual = _expectations(rows, space(features, fractions, seed=seed), candidates, scale, seed)
    found = evidence(deviation[candidates] - said.expected, usual)
    outside = np.full(len(candidates), levels[-1])
    for level in reversed(levels):
        outside[excess[level][candidates] > 0] = level
    keep = (outside == levels[0]) | (found > LEAST)
    order = np.flatnonzero(keep)[np.argsort(-found[keep], kind="stable")]
    picked = rows.table.iloc[candidates[order]].reset_index(drop=True)
    reasons = [
        _reasons(rows, deviation, scale, candidates, said, float(usual[i]), float(found[i]), int(i))
        for i in order
    ]
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
        usual_error_mev_per_atom=usual[order] * MEV_PER_EV,
        evidence=found[order],
        likely=[likely for likely, _ in reasons],
        reasons=["; ".join(text) for _, text in reasons],
    )
    return out[list(COLUMNS)]


def _expectations(
    rows: Measured, where: Space, candidates: NDArray[np.int64], scale: float, seed: int
) -> tuple[Neighbourly, Array]:
    """What is expected of the candidates, and how large surprises usually are there, eV/atom."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE])
    sigma, deviation = np.log(np.maximum(rows.column("sigma"), 1e-9)), rows.deviation
    known = neighbourly(where, deviation, scale, sample)
    fitted = fit_usual_error(
        deviation[sample] - known.expected, np.column_stack([np.log(known.std), sigma[sample]])
    )
    said = neighbourly(where, deviation, scale, candidates)
    usual = usual_error(fitted, np.column_stack([np.log(said.std), sigma[candidates]]))
    isolated = rows.table["flags"].iloc[candidates].str.contains(_ISOLATED, regex=False, na=False).to_numpy()
    return said, np.where(isolated | said.blind, np.hypot(usual, _BLIND_EV), usual)


def _bounds(rows: Measured, level: float) -> Array:
    low, high = rows.bounds()
    at = rows.levels.index(level)
    return np.stack([low[:, at], high[:, at]])


def _excess(rows: Measured, level: float) -> Array:
    """Distance to the nearer bound, eV/atom; negative inside."""
    low, high = _bounds(rows, level)
    return np.asarray(np.maximum(low - rows.error, rows.error - high))


def _reasons(
    rows: Measured,
    deviation: Array,
    scale: float,
    candidates: NDArray[np.int64],
    said: Neighbourly,
    usual: float,
    found: float,
    i: int,
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
    away = abs(deviation[at] - said.expected[i])
    model = [f"unlike the head's data ({flag.replace('_', ' ')})" for flag in _NOVEL if flag in flags]
    if said.blind[i] or _ISOLATED in flags:
        model.append("an atom without neighbours, of which the model knows nothing")
    if away < _ALIKE * scale and abs(said.expected[i]) > scale:
        model.append("its neighbours in feature space are off in the same way")
    if found < WEAK and not label:
        model.append("errors of this size are not rare where so little is known")
    if found >= STRONG and not model:
        label.append(
            f"{away / usual:.0f} times the usual error from what its neighbours in feature space say"
        )
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
        abs(deviation[at] - middle) < _APART * spread
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
    if not same or distance > _TWIN or abs(gap) < _APART * scale:
        return []
    return [
        f"nearly the structure of {table['id'].iloc[nearest]}, {gap * MEV_PER_EV:+.0f} meV/atom from it: "
        "another magnetic or electronic state"
    ]
