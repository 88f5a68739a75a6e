"""From errors of single structures to those of decisions: joint errors, differences, hulls, where errors cancel."""

from mace_bounds.decisions.choosing import JointModel, Reliability
from mace_bounds.decisions.corrections import (
    Corrections,
    metals_by_hubbard,
    mp2020_corrections,
    no_corrections,
    oxide_types_of,
)
from mace_bounds.decisions.differences import (
    NOT_CALIBRATED,
    SINGLE,
    DifferenceBounds,
    EnergySums,
    difference_bounds,
    kinds_of,
    sums,
)
from mace_bounds.decisions.groups import POLYMORPH, REACTION, STRAINED, log_volumes
from mace_bounds.decisions.hull import HullDraws, Mixtures, cheapest_mixtures, hull_distances
from mace_bounds.decisions.hull_prior import (
    FEWEST_TO_SAY,
    GUARDED_LABEL,
    LIMITS_MEV,
    HullPrior,
    cells,
)
from mace_bounds.decisions.joint import JointErrors, Marginals
from mace_bounds.decisions.kept import (
    JOINT,
    joint_bytes,
    joint_file,
    joint_model,
    measured_groups,
    with_strained,
)
from mace_bounds.decisions.likeness import Copula, Independent, Likeness, PopsLikeness
from mace_bounds.decisions.reactions import Reaction, check_balanced, parse_reaction

__all__ = [
    "FEWEST_TO_SAY",
    "GUARDED_LABEL",
    "JOINT",
    "LIMITS_MEV",
    "NOT_CALIBRATED",
    "POLYMORPH",
    "REACTION",
    "SINGLE",
    "STRAINED",
    "Copula",
    "Corrections",
    "DifferenceBounds",
    "EnergySums",
    "HullDraws",
    "HullPrior",
    "Independent",
    "JointErrors",
    "JointModel",
    "Likeness",
    "Marginals",
    "Mixtures",
    "PopsLikeness",
    "Reaction",
    "Reliability",
    "cells",
    "cheapest_mixtures",
    "check_balanced",
    "difference_bounds",
    "hull_distances",
    "joint_bytes",
    "joint_file",
    "joint_model",
    "kinds_of",
    "log_volumes",
    "measured_groups",
    "metals_by_hubbard",
    "mp2020_corrections",
    "no_corrections",
    "oxide_types_of",
    "parse_reaction",
    "sums",
    "with_strained",
]
