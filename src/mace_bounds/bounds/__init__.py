"""A model and its head together: one predictor, its bounds, the library of heads."""

from mace_bounds.bounds.geometry import (
    DENSITY,
    GEOMETRY,
    HULL,
    SPACE_GROUP,
    VOLUME,
    geometry_columns,
)
from mace_bounds.bounds.library import (
    HeadCard,
    find_head,
    list_heads,
    read_card,
    user_heads,
)
from mace_bounds.bounds.scoring import (
    concat,
    feature_kind,
    open_pair,
    score,
    score_batches,
    wants_atoms,
)
from mace_bounds.bounds.table import (
    COLUMNS,
    IN_TRAINING,
    MEV_PER_EV,
    MIN_COVERING_LEVEL,
    bound_columns,
    bounds_table,
    detailed_table,
)

__all__ = [
    "COLUMNS",
    "DENSITY",
    "GEOMETRY",
    "HULL",
    "IN_TRAINING",
    "MEV_PER_EV",
    "MIN_COVERING_LEVEL",
    "SPACE_GROUP",
    "VOLUME",
    "HeadCard",
    "bound_columns",
    "bounds_table",
    "concat",
    "detailed_table",
    "feature_kind",
    "find_head",
    "geometry_columns",
    "list_heads",
    "open_pair",
    "read_card",
    "score",
    "score_batches",
    "user_heads",
    "wants_atoms",
]
