"""What a head of one chemistry is beside its bounds: a potential with error bars.

Its mean is a refit of the frozen readout to energies, forces and stress of one chemistry, and is used: its energies are
:attr:`CalibratedHead.centre` away from the model's, relative to a reference that it states.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mace_bounds.backbones import Backbone
from mace_bounds.errors import HeadError
from mace_bounds.head import Coefficients, PopsPrediction
from mace_bounds.structures import Record

if TYPE_CHECKING:
    from mace_bounds.calibration.calibrated import CalibratedHead

    Array = NDArray[np.float64]

ENVELOPE = "hypercube"
"""The posterior of a material head that is the unclipped box of all corrections: its support is the envelope."""
ELLIPSOID = "ellipsoid"
"""The posterior that draws come from, unless it is wider than the envelope."""


@dataclass(frozen=True)
class Material:
    """What only a head of one chemistry says.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers of its chemistry; structures with others are refused.
    reference : str
        What its energies are relative to, in words.
    draws : str
        The posterior that draws of coefficients and their standard deviations come from.
    stretch : float
        By which its deviations are multiplied: see :class:`mace_bounds.head.Coefficients`.
    left_out : tuple of float
        For each level of the head the multiple of the standard deviation within which that share of the frames was, of
        the worst of the families that were left out of the fit in turn: what intervals of unknown families are made of.
        Empty where there were too few families.
    """

    elements: tuple[int, ...]
    reference: str
    draws: str
    stretch: float
    left_out: tuple[float, ...] = ()

    @property
    def symbols(self) -> str:
        """Its chemistry, as ``"W"`` or ``"Mo-W"``."""
        return "-".join(sorted(chemical_symbols[z] for z in self.elements))

    def reason(self, elements: Iterable[int]) -> str | None:
        """One sentence why a structure of some elements cannot be bounded; None where it can."""
        others = sorted(chemical_symbols[z] for z in set(elements) - set(self.elements))
        if not others:
            return None
        return (
            f"the head is for {self.symbols} alone, and the structure holds {', '.join(others)}; use a head of all "
            "chemistries (leave out --head)."
        )

    def checked(self, record: Record) -> Record:
        """The record, or one with the reason why it cannot be bounded."""
        if record.crystal is None or (reason := self.reason(record.crystal.counts)) is None:
            return record
        return Record.failed(reason, id=record.id, source=record.source)

    def std(self, pops: PopsPrediction) -> Array:
        """Standard deviation of energies (n,) under the posterior of the draws, before it is stretched, eV/atom."""
        return pops.ellipsoid_std if self.draws == ELLIPSOID else pops.misspecification_std

    def half_widths(self, pops: PopsPrediction) -> Array:
        """Half-widths of the intervals of unknown families, shape (n, n_levels), eV/atom."""
        return np.outer(self.std(pops), self.left_out)

    def covering_level(self, pops: PopsPrediction, error: Array, levels: Iterable[float]) -> Array:
        """Level above which these intervals hold errors (n,), interpolated between the levels of the head."""
        ratio = np.abs(error) / np.maximum(self.std(pops), 1e-12)
        return np.asarray(np.interp(ratio, [0.0, *self.left_out], [0.0, *levels], right=1.0))

    def to_config(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return {**asdict(self), "elements": list(self.elements), "left_out": list(self.left_out)}


def unknown_families(
    material: Material | None, sources: Iterable[Any], known: Collection[str]
) -> NDArray[np.bool_]:
    """Whether rows name no family that has quantiles of its own; none does with a head of all chemistries."""
    return np.array([material is not None and source not in known for source in sources], dtype=bool)


def readout_coefficients(
    head: CalibratedHead, model: Backbone, fractions: NDArray[np.float64] | None = None
) -> Coefficients:
    """Weights of the refitted readout on [Σ features, n_atoms], eV, with their misspecification.

    Parameters
    ----------
    head : CalibratedHead
        Of one chemistry.
    model : Backbone
        Its frozen model.
    fractions : ndarray, shape (118,), optional
        Atomic fractions of the cell that is meant, which decide the weight of the count of atoms; needed where the
        head is of several elements.

    Returns
    -------
    Coefficients
        Columns as those of :attr:`Backbone.theta0_ev`: E = θ · [Σ features, n_atoms] + fixed energy.

    Raises
    ------
    HeadError
        If the head is of all chemistries, or of several elements and ``fractions`` are not given.
    """
    material = head.material
    if material is None:
        raise HeadError(
            f"the head {head.name} is of all chemistries and has no coefficients to propagate; use a head of one "
            "chemistry (mace-bounds fit-material)."
        )
    if fractions is None:
        if len(material.elements) > 1:
            raise HeadError(
                f"the head {head.name} is of {material.symbols}; say of which composition the cell is."
            )
        fractions = np.zeros(head.pops.design.active.size - len(head.identity.columns))
        fractions[material.elements[0] - 1] = 1.0
    mean, axes = raw_coefficients(head)
    n = len(head.identity.columns)
    together = np.vstack([np.eye(n, len(mean)), np.concatenate([np.zeros(n), fractions])])
    return Coefficients(
        mean=model.theta0_ev + together @ mean,
        axes=together @ axes,
        posterior=head.pops.posteriors[material.draws],
        box=head.pops.posteriors[ENVELOPE],
        stretch=material.stretch,
    )


def raw_coefficients(head: CalibratedHead) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean correction (P,) on features and atomic fractions, eV, and the axes (P, m) of its deviations."""
    mean, axes = (
        head.pops.design.on_raw_columns(rows)[0]
        for rows in (head.pops.ridge.coefficients[None], head.pops.axes.T)
    )
    return head.centre.share * mean[0], axes.T
