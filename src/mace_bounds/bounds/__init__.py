"""A model and its head together: one predictor, its bounds, the library of heads."""

from mace_bounds.bounds.deciding import LEFT_OUT, Deciding, HullSettings, hull_among
from mace_bounds.bounds.decision_rows import DecisionRows
from mace_bounds.bounds.difference_tables import Difference
from mace_bounds.bounds.energies import NO_ENERGY, Energies, GivenEnergies, energy_note, with_energies
from mace_bounds.bounds.entries import entries_with_bounds
from mace_bounds.bounds.evaluating import (
    Committee,
    Evaluated,
    LinearCorrection,
    bounds_of,
    committee_of,
    drawn_corrections,
    evaluate,
    expected_correction,
    std_ev,
)
from mace_bounds.bounds.explanation import Bounds, Contribution, Explanation, Neighbour, NovelAtom
from mace_bounds.bounds.files import OF_CRYSTALS, SUFFIXES, TableFormat, table_bytes
from mace_bounds.bounds.geometry import (
    SPACE_GROUP,
)
from mace_bounds.bounds.hull_notes import joint_note
from mace_bounds.bounds.hulls import Hull
from mace_bounds.bounds.library import (
    HeadCard,
    find_head,
    install_head,
    list_heads,
    load_head,
    read_card,
    remove_head,
)
from mace_bounds.bounds.pieces import MOST_ATOMS, MOST_STRUCTURES, n_atoms_of, pieces
from mace_bounds.bounds.predictor import BoundsPredictor
from mace_bounds.bounds.properties import PropertyPotential, property_potential
from mace_bounds.bounds.scoring import score
from mace_bounds.bounds.table import (
    IN_TRAINING,
    SUSPECT,
    bounds_table,
    detailed_table,
    provenance,
    unscored_table,
)

__all__ = [
    "IN_TRAINING",
    "LEFT_OUT",
    "MOST_ATOMS",
    "MOST_STRUCTURES",
    "NO_ENERGY",
    "OF_CRYSTALS",
    "SPACE_GROUP",
    "SUFFIXES",
    "SUSPECT",
    "Bounds",
    "BoundsPredictor",
    "Committee",
    "Contribution",
    "Deciding",
    "DecisionRows",
    "Difference",
    "Energies",
    "Evaluated",
    "Explanation",
    "GivenEnergies",
    "HeadCard",
    "Hull",
    "HullSettings",
    "LinearCorrection",
    "Neighbour",
    "NovelAtom",
    "PropertyPotential",
    "TableFormat",
    "bounds_of",
    "bounds_table",
    "committee_of",
    "detailed_table",
    "drawn_corrections",
    "energy_note",
    "entries_with_bounds",
    "evaluate",
    "expected_correction",
    "find_head",
    "hull_among",
    "install_head",
    "joint_note",
    "list_heads",
    "load_head",
    "n_atoms_of",
    "pieces",
    "property_potential",
    "provenance",
    "read_card",
    "remove_head",
    "score",
    "std_ev",
    "table_bytes",
    "unscored_table",
    "with_energies",
]
