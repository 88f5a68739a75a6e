"""The identity of a model: a hash of its tensors, whatever file they came from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def tensor_digest(names: Iterable[str], tensor: Callable[[str], Any]) -> str:
    """SHA-256 of named tensors, hex.

    For every name in sorted order (by code point) the hash takes the name in UTF-8, a zero byte, the shape as decimal
    numbers with commas between them, a zero byte, and the values in C order as little-endian float64. Precision,
    device, format and order in the file have no part in it: float32 weights have the same digest as the same values
    kept in float64.

    Parameters
    ----------
    names : iterable of str
    tensor : callable
        Gives the array of a name; called once for each, so that one float64 copy is in memory at a time.
    """
    sha = hashlib.sha256()
    for name in sorted(names):
        values = np.asarray(tensor(name), dtype="<f8", order="C")
        sha.update(f"{name}\0{','.join(map(str, values.shape))}\0".encode())
        sha.update(values.data)
    return sha.hexdigest()
