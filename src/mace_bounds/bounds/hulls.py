"""Is a crystal stable: its distance from the convex hull with bounds, and how sure that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.table import provenance
from mace_bounds.decisions import (
    FEWEST_TO_SAY,
    GUARDED_LABEL,
    LIMITS_MEV,
    HullDraws,
    HullPrior,
    hull_distances,
)
from mace_bounds.errors import StructureError
from mace_bounds.features import atomic_fractions
from mace_bounds.tables import frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from pymatgen.entries.computed_entries import ComputedEntry

    from mace_bounds.bounds.decision_rows import DecisionRows
    from mace_bounds.decisions import Corrections

Array = NDArray[np.float64]
PhaseEnergies = Literal["mixed", "dft", "model"]

GUARDED_MODEL = GUARDED_LABEL | {
    "extrapolates",
    "unseen_element",
    "unusual_energy",
    "no_useful_bound",
    "vacuum",
}
"""The same for a phase whose energy is the model's."""
HULL_GUARDED = "hull_guarded"
"""Flag of a candidate whose distance would be another one with the phases that the guard keeps out."""

_MATTERS_EV = 1e-3  # eV/atom by which a phase that is kept out must change a distance to be told
_MOST_NAMED = 3  # decompositions in a cell of the table


@dataclass(frozen=True, eq=False, repr=False)
class Hull:
    """Distances of candidates from the hull of competing phases.

    Attributes
    ----------
    table : DataFrame
        One row for each candidate, with the columns of :data:`mace_bounds.columns.HULLS`.
    distance_ev_per_atom : ndarray, shape (n_draws, n_candidates)
        Of the candidates that have one, in the order of the table's rows without a reason; below 0 is stable.
    phases : DataFrame
        Phases that shape the hull: ``id``, ``formula``, ``energy_ev_per_atom`` with corrections, and
        ``std_ev_per_atom``, which is 0 for a fixed one.
    guarded : DataFrame
        Phases that may not shape the hull: ``id``, ``formula``, ``flags``.
    bias_ev_per_atom : float
        Mean over candidates of how much farther from the hull they are in the draws than without errors: the hull of
        noisy energies is too low.
    notes : tuple of str
        Sentences for every output.
    """

    table: pd.DataFrame
    distance_ev_per_atom: Array
    phases: pd.DataFrame
    guarded: pd.DataFrame
    bias_ev_per_atom: float
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Hull({len(self.table)} candidates, {len(self.distance_ev_per_atom)} draws)"


@dataclass(frozen=True, eq=False)
class HullInputs:
    """Candidates and phases, rows of one set of structures."""

    found: DecisionRows
    candidates: NDArray[np.int64]
    phases: NDArray[np.int64]
    corrections: Corrections  # of all rows
    energies: PhaseEnergies
    uncertain_corrections: bool = False


def hull_of(inputs: HullInputs, n_draws: int = 1000, seed: int = 0) -> Hull:
    """Distances of candidates from the hull of the phases, each without itself; see :meth:`BoundsPredictor.hull`."""
    found, corrections = inputs.found, inputs.corrections
    mean = found.model_ev_per_atom + found.joint.marginals.middle + corrections.ev_per_atom
    fixed = found.dft_ev_per_atom + corrections.ev_per_atom
    labelled = np.isfinite(found.dft_ev_per_atom) & (inputs.energies != "model")
    has = np.isfinite(corrections.ev_per_atom)
    flags = [set(str(f).split(";")) if isinstance(f, str) else set() for f in found.table["flags"]]
    usable = np.array(
        [k for k in inputs.phases if has[k] and (labelled[k] or inputs.energies != "dft")], dtype=np.int64
    )
    guards = {k: flags[k] & (GUARDED_LABEL if labelled[k] else GUARDED_MODEL) for k in usable.tolist()}
    kept = np.array([k for k in usable.tolist() if not guards[k]], dtype=np.int64)
    if not len(kept):
        raise StructureError("there is no phase that may shape a hull; give competing phases (--phases).")
    fractions = atomic_fractions(found.rows.table["elements"].tolist(), found.rows.table["counts"].tolist())
    candidates = np.array([k for k in inputs.candidates if has[k]], dtype=np.int64)
    errors = found.joint.draws(n_draws, seed)
    energies = found.model_ev_per_atom + errors + corrections.ev_per_atom
    if inputs.uncertain_corrections:
        energies = energies + corrections.draws(n_draws, seed)
        fixed_draws = fixed + corrections.draws(n_draws, seed)
    else:
        fixed_draws = np.broadcast_to(fixed, energies.shape)
    phase_energies = np.where(labelled[kept], fixed_draws[:, kept], energies[:, kept])
    central = np.where(labelled, fixed, mean)[None, :]

    def distances(draws: Array, of_phases: Array, phases: NDArray[np.int64]) -> HullDraws:
        same = _itself(found, candidates, phases)
        return hull_distances(fractions[candidates], draws, fractions[phases], of_phases, same)

    point = distances(mean[None, candidates], central[:, kept], kept)
    drawn = distances(energies[:, candidates], phase_energies, kept)
    unguarded = point.distance[0]
    if len(kept) < len(usable):
        unguarded = distances(mean[None, candidates], central[:, usable], usable).distance[0]
    spread = np.where(labelled[kept], 0.0, found.joint.marginals.std[kept])
    columns = {
        "energy_ev_per_atom": mean[candidates],
        "std_energy_ev_per_atom": found.joint.marginals.std[candidates],
        **_columns(found, kept, spread, point, drawn),
    }
    moved = np.abs(unguarded - point.distance[0]) > _MATTERS_EV
    columns["flags"] = [
        ";".join(sorted(flags[k]) + [HULL_GUARDED] * bool(moved[c])) for c, k in enumerate(candidates)
    ]
    columns["reason"] = [
        None
        if np.isfinite(d)
        else "no mixture of the phases has its composition; add phases of its elements."
        for d in point.distance[0]
    ]
    guarded = [k for k in usable.tolist() if guards[k]]
    farther = (drawn.distance.mean(axis=0) - point.distance[0])[np.isfinite(point.distance[0])]
    bias = float(farther.mean()) if len(farther) else 0.0
    return Hull(
        table=_table(found, inputs, candidates, columns),
        distance_ev_per_atom=drawn.distance,
        phases=found.table.iloc[kept][["id", "formula"]]
        .assign(energy_ev_per_atom=central[0, kept], std_ev_per_atom=spread)
        .reset_index(drop=True),
        guarded=found.table.iloc[guarded][["id", "formula"]]
        .assign(flags=[";".join(sorted(guards[k])) for k in guarded])
        .reset_index(drop=True),
        bias_ev_per_atom=bias,
        notes=_notes(inputs, len(kept), int(labelled[kept].sum()), guarded, bias),
    )


def _itself(
    found: DecisionRows, candidates: NDArray[np.int64], phases: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Place among the phases of each candidate itself, by id or by structure; -1 where it is none."""
    hashes = found.rows.table["structure_hash"].tolist()
    place = {hashes[k]: p for p, k in reversed(list(enumerate(phases)))}
    row = {int(k): p for p, k in enumerate(phases)}
    return np.array([row.get(int(k), place.get(hashes[k], -1)) for k in candidates], dtype=np.int64)


def _columns(
    found: DecisionRows, kept: NDArray[np.int64], spread: Array, point: HullDraws, drawn: HullDraws
) -> dict[str, Any]:
    """Numbers and texts of the candidates that can have any."""
    distance, level = drawn.distance, found.level
    lower, upper = np.quantile(distance, [(1 - level) / 2, (1 + level) / 2], axis=0)
    known = np.isfinite(point.distance[0])
    columns: dict[str, Any] = {
        "e_above_hull_ev_per_atom": point.distance[0],
        "lower_ev_per_atom": lower,
        "upper_ev_per_atom": upper,
        "std_ev_per_atom": distance.std(axis=0),
    }
    for mev in LIMITS_MEV:
        name = f"p_within_{mev}mev" if mev else "p_stable"
        columns[name] = np.where(known, _probability(drawn, mev, found.model.prior), np.nan)
    ids, formulas = found.table["id"].tolist(), found.table["formula"].tolist()
    named = [
        _decompositions(drawn.phases[c], drawn.shares[c], kept, formulas) for c in range(distance.shape[1])
    ]
    columns["decomposition"] = named
    matters = []
    for phases, shares in zip(drawn.phases, drawn.shares, strict=True):
        weight = np.zeros(len(kept))
        inside = (phases >= 0) & (shares > 0)
        np.add.at(weight, phases[inside], shares[inside] / len(phases))
        share = weight * spread
        matters.append(ids[kept[int(share.argmax())]] if len(share) and share.max() > 0 else None)
    columns["vertex"] = matters
    return columns


def _probability(drawn: HullDraws, limit_mev: int, prior: HullPrior | None) -> Array:
    """Probability of being within a limit; NaN where none is known, or measured to be better than a guess."""
    if prior is None or not prior.is_reliable(limit_mev):
        return np.full(drawn.distance.shape[1], np.nan)
    return prior.probability(drawn.distance, drawn.rivals, limit_mev)


def _decompositions(
    phases: NDArray[np.int64], shares: Array, kept: NDArray[np.int64], formulas: list[str]
) -> str:
    """The mixtures below a candidate with their share of the draws, the most frequent first."""
    seen: Counter[str] = Counter()
    for of_draw, amounts in zip(phases, shares, strict=True):
        parts = sorted(
            (formulas[kept[p]], a) for p, a in zip(of_draw, amounts, strict=True) if p >= 0 and a > 0
        )
        seen[" + ".join(f"{a:.3g} {name}" for name, a in parts)] += 1
    total = len(phases)
    return "; ".join(f"{name} ({100 * n / total:.0f} %)" for name, n in seen.most_common(_MOST_NAMED) if name)


def _table(
    found: DecisionRows, inputs: HullInputs, candidates: NDArray[np.int64], columns: dict[str, Any]
) -> pd.DataFrame:
    """All candidates in their order, those that cannot have a distance with the reason."""
    import pandas as pd

    base = found.table.iloc[candidates]
    good = frame({"id": base["id"].tolist(), "formula": base["formula"].tolist(), **columns})
    bad = [int(k) for k in inputs.candidates if not np.isfinite(inputs.corrections.ev_per_atom[k])]
    names = [*found.table["id"].iloc[bad], *found.failed["id"]]
    failed = frame(
        {
            **{
                name: [np.nan if good[name].dtype.kind == "f" else None] * len(names) for name in good.columns
            },
            "id": names,
            "formula": [*found.table["formula"].iloc[bad], *found.failed["formula"]],
            "flags": [*found.table["flags"].iloc[bad], *([None] * len(found.failed))],
            "reason": [*(inputs.corrections.reasons[k] for k in bad), *found.failed["reason"]],
        }
    )
    table = pd.concat([good, failed], ignore_index=True) if len(names) else good
    return table.assign(**provenance(found.head, found.level))


def _notes(
    inputs: HullInputs, n_phases: int, n_labelled: int, guarded: Sequence[int], bias: float
) -> tuple[str, ...]:
    found = inputs.found
    n_model = n_phases - n_labelled
    notes = [
        f"{n_phases} competing phases, {n_labelled} with DFT energies (fixed) and {n_model} with energies of the model "
        f"(joint errors: {found.model.likeness.name}).",
    ]
    if n_model:  # a hull of fixed energies has no noise
        notes.append(
            "The hull of noisy energies lies lower: over the draws, candidates are "
            f"{1000 * bias:+.1f} meV/atom farther from it on average than without errors."
        )
    prior = found.model.prior
    if prior is None:
        notes.append(
            "No probability is said: too few distances from a hull were known among the head's data to measure one; "
            "fit it with labels of whole chemical systems."
        )
    else:
        few = prior.n_compositions < FEWEST_TO_SAY
        parts = [
            f"{f'within {mev} meV/atom' if mev else 'stable'} {b:.3f} ({base:.3f})"
            for mev, b, base in zip(LIMITS_MEV, prior.brier, prior.base_rate_brier, strict=True)
        ]
        notes.append(
            f"Probabilities were measured on {len(prior.distances)} left-out crystals of {prior.n_compositions} "
            f"compositions. Brier score (of their share): {', '.join(parts)}. What was no better is not said"
            f"{f', nor anything measured on fewer than {FEWEST_TO_SAY} compositions' if few else ''}."
        )
    if guarded:
        some = ", ".join(str(found.table["id"].iloc[k]) for k in guarded[:5])
        more = f" and {len(guarded) - 5} more" if len(guarded) > 5 else ""
        notes.append(f"kept from shaping the hull by their flags: {some}{more}.")
    return tuple(notes)


def entries_with_bounds(found: DecisionRows, corrections: Corrections | None = None) -> list[ComputedEntry]:
    """Entries of pymatgen whose adjustments hold the expected error with its uncertainty, and the corrections.

    Parameters
    ----------
    found : DecisionRows
    corrections : Corrections, optional
        Of the same structures.

    Returns
    -------
    list of ComputedEntry
        The energy is the model's; ``correction_uncertainty`` is the calibrated standard deviation, eV.
    """
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry, ConstantEnergyAdjustment

    marginals, out = found.joint.marginals, []
    for k, (name, formula) in enumerate(zip(found.table["id"], found.table["formula"], strict=True)):
        n, unit = found.n_atoms[k], Composition(formula)
        adjustments = [
            ConstantEnergyAdjustment(
                float(marginals.middle[k] * n),
                float(marginals.std[k] * n),
                name="mace-bounds",
                description="expected error of the model and its calibrated standard deviation",
            )
        ]
        if corrections is not None and np.isfinite(corrections.ev_per_atom[k]):
            spread = float(np.sqrt(sum(s[k] ** 2 for s in corrections.shared.values())) * n)
            adjustments.append(
                ConstantEnergyAdjustment(float(corrections.ev_per_atom[k] * n), spread, name="MP2020")
            )
        out.append(
            ComputedEntry(
                unit * (n / unit.num_atoms),
                float(found.model_ev_per_atom[k] * n),
                energy_adjustments=adjustments,
                entry_id=name,
            )
        )
    return out
