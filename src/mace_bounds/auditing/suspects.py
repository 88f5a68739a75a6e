"""Suspect entries: labels far outside their bounds, and why it may be the label or the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.neighbours import (
    FeatureMetric,
    NeighbourPrediction,
    evidence,
    feature_metric,
    fit_usual_error,
    predict_from_neighbours,
)
from mace_bounds.bounds import SUSPECT
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.features import FeatureRows, atomic_fractions
from mace_bounds.fitting import Measured, labelled
from mace_bounds.flags import flag_names
from mace_bounds.head import kept_warnings
from mace_bounds.levels import Levels

if TYPE_CHECKING:
    import pandas as pd

    Array = NDArray[np.float64]

MIN_LABELLED = 30
"""Labelled structures that a list of suspects needs: with fewer there are no neighbours."""
SURE, DOUBTFUL = 0.99, 0.95
"""Levels of the bounds that a suspect lies outside of."""
MIN_EVIDENCE = 0.0
"""Powers of ten for a wrong label that bring a row beyond its 95 % bounds into the list."""
STRONG, WEAK = 2.0, 1.0
"""Odds are even at 2 where one label in a hundred is wrong, and at 1 where one in ten is."""
ISOLATED = "isolated_atoms"
_BLIND_EV = 1.0  # eV/atom, about a binding energy: the error of a model that sees no neighbours of an atom
_MAX_FIT_ROWS = 2000  # rows from which the usual error is learnt
_APART, _ALIKE = 5.0, 3.0  # scales apart, and within which rows agree
_TWIN = 0.25  # distance of near-duplicates
_NOVEL = ("extrapolates", "unseen_element")  # errors are not larger where only a pair of elements is new
ENTRY = re.compile(r"((?:mp|mvc)-[0-9a-z]+)(?:-GGA|-GGA\+U)?")
"""Ids of entries that have a page: the page's part of the id is the first group. Also read by the report's script."""
PAGE = "https://next-gen.materialsproject.org/materials/"
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
    "level",
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


def suspects(
    table: pd.DataFrame, shards: Iterable[FeatureRows], levels: Levels, out: _folder.AuditFolder
) -> dict[str, Any]:
    """Write the suspect entries; return what the summary says of them.

    Memory goes with the labelled rows: features per atom and atomic fractions in single precision.
    """
    out.remove(_folder.SUSPECTS)
    rows = labelled(table, levels, suspect=True)
    if len(rows) < MIN_LABELLED:
        return {"n": 0, "why": f"fewer than {MIN_LABELLED} labelled structures"}
    known = table["error_mev_per_atom"].notna().to_numpy(dtype=bool)
    with kept_warnings() as stopped_early:
        ranked = suspect_table(rows, *per_atom(shards, known))
    out.write(_folder.SUSPECTS, ranked)
    likely = {str(name): int(n) for name, n in ranked["likely"].value_counts().items()}
    return {"n": len(ranked), **likely, **({"warnings": stopped_early} if stopped_early else {})}


def per_atom(
    shards: Iterable[FeatureRows], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features per atom and atomic fractions of the rows that a mask over all shards chooses."""
    features: list[NDArray[np.float32]] = []
    fractions: list[NDArray[np.float32]] = []
    start = 0
    for shard in shards:
        mask = known[start : start + len(shard.table)]
        start += len(mask)
        table = shard.table[mask]
        sizes = table["n_atoms"].to_numpy(dtype=np.float64)[:, None]
        features.append((shard.features[mask] / sizes).astype(np.float32))
        shares = atomic_fractions(table["elements"].tolist(), table["counts"].tolist())
        fractions.append(shares.astype(np.float32))
    return np.concatenate(features), np.concatenate(fractions)


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
        distance from the bounds of the ``level`` in units of the head's σ.
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
    metric = feature_metric(features, fractions, seed=seed)
    prediction, usual = _expectations(rows, metric, candidates, scale, seed)
    powers = evidence(deviation[candidates] - prediction.expected, usual)
    outside = np.full(len(candidates), levels[-1])
    for level in reversed(levels):
        outside[excess[level][candidates] > 0] = level
    keep = (outside == levels[0]) | (powers > MIN_EVIDENCE)
    order = np.flatnonzero(keep)[np.argsort(-powers[keep], kind="stable")]
    picked = rows.table.iloc[candidates[order]].reset_index(drop=True)
    lookup = Reasons(rows, scale)
    reasons = [
        lookup.of(int(candidates[i]), prediction, int(i), usual=float(usual[i]), evidence=float(powers[i]))
        for i in order
    ]
    at = candidates[order]
    bounds, beyond = np.empty((len(at), 2)), np.empty(len(at))
    for level in levels:
        mask = outside[order] == level
        bounds[mask] = np.stack(rows.bounds_at(level), axis=1)[at[mask]]
        beyond[mask] = excess[level][at[mask]] / rows.column("sigma")[at[mask]]
    centre = (rows.error - deviation)[at]
    out = picked.assign(
        rank=np.arange(1, len(order) + 1),
        lower_mev_per_atom=bounds[:, 0] * MEV_PER_EV,
        upper_mev_per_atom=bounds[:, 1] * MEV_PER_EV,
        level=outside[order],
        excess_sigmas=beyond,
        neighbours_expect_mev_per_atom=(prediction.expected[order] + centre) * MEV_PER_EV,
        usual_error_mev_per_atom=usual[order] * MEV_PER_EV,
        evidence=powers[order],
        likely=[likely for likely, _ in reasons],
        reasons=["; ".join(text) for _, text in reasons],
        url=[entry_url(str(name)) or "" for name in picked["id"]],
    )
    return out[list(COLUMNS)]


def _expectations(
    rows: Measured, metric: FeatureMetric, candidates: NDArray[np.int64], scale: float, seed: int
) -> tuple[NeighbourPrediction, Array]:
    """What is expected of the candidates, and how large surprises usually are there, eV/atom."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MAX_FIT_ROWS])
    sigma, deviation = np.log(np.maximum(rows.column("sigma"), 1e-9)), rows.deviation
    known = predict_from_neighbours(metric, deviation, scale, sample)
    fitted = fit_usual_error(
        deviation[sample] - known.expected, np.column_stack([np.log(known.std), sigma[sample]])
    )
    prediction = predict_from_neighbours(metric, deviation, scale, candidates)
    usual = fitted.scale(np.column_stack([np.log(prediction.std), sigma[candidates]]))
    isolated = rows.table["flags"].iloc[candidates].str.contains(ISOLATED, regex=False, na=False)
    lone = isolated.to_numpy(dtype=bool) | prediction.blind
    return prediction, np.where(lone, np.hypot(usual, _BLIND_EV), usual)


def _excess(rows: Measured, level: float) -> Array:
    """Distance to the nearer bound, eV/atom; negative inside."""
    low, high = rows.bounds_at(level)
    return np.asarray(np.maximum(low - rows.error, rows.error - high))


class Reasons:
    """Looks up the reasons for single rows.

    ``rows``: every labelled row; ``scale``: typical size of a deviation, eV/atom.
    """

    def __init__(self, rows: Measured, scale: float) -> None:
        table = rows.table
        self._scale, self._deviation = scale, rows.deviation
        self._ids, self._formulas = table["id"].to_numpy(), table["formula"].to_numpy()
        self._systems, self._run_types = table["chemical_system"].to_numpy(), table["run_type"].to_numpy()
        self._flags = table["flags"].fillna("").to_numpy()
        self._of_formula = table.groupby("formula").indices
        self._of_system = table.groupby("chemical_system").indices

    def of(
        self, at: int, prediction: NeighbourPrediction, place: int, *, usual: float, evidence: float
    ) -> tuple[str, list[str]]:
        """What a row is likely to be, and the sentences for it.

        ``at``: the row; ``prediction``: among other rows, of this one; ``place``: the row's place in the
        prediction; ``usual``: the usual error there, eV/atom; ``evidence``: for a wrong label, in powers of
        ten.
        Returns ``likely`` {"label", "model", "unclear"}.
        """
        flags, expected = flag_names(self._flags[at]), float(prediction.expected[place])
        nearest, distance = int(prediction.nearest[place]), float(prediction.distance[place])
        label = ["so far from the model that it is probably another quantity"] if SUSPECT in flags else []
        label += [*self._lone(at), *self._stray_run_type(at), *self._twin(at, nearest, distance)]
        model = [f"unlike the head's data ({flag.replace('_', ' ')})" for flag in _NOVEL if flag in flags]
        away = abs(self._deviation[at] - expected)
        if prediction.blind[place] or ISOLATED in flags:
            model.append("an atom without neighbours, of which the model knows nothing")
        if away < _ALIKE * self._scale and abs(expected) > self._scale:
            model.append("its neighbours in feature space are off in the same way")
        if evidence < WEAK and not label:
            model.append("errors of this size are not rare where so little is known")
        if evidence >= STRONG and not model:
            label.append(
                f"{away / usual:.0f} times the usual error away from what its neighbours in feature space predict"
            )
        likely = "label" if label and not model else "model" if model and not label else "unclear"
        return likely, label + model or ["nothing else is odd about it"]

    def _lone(self, at: int) -> list[str]:
        """Alone among entries of one composition that agree with each other."""
        same = self._of_formula[self._formulas[at]]
        others = self._deviation[same[same != at]]
        if len(others) < 2:
            return []
        middle = float(np.median(others))
        spread = max(1.4826 * float(np.median(np.abs(others - middle))), self._scale)
        agree = np.mean(np.abs(others - middle) < _ALIKE * spread)
        if abs(self._deviation[at] - middle) < _APART * spread or agree < 0.75:
            return []
        return [f"alone among {len(same)} entries of {self._formulas[at]}, of which most agree"]

    def _stray_run_type(self, at: int) -> list[str]:
        """Another run type than nearly all others of its chemical system."""
        own, system = self._run_types[at], self._systems[at]
        if not isinstance(own, str) or not isinstance(system, str):
            return []
        known = [kind for kind in self._run_types[self._of_system[system]] if isinstance(kind, str)]
        if len(known) < 4 or known.count(own) > 0.25 * len(known):
            return []
        usual = max(sorted(set(known)), key=known.count)
        return [f"run type {own} where most of {system} is {usual}"]

    def _twin(self, at: int, nearest: int, distance: float) -> list[str]:
        """Nearly the structure of another entry, with another energy."""
        gap = self._deviation[at] - self._deviation[nearest]
        same = self._formulas[at] == self._formulas[nearest]
        if not same or distance > _TWIN or abs(gap) < _APART * self._scale:
            return []
        return [
            f"nearly the structure of {self._ids[nearest]}, {gap * MEV_PER_EV:+.0f} meV/atom from it: "
            "another magnetic or electronic state"
        ]


def entry_url(name: str) -> str | None:
    """Page of an entry by its id; None where the id names no database that has one.

    A run-type suffix (``mp-149-GGA+U``, an entry id of pymatgen) is left out.
    """
    found = ENTRY.fullmatch(name)
    return PAGE + found[1] if found else None
