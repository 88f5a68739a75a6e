"""The groups of structures in which a comparison reports coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.metrics import Membership, chemistry_classes, element_membership, membership, size_bins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.benchmark.splits import Split


def row_groups(table: pd.DataFrame, flags: Mapping[str, NDArray[np.bool_]]) -> dict[str, Membership]:
    """The groups in which test rows are reported, from the table's columns and the product's flags."""
    raised = np.column_stack([*flags.values(), np.any(list(flags.values()), axis=0)])
    return {
        "all": membership(["all"] * len(table)),
        **_plain_groups(table),
        "flag": Membership((*flags, "any"), raised),
    }


def _plain_groups(table: pd.DataFrame) -> dict[str, Membership]:
    """The groups that do not depend on a head."""
    return {
        "source": membership(table["source"].to_numpy(dtype=object)),
        "size": membership(size_bins(table["n_atoms"].to_numpy(dtype=int))),
        "chemistry": membership(chemistry_classes(table["elements"].tolist())),
        "element": element_membership(table["chemical_system"].tolist()),
    }


def distinct_structures(splits: Sequence[Split], table: pd.DataFrame) -> dict[tuple[str, str, str], int]:
    """Different test structures of each group over the splits of a kind."""
    groups = {"all": membership(["all"] * len(table)), **_plain_groups(table)}
    counts = {}
    for kind in {split.kind for split in splits}:
        tested = np.any([split.test for split in splits if split.kind == kind], axis=0)
        for by, members in groups.items():
            for name, n in zip(members.names, members.matrix[tested].sum(axis=0), strict=True):
                counts[kind, by, name] = int(n)
    return counts
