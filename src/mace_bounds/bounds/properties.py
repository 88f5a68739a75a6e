"""Which weights a property is computed with, and what its intervals are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.backbones import DEFAULT_MODEL
from mace_bounds.bounds.library import find_head, load_head, named_by_the_head
from mace_bounds.bounds.table import provenance
from mace_bounds.calibration import CalibratedHead, readout_coefficients
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings
from mace_bounds.propagation import MeasuredErrors, Potential, PropagateSettings, measured_errors
from mace_bounds.structures import Crystal
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    from mace_bounds.bounds.predictor import ModelLike

_SHORT = 12
VALUES_ALONE = (
    "these are the model's own values, without intervals: the errors of its properties were not measured, and a head "
    "that was fitted to energies of many compositions cannot tell them."
)
NOT_MEASURED = (
    "intervals are calibrated for V0, B0 and phase differences of elements, V0 and B0 of oxides, and bulk and shear "
    "moduli of binaries; others are the range of draws, whose coverage nobody measured."
)


@dataclass(frozen=True, eq=False)
class PropertyPotential:
    """A potential with what a table says of it.

    Attributes
    ----------
    potential : Potential
    errors : MeasuredErrors or None
        Of its properties, where they are known.
    notes : tuple of str
        What to know of its intervals, in sentences.
    head : CalibratedHead or None
        Whose weights it has; None for the model's own.
    """

    potential: Potential
    errors: MeasuredErrors | None = None
    notes: tuple[str, ...] = ()
    head: CalibratedHead | None = None

    def provenance(self, level: float) -> dict[str, Any]:
        """Values of :data:`mace_bounds.columns.PROVENANCE` for a table of properties."""
        about = {"quantity": "properties at 0 K", "level": level}
        if self.head is not None:
            return provenance(self.head, level) | about
        model = self.potential.backbone
        return {
            "model": model.name,
            "features_of": model.name,
            "model_digest": model.digest[:_SHORT],
            "head": None,
            "head_digest": None,
            "version": __version__,
            **about,
        }


def property_potential(
    model: ModelLike | None,
    head: str | Path | None,
    extract: ExtractSettings,
    settings: PropagateSettings,
    crystals: Sequence[Crystal] = (),
) -> PropertyPotential:
    """Load a model, or a head of one chemistry, for properties.

    Parameters
    ----------
    model : str, path, module or Backbone, optional
        The head's model where only a head is given, else ``"medium-mpa-0"``.
    head : str or path, optional
        A head of one chemistry; without one the model's own weights, with measured errors where they are known.
    extract : ExtractSettings
        Device, precision and memory.
    settings : PropagateSettings
        How many draws, and their seed.
    crystals : sequence of Crystal
        What it is for: a head of several elements needs their composition.

    Raises
    ------
    HeadError
        If the head is of all chemistries, of other elements, or of another model.
    ModelError
        If the model cannot be loaded.
    """
    if head is None:
        backbone = extract.load(DEFAULT_MODEL if model is None else model)
        errors = measured_errors(backbone)
        if errors is None:
            return PropertyPotential(Potential.frozen(backbone), notes=(VALUES_ALONE,))
        potential = Potential.of(backbone, errors.coefficients, settings.n_draws, settings.seed)
        return PropertyPotential(potential, errors, (NOT_MEASURED,))
    loaded = load_head(find_head(None, head))
    backbone = extract.load(named_by_the_head(loaded) if model is None else model)
    loaded.check_model(backbone)
    fractions = _fractions(loaded, crystals)
    coefficients = readout_coefficients(loaded, backbone, fractions)
    return PropertyPotential(
        Potential.of(backbone, coefficients, settings.n_draws, settings.seed), head=loaded
    )


def _fractions(
    head: CalibratedHead, crystals: Sequence[Crystal]
) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Atomic fractions that all crystals share; None where the head needs none."""
    if head.material is None or len(head.material.elements) < 2:
        return None
    for crystal in crystals:
        if (reason := head.material.reason(crystal.counts)) is not None:
            raise HeadError(reason)
    if len({crystal.formula for crystal in crystals}) != 1:
        raise HeadError(
            f"the head {head.name} is of {head.material.symbols}; give structures of one composition at a time."
        )
    numbers = crystals[0].numbers
    return np.bincount(numbers - 1, minlength=118)[:118] / len(numbers)
