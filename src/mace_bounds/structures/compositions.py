"""Compositions as 64-bit keys: what heads and models remember of the data that they have seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def composition_key(formula: str) -> np.uint64:
    """Reduce a formula to 64 bits, so that a head can remember the compositions it has seen.

    Parameters
    ----------
    formula : str
        Reduced formula as :attr:`mace_bounds.structures.Crystal.formula` writes it.

    Returns
    -------
    uint64
        First eight bytes of the SHA-256 of the UTF-8 text, big endian. Among 1e6 formulas the chance of any
        collision is 3e-8.
    """
    return np.uint64(int.from_bytes(hashlib.sha256(formula.encode()).digest()[:8], "big"))


def composition_keys(formulas: Sequence[str] | NDArray[np.str_]) -> NDArray[np.uint64]:
    """Return the sorted, distinct keys of many formulas: what a head stores and ``np.isin`` looks up."""
    return np.unique(np.array([composition_key(str(formula)) for formula in formulas], dtype=np.uint64))


def joined_keys(*parts: NDArray[np.uint64] | None) -> NDArray[np.uint64] | None:
    """The keys of all parts, sorted; None, which stands for what is not known, only where all are None."""
    known = [keys for keys in parts if keys is not None]
    if len(known) < 2:
        return known[0] if known else None
    return np.unique(np.concatenate(known))


def compositions_in(
    formulas: Sequence[str] | NDArray[np.str_], keys: NDArray[np.uint64] | None
) -> NDArray[np.bool_]:
    """Tell which formulas are among stored compositions.

    Parameters
    ----------
    formulas : sequence of str, shape (n,)
        Reduced formulas.
    keys : ndarray of uint64, optional
        Sorted, from :func:`composition_keys`; nothing is among None, which stands for compositions that are not known.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if keys is None:
        return np.zeros(len(formulas), dtype=bool)
    wanted = np.array([composition_key(str(f)) for f in formulas], dtype=np.uint64)
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool)
    # the keys are sorted: a look-up costs a few comparisons, where np.isin would hash all keys for each call
    return np.asarray(keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)
