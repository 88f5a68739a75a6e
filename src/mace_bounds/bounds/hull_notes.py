"""What every output says of a hull, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from mace_bounds.bounds.energies import energy_note
from mace_bounds.decisions import FEWEST_TO_SAY, LIMITS_MEV, HullPrior, JointModel
from mace_bounds.structures import reasons_in_short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mace_bounds.bounds.hulls import HullInputs

_MOST_NAMED = 5


def hull_notes(inputs: HullInputs, bias_ev_per_atom: float) -> tuple[str, ...]:
    """All sentences."""
    n_fixed = int(inputs.fixed[inputs.kept].sum())
    n_model = len(inputs.kept) - n_fixed
    plural = "phase" if len(inputs.kept) == 1 else "phases"
    notes = [
        energy_note(inputs.found.head),
        f"{len(inputs.kept)} competing {plural}, {n_fixed} with DFT energies (fixed) and {n_model} with energies of "
        "the model. A phase that is missing among them makes distances too small, which nothing here can tell. "
        f"{joint_note(inputs.found.model)}",
    ]
    if n_model:  # a hull of fixed energies has no noise
        notes.append(
            "The hull of noisy energies lies lower: over the draws, candidates are "
            f"{1000 * bias_ev_per_atom:+.1f} meV/atom farther from it on average than without errors."
        )
    notes += [_probabilities(inputs.found.model.prior), _incomplete(inputs), *_left_out(inputs)]
    return tuple(note for note in notes if note)


def joint_note(model: JointModel) -> str:
    """Which errors are taken to go together."""
    if not model.reliability:
        return "The head knows nothing of joint errors, and they were taken as independent."
    if model.likeness.name == "independent":
        return "Errors are independent: no other joint errors did better on the head's left-out structures."
    return f"Errors are joint ({model.likeness.name})."


def no_phase(inputs: HullInputs) -> str:
    """The error where no phase may shape the hull."""
    why = " ".join(_left_out(inputs))
    return f"there is no phase that may shape a hull; give competing phases (--phases).{why and ' '}{why}"


def _probabilities(prior: HullPrior | None) -> str:
    if prior is None:
        return (
            "No probability is given: too few distances from a hull were known among the head's data to measure one; "
            "fit it with labels of whole chemical systems."
        )
    few = prior.n_compositions < FEWEST_TO_SAY
    parts = [
        f"{f'within {mev} meV/atom' if mev else 'stable'} {b:.3f} ({base:.3f})"
        for mev, b, base in zip(LIMITS_MEV, prior.brier, prior.base_rate_brier, strict=True)
    ]
    return (
        f"Probabilities were measured on {len(prior.distances)} left-out crystals of {prior.n_compositions} "
        f"compositions. Brier score (of their share): {', '.join(parts)}. What was no better is not said"
        f"{f', nor anything measured on fewer than {FEWEST_TO_SAY} compositions' if few else ''}."
    )


def _incomplete(inputs: HullInputs) -> str:
    """The elements of candidates of which there is no phase alone."""
    there = (inputs.fractions[inputs.asked] > 0).any(axis=0) & inputs.absent
    if not there.any():
        return ""
    symbols = ", ".join(chemical_symbols[k + 1] for k in np.flatnonzero(there))
    return (
        f"There is no phase of {symbols} alone: candidates that hold it may be farther from the hull than is said "
        "(flag hull_incomplete); add phases of the whole chemical system."
    )


def _left_out(inputs: HullInputs) -> Iterator[str]:
    """Phases that do not shape the hull, and why."""
    guarded = list(inputs.guards)
    if guarded:
        some = ", ".join(str(inputs.found.table["id"].iloc[k]) for k in guarded[:_MOST_NAMED])
        more = f" and {len(guarded) - _MOST_NAMED} more" if len(guarded) > _MOST_NAMED else ""
        yield f"Kept from shaping the hull by their flags: {some}{more}."
    # candidates have their reasons in the table
    unusable = np.setdiff1d(inputs.phases, np.union1d(inputs.usable, inputs.candidates))
    reasons = [*inputs.unscored, *(inputs.why_not(k) for k in unusable.tolist())]
    if reasons:
        yield f"Phases that do not compete: {len(reasons):,}, {reasons_in_short(reasons)}"
