"""Bounds in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mace_bounds.bounds.predictor import BoundsPredictor, ModelLike
from mace_bounds.calibration import CalibratedHead
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import Source

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.bounds.energies import Energies


class _Options(TypedDict, total=False):
    """Parameters of a :class:`BoundsPredictor`."""

    model: ModelLike | None
    head: str | Path | CalibratedHead | None
    level: float
    settings: ExtractSettings | None
    quantity: str
    trained_on: str | None


def score(
    structures: Source, *, energies: Energies | None = None, **options: Unpack[_Options]
) -> pd.DataFrame:
    """Bound the DFT energy of each structure: :meth:`BoundsPredictor.predict` in one call.

    Loading takes seconds: for more than one call make a :class:`BoundsPredictor`.

    Parameters
    ----------
    structures, energies
        As in :meth:`BoundsPredictor.predict`.
    **options
        ``model``, ``head``, ``level``, ``settings``, ``quantity`` and ``trained_on`` of :class:`BoundsPredictor`.
    """
    return BoundsPredictor(**options).predict(structures, energies=energies)
