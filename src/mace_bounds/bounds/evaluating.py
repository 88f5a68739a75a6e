"""One structure with its bounds and what its forces need: for whatever moves atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.backbones import Derivatives, Evaluation, FeatureBlock, require_gradients
from mace_bounds.bounds.energies import with_energies
from mace_bounds.bounds.explanation import Bounds
from mace_bounds.bounds.table import one_row
from mace_bounds.errors import HeadError
from mace_bounds.features import block_rows
from mace_bounds.structures import Crystal, Record

if TYPE_CHECKING:
    from mace_bounds.bounds.predictor import BoundsPredictor


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A structure that model and head have seen once; derivatives are computed when they are asked for."""

    energy: Evaluation  # by the model whose energies are bounded
    features: Evaluation  # by the model that gives the features; the same but for heads of published energies

    def derivatives(self, corrections_ev: ArrayLike | None = None) -> Derivatives:
        """Energies, forces and stresses of the model with ``corrections_ev`` · features added, shape (K, C)."""
        if self.energy is self.features or corrections_ev is None:
            return self.energy.derivatives(corrections_ev)
        model, base = self.energy.derivatives(), self.features.derivatives()
        head = self.features.derivatives(corrections_ev)
        return Derivatives(
            model.energy_ev + head.energy_ev - base.energy_ev,
            model.forces_ev_a + head.forces_ev_a - base.forces_ev_a,
            model.stress_ev_a3 + head.stress_ev_a3 - base.stress_ev_a3,
        )


def evaluate(predictor: BoundsPredictor, crystal: Crystal) -> Evaluated:
    """Run the models of a predictor on a crystal whose elements they know.

    Raises
    ------
    ModelError
        If a model gives no derivatives.
    HeadError
        If the head needs energies of a model that is not there.
    """
    features = require_gradients(predictor.model).evaluate(crystal, predictor.kind)
    model = predictor.energy_model
    if model is predictor.model:
        return Evaluated(features, features)
    if model is None:
        own = predictor.head.identity
        raise HeadError(
            f"the head {predictor.head.name} bounds energies of {own.model}, whose forces only that model has; give it "
            "as the model."
        )
    return Evaluated(require_gradients(model).evaluate(crystal), features)


def bounds_of(
    predictor: BoundsPredictor, record: Record, seen: Evaluated
) -> tuple[Bounds, NDArray[np.float64]]:
    """Bounds of a structure that has been evaluated, as :meth:`BoundsPredictor.bounds` says, without a second forward.

    Returns
    -------
    Bounds
    ndarray, shape (n_atoms,)
        Local grade of novelty of every atom (``gamma_atom_local`` is the largest); empty where the head grades none.
    """
    own = seen.features
    block = FeatureBlock(
        own.features[None],
        np.array([own.fixed_energy_ev]),
        np.array([own.energy_ev]),
        own.atoms.astype(np.float32) if predictor.head.wants_atoms else None,
    )
    rows = block_rows([record], block)
    if seen.energy is not own:
        rows = with_energies(rows, np.array([seen.energy.energy_ev]), np.array([None], dtype=object))
    row, intervals = one_row(rows, predictor.head, predictor.level, predictor.training_keys)
    return Bounds.of(row), np.empty(0) if intervals.novelty is None else intervals.novelty.of_atoms
