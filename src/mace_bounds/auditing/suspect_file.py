"""The list of suspect entries of an audit: what it needs from table and features, and its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.suspect_table import suspect_table
from mace_bounds.features import atomic_fractions
from mace_bounds.fitting import labelled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import CalibratedHead
    from mace_bounds.features import FeatureRows

MINIMUM = 30  # labelled structures; with fewer there are no neighbours to speak of


def suspects(
    table: pd.DataFrame, shards: Iterable[FeatureRows], head: CalibratedHead, out: Path
) -> dict[str, Any]:
    """Write the suspect entries; return what the summary says of them.

    Memory goes with the labelled rows: features per atom and atomic fractions in single precision.
    """
    (out / _folder.SUSPECTS).unlink(missing_ok=True)
    rows = labelled(table, head.levels.values, suspect=True)
    if len(rows) < MINIMUM:
        return {"n": 0, "why": f"fewer than {MINIMUM} labelled structures"}
    ranked = suspect_table(rows, *per_atom(shards, table["error_mev_per_atom"].notna().to_numpy()))
    _folder.write_csv(ranked, out / _folder.SUSPECTS)
    likely = ranked["likely"].value_counts()
    return {"n": len(ranked), **{str(name): int(n) for name, n in likely.items()}}


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
