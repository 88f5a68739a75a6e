"""Is a crystal stable: its distance from the convex hull with bounds, and how sure that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.hull_notes import hull_notes, no_phase
from mace_bounds.bounds.table import provenance
from mace_bounds.decisions import GUARDED_LABEL, LIMITS_MEV, HullDraws, HullPrior, hull_distances
from mace_bounds.errors import StructureError
from mace_bounds.features import atomic_fractions
from mace_bounds.flags import flag_names
from mace_bounds.tables import frame

if TYPE_CHECKING:
    import pandas as pd

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
HULL_INCOMPLETE = "hull_incomplete"
"""Flag of a candidate with an element of which there is no phase alone."""

_NO_MIXTURE = "no mixture of the phases has its composition; add phases of its elements."
_GUARDED_PHASE = "its composition needs a phase that may not shape the hull; add phases of its elements."
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
    unscored: tuple[str, ...] = ()  # why further phases are no rows

    @cached_property
    def corrected(self) -> NDArray[np.bool_]:
        """Rows whose energies can be corrected."""
        return np.isfinite(self.corrections.ev_per_atom)

    @cached_property
    def by_model(self) -> NDArray[np.bool_]:
        """Rows with the model's energy; the others are here for their labels."""
        return np.array([why is None for why in self.found.energy_reasons], dtype=bool)

    @cached_property
    def fixed(self) -> NDArray[np.bool_]:
        """Rows that, as phases, have their labels as energies."""
        return np.isfinite(self.found.dft_ev_per_atom) & (self.energies != "model")

    @cached_property
    def usable(self) -> NDArray[np.int64]:
        """Phases that have an energy."""
        good = self.corrected & (self.fixed | (self.by_model & (self.energies != "dft")))
        return self.phases[good[self.phases]]

    @cached_property
    def mean(self) -> Array:
        """Expected energies by the model with corrections, shape (m,), eV/atom."""
        errors = self.found.joint.marginals.middle
        return np.asarray(self.found.model_ev_per_atom + errors + self.corrections.ev_per_atom)

    @cached_property
    def central(self) -> Array:
        """Energies of phases without errors, shape (m,), eV/atom."""
        return np.where(self.fixed, self.found.dft_ev_per_atom + self.corrections.ev_per_atom, self.mean)

    @cached_property
    def flags(self) -> list[set[str]]:
        """Flags of each row."""
        return [set(flag_names(flags)) for flags in self.found.table["flags"]]

    @cached_property
    def guards(self) -> dict[int, set[str]]:
        """Flags with which a usable phase may not shape the hull; phases without any have none."""
        guards = {
            k: self.flags[k] & (GUARDED_LABEL if self.fixed[k] else GUARDED_MODEL)
            for k in self.usable.tolist()
        }
        return {k: flags for k, flags in guards.items() if flags}

    @cached_property
    def fractions(self) -> Array:
        """Atomic fractions of all rows, shape (m, 118)."""
        table = self.found.rows.table
        return atomic_fractions(table["elements"].tolist(), table["counts"].tolist())

    def distinct(self, phases: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each crystal among phases the one with a label, or of several the lowest; in their order."""
        order = np.lexsort([self.central[phases], ~self.fixed[phases]])
        _, first = np.unique(self.found.crystals[phases[order]], return_index=True)
        return phases[np.sort(order[first])]

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        """Phases that shape the hull."""
        return self.distinct(self.usable[[k not in self.guards for k in self.usable.tolist()]])

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Elements of which no phase consists alone, shape (118,)."""
        return np.asarray(~(self.fractions[self.kept] == 1.0).any(axis=0))

    @cached_property
    def asked(self) -> NDArray[np.int64]:
        """Candidates with an energy."""
        return self.candidates[(self.corrected & self.by_model)[self.candidates]]

    def why_not(self, row: int) -> str:
        """Why a row cannot be a candidate, or a phase."""
        no_label = "it has no DFT energy, and only those count"
        return self.corrections.reasons[row] or self.found.energy_reasons[row] or no_label


def hull_of(inputs: HullInputs, n_draws: int = 1000, seed: int = 0) -> Hull:
    """Distances of candidates from the hull of the phases, each without itself; see :meth:`BoundsPredictor.hull`."""
    found, kept, asked = inputs.found, inputs.kept, inputs.asked
    if not len(kept):
        raise StructureError(no_phase(inputs))
    energies, of_phases = _drawn_energies(inputs, n_draws, seed)
    point = _distances(inputs, inputs.mean[None], inputs.central[None], kept)
    drawn = _distances(inputs, energies, of_phases, kept)
    with_guarded = point
    if inputs.guards:
        every = inputs.distinct(inputs.usable)
        with_guarded = _distances(inputs, inputs.mean[None], inputs.central[None], every)
    spread = np.where(inputs.fixed, 0.0, found.joint.marginals.std)[kept]
    columns = {
        "energy_ev_per_atom": inputs.mean[asked],
        "std_energy_ev_per_atom": found.joint.marginals.std[asked],
        **_columns(found, kept, spread, point, drawn),
        **_flags_and_reasons(inputs, point.distance[0], with_guarded.distance[0]),
    }
    there = np.isfinite(point.distance[0])
    farther = (drawn.distance.mean(axis=0) - point.distance[0])[there]
    bias = float(farther.mean()) if len(farther) else 0.0
    return Hull(
        table=_table(inputs, columns),
        distance_ev_per_atom=drawn.distance[:, there],
        phases=found.table.iloc[kept][["id", "formula"]]
        .assign(energy_ev_per_atom=inputs.central[kept], std_ev_per_atom=spread)
        .reset_index(drop=True),
        guarded=found.table.iloc[list(inputs.guards)][["id", "formula"]]
        .assign(flags=[";".join(sorted(flags)) for flags in inputs.guards.values()])
        .reset_index(drop=True),
        bias_ev_per_atom=bias,
        notes=hull_notes(inputs, bias),
    )


def _distances(
    inputs: HullInputs, of_candidates: Array, of_phases: Array, phases: NDArray[np.int64]
) -> HullDraws:
    """Of all that are asked for; energies of all rows as candidates and as phases, shape (n, m) each, eV/atom."""
    place = {crystal: p for p, crystal in enumerate(inputs.found.crystals[phases].tolist())}
    itself = [place.get(crystal, -1) for crystal in inputs.found.crystals[inputs.asked].tolist()]
    return hull_distances(
        inputs.fractions[inputs.asked],
        of_candidates[:, inputs.asked],
        inputs.fractions[phases],
        of_phases[:, phases],
        np.array(itself, dtype=np.int64),
    )


def _drawn_energies(inputs: HullInputs, n_draws: int, seed: int) -> tuple[Array, Array]:
    """Energies of all rows in every draw, as candidates and as phases, shape (n_draws, m) each, eV/atom."""
    found, corrections = inputs.found, inputs.corrections
    energies = found.model_ev_per_atom + found.joint.draws(n_draws, seed) + corrections.ev_per_atom
    fixed = inputs.central
    if inputs.uncertain_corrections:
        errors = corrections.draws(n_draws, seed)
        energies, fixed = energies + errors, fixed + errors
    return energies, np.where(inputs.fixed, fixed, energies)


def _flags_and_reasons(inputs: HullInputs, distance: Array, with_guarded: Array) -> dict[str, list[Any]]:
    """What is to be known of candidates; ``with_guarded``: distances if all phases shaped the hull."""
    there, needed = np.isfinite(distance), np.isnan(distance) & np.isfinite(with_guarded)
    raised = {
        HULL_GUARDED: needed | (np.abs(with_guarded - distance) > _MATTERS_EV),
        HULL_INCOMPLETE: there & (inputs.fractions[inputs.asked][:, inputs.absent] > 0).any(axis=1),
    }
    flags, reasons = list[str](), list[str | None]()
    for c, k in enumerate(inputs.asked):
        flags.append(";".join(sorted(inputs.flags[k]) + [flag for flag, mask in raised.items() if mask[c]]))
        reasons.append(None if there[c] else _GUARDED_PHASE if needed[c] else _NO_MIXTURE)
    return {"flags": flags, "reason": reasons}


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


def _table(inputs: HullInputs, columns: dict[str, Any]) -> pd.DataFrame:
    """All candidates, behind those that were scored the others with the reason."""
    import pandas as pd

    found = inputs.found
    base, bad = found.table.iloc[inputs.asked], np.setdiff1d(inputs.candidates, inputs.asked).tolist()
    good = frame({"id": base["id"].tolist(), "formula": base["formula"].tolist(), **columns})
    names = [*found.table["id"].iloc[bad], *found.failed["id"]]
    failed = frame(
        {
            **{
                name: [np.nan if good[name].dtype.kind == "f" else None] * len(names) for name in good.columns
            },
            "id": names,
            "formula": [*found.table["formula"].iloc[bad], *found.failed["formula"]],
            "flags": [*found.table["flags"].iloc[bad], *([None] * len(found.failed))],
            "reason": [*(inputs.why_not(k) for k in bad), *found.failed["reason"]],
        }
    )
    table = pd.concat([good, failed], ignore_index=True) if len(names) else good
    return table.assign(**provenance(found.head, found.level))
