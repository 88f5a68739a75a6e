"""The convex hull of an audited chemical system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds.auditing.folder import BOUNDS, HULL, HULL_PHASES
from mace_bounds.bounds import DecisionRows, hull_among
from mace_bounds.decisions import joint_model
from mace_bounds.errors import MaceBoundsError
from mace_bounds.features import FeatureRows
from mace_bounds.structures import TOTAL_ENERGY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mace_bounds.auditing.folder import AuditFolder
    from mace_bounds.calibration import CalibratedHead

MOST_ELEMENTS, FEWEST_COMPOUNDS, MOST_STRUCTURES = 6, 3, 2000
"""What is taken for a chemical system: few elements, each with a phase of its own, and some compounds; a hull of more
structures takes too long for a part of a report."""


def write_system_hull(
    rows: Iterable[FeatureRows], head: CalibratedHead, level: float, folder: AuditFolder
) -> dict[str, Any] | None:
    """Write the hull of a source that is a chemical system; returns what the summary says of it, None for others.

    Bounds are those in the folder, which heads of folds may have given; ``head`` says which errors go together.
    """
    scored = folder.read(BOUNDS, ["chemical_system", "formula", "reason"])
    scored = scored[scored["reason"].isna()]
    systems = set(scored["chemical_system"])
    elements = {symbol for system in systems for symbol in system.split("-")}
    compounds = scored["formula"].nunique() - len(elements)
    small = 2 <= len(elements) <= MOST_ELEMENTS and len(scored) <= MOST_STRUCTURES
    whole = elements <= systems and compounds >= FEWEST_COMPOUNDS
    if head.identity.quantity != TOTAL_ENERGY or not (small and whole):
        return None
    table, every = folder.read(BOUNDS), FeatureRows.join(list(rows))
    failed = table["reason"].notna()
    found = DecisionRows(
        every.scored(),
        table[~failed].reset_index(drop=True),
        table.loc[failed, ["id", "formula", "reason"]].reset_index(drop=True),
        head,
        joint_model(head),
        level,
    )
    try:
        hull = hull_among(found)
    except MaceBoundsError:  # no phase may shape a hull
        return None
    folder.write(HULL, hull.table)
    folder.write(HULL_PHASES, hull.phases)
    return {"elements": sorted(elements), "n_phases": len(hull.phases), "notes": list(hull.notes)}
