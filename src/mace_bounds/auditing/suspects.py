"""Entries whose label looks wrong: far outside their bounds, and why it may be the label or the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.auditing.links import entry_url
from mace_bounds.auditing.neighbours import neighbourly, space
from mace_bounds.auditing.suspect_reasons import ISOLATED, Reasons
from mace_bounds.auditing.usual_error import evidence, fit_usual_error, usual_error
from mace_bounds.columns import MEV_PER_EV

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.auditing.neighbours import Neighbourly, Space
    from mace_bounds.fitting import Measured

    Array = NDArray[np.float64]

SURE, DOUBTFUL = 0.99, 0.95  # bounds that a suspect lies outside of
LEAST = 0.0  # powers of ten for a wrong label that bring a row beyond its 95 % bounds into the list
_BLIND_EV = 1.0  # eV/atom, about a binding energy: the error of a model that sees no neighbours of an atom
_SAMPLE = 2000  # rows from which the usual error is learnt
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
    "url",
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
        ``url`` is the entry's page where its id has one.
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
    lookup = Reasons(rows, scale)
    reasons = [
        lookup.of(
            int(candidates[i]),
            expected=float(said.expected[i]),
            usual=float(usual[i]),
            evidence=float(found[i]),
            nearest=int(said.nearest[i]),
            distance=float(said.distance[i]),
            blind=bool(said.blind[i]),
        )
        for i in order
    ]
    at = candidates[order]
    bounds, beyond = np.empty((len(at), 2)), np.empty(len(at))
    for level in levels:
        mask = outside[order] == level
        bounds[mask] = _bounds(rows, level)[:, at[mask]].T
        beyond[mask] = excess[level][at[mask]] / rows.column("sigma")[at[mask]]
    centre = (rows.error - deviation)[at]
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
        url=[entry_url(str(name)) or "" for name in picked["id"]],
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
    isolated = rows.table["flags"].iloc[candidates].str.contains(ISOLATED, regex=False, na=False).to_numpy()
    return said, np.where(isolated | said.blind, np.hypot(usual, _BLIND_EV), usual)


def _bounds(rows: Measured, level: float) -> Array:
    low, high = rows.bounds()
    at = rows.levels.index(level)
    return np.stack([low[:, at], high[:, at]])


def _excess(rows: Measured, level: float) -> Array:
    """Distance to the nearer bound, eV/atom; negative inside."""
    low, high = _bounds(rows, level)
    return np.asarray(np.maximum(low - rows.error, rows.error - high))
