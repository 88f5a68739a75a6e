"""Splits by chemistry: every group goes to one side, whatever the order or the rest of the data.

Each group (reduced formula, chemical system, prototype) is placed by its own hash. Shares are therefore met
only on average over groups, but membership never changes when rows are reordered or when the data grows: a
composition that calibrated yesterday's head does not train tomorrow's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError


def _hash64(text: str) -> int:
    """First eight bytes of the SHA-256 of ``text``, big endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _unit_hash(groups: Sequence[str] | NDArray[np.str_], salt: str) -> NDArray[np.float64]:
    """Map each group to [0, 1) by the hash of ``salt:group``; equal groups get equal numbers."""
    values: dict[str, float] = {}
    out = np.empty(len(groups))
    for i, group in enumerate(groups):
        key = str(group)
        if key not in values:
            values[key] = (_hash64(f"{salt}:{key}") >> 11) / 2.0**53
        out[i] = values[key]
    return out


def assign_splits(
    groups: Sequence[str] | NDArray[np.str_], shares: Mapping[str, float], seed: int
) -> NDArray[np.str_]:
    """Assign rows to named splits so that no group straddles two of them.

    Parameters
    ----------
    groups : sequence of str, shape (n,)
        What must stay together: reduced formula, chemical system, prototype.
    shares : mapping of str to float
        Split name to share of the groups; not negative, sum 1. The order of the mapping is part of the
        definition.
    seed : int
        Another seed gives an independent assignment.

    Returns
    -------
    ndarray of str, shape (n,)
        Name of the split of each row.

    Raises
    ------
    HeadError
        If the shares are negative or do not sum to one.

    Notes
    -----
    A group goes where the number ``sha256(f"{seed}:{group}") / 2**64`` falls among the cumulative shares,
    so the shares hold for groups in expectation, not for rows exactly.
    """
    values = np.array(list(shares.values()), dtype=np.float64)
    if values.size == 0 or not np.all(values >= 0) or not math.isclose(values.sum(), 1.0, abs_tol=1e-9):
        raise HeadError(
            f"the shares of the splits, {dict(shares)}, are negative or do not sum to 1; correct them."
        )
    names = np.array(list(shares), dtype=np.str_)
    cuts = np.cumsum(values)
    last = int(np.flatnonzero(values > 0)[-1])
    index = np.searchsorted(cuts, _unit_hash(groups, str(seed)), side="right")
    assigned: NDArray[np.str_] = names[np.minimum(index, last)]
    return assigned


def group_folds(groups: Sequence[str] | NDArray[np.str_], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Assign rows to cross-validation folds so that no group straddles two of them.

    Parameters
    ----------
    groups : sequence of str, shape (n,)
        What must stay together.
    n_folds : int
        Number of folds, at least 2.
    seed : int
        Another seed gives an independent assignment, also independent of :func:`assign_splits` with the
        same seed.

    Returns
    -------
    ndarray of int64, shape (n,)
        Fold of each row, 0 to ``n_folds - 1``. With few groups a fold may be empty.
    """
    if n_folds < 2:
        raise HeadError(f"{n_folds} folds are too few; use 2 or more.")
    return np.floor(_unit_hash(groups, f"fold:{seed}") * n_folds).astype(np.int64)


def hashed_order(
    groups: Sequence[str] | NDArray[np.str_], salt: str, within: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Put rows into an order that is random but does not depend on the order in which they come, shape (n,).

    A row is known by its group and its place in it by ``within`` (n,).
    """
    labels = np.asarray(groups, dtype=np.str_)
    order = np.lexsort((within, labels))
    starts = np.concatenate([[True], labels[order][1:] != labels[order][:-1]])
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    names = [f"{group}#{k}" for group, k in zip(labels[order], place, strict=True)]
    return np.asarray(order[np.argsort(_unit_hash(names, salt), kind="stable")])
