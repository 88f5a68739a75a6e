"""Energies with their bounds as entries of pymatgen, whose own tools then show the widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

    from mace_bounds.bounds.decision_rows import DecisionRows
    from mace_bounds.decisions import Corrections


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
