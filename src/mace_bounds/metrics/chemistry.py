"""Chemistry classes: the partition by which conformal quantiles are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_OXYGEN, _HYDROGEN = 8, 1
_HALOGENS = frozenset((9, 17, 35, 53))
_CHALCOGENS = frozenset((16, 34, 52))
_PNICTOGENS = frozenset((7, 15, 33))
_METALLOIDS = frozenset((5, 6, 14, 32, 51, 84, 85))
_NOBLE = frozenset((2, 10, 18, 36, 54, 86))
_NONMETALS = frozenset((_OXYGEN, _HYDROGEN)) | _HALOGENS | _CHALCOGENS | _PNICTOGENS | _METALLOIDS | _NOBLE


def chemistry_class(elements: Sequence[int]) -> str:
    """Class of a set of atomic numbers by its most electronegative anion.

    ``oxide`` (any O), else ``halide`` (F, Cl, Br, I), else ``chalcogenide`` (S, Se, Te), else ``pnictide``
    (N, P, As), else ``intermetallic`` (metals alone), else ``other`` (H, B, C, Si, Ge, Sb, noble gases).
    """
    present = {int(z) for z in elements}
    if _OXYGEN in present:
        return "oxide"
    for name, anions in (("halide", _HALOGENS), ("chalcogenide", _CHALCOGENS), ("pnictide", _PNICTOGENS)):
        if present & anions:
            return name
    return "other" if present & _NONMETALS else "intermetallic"


def chemistry_classes(elements: Sequence[Sequence[int]]) -> NDArray[np.str_]:
    """Class of each row, shape (n,); see :func:`chemistry_class`."""
    return np.array([chemistry_class(row) for row in elements], dtype="<U13")
