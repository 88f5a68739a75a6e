"""Which weights a property is computed with: those of a head of one chemistry, or the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import DEFAULT_MODEL
from mace_bounds.propagation import Potential
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    from mace_bounds.bounds.predictor import ModelLike
    from mace_bounds.features import ExtractSettings

_SHORT = 12
VALUES_ALONE = (
    "these are the model's own values, without intervals: the errors of its properties were not measured, and a head "
    "that was fitted to energies of many compositions cannot tell them."
)


@dataclass(frozen=True, eq=False)
class PropertyPotential:
    """A potential with what a table says of it.

    Attributes
    ----------
    potential : Potential
    notes : tuple of str
        What to know of its intervals, in sentences.
    """

    potential: Potential
    notes: tuple[str, ...] = ()

    def provenance(self, level: float) -> dict[str, Any]:
        """Values of :data:`mace_bounds.columns.PROVENANCE` for a table of properties."""
        model = self.potential.backbone
        return {
            "model": model.name,
            "features_of": model.name,
            "model_digest": model.digest[:_SHORT],
            "head": None,
            "head_digest": None,
            "level": level,
            "quantity": "properties at 0 K",
            "version": __version__,
        }


def property_potential(model: ModelLike | None, extract: ExtractSettings) -> PropertyPotential:
    """Load a model for properties.

    Parameters
    ----------
    model : str, path, module or Backbone, optional
        ``"medium-mpa-0"`` by default.
    extract : ExtractSettings
        Device, precision and memory.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    """
    backbone = extract.load(DEFAULT_MODEL if model is None else model)
    return PropertyPotential(Potential.frozen(backbone), (VALUES_ALONE,))
