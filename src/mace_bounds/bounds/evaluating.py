"""For whatever moves atoms: one structure with its bounds and what its forces need, and a committee of energies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.units import Bohr, Hartree
from numpy.typing import ArrayLike, NDArray

from mace_bounds.backbones import Derivatives, Evaluation, FeatureBlock, require_gradients
from mace_bounds.bounds.energies import with_energies
from mace_bounds.bounds.explanation import Bounds
from mace_bounds.bounds.table import one_row
from mace_bounds.calibration import CalibratedHead
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.errors import HeadError
from mace_bounds.features import block_rows
from mace_bounds.structures import Crystal, Record

if TYPE_CHECKING:
    from mace_bounds.bounds.predictor import BoundsPredictor

    Array = NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class LinearCorrection:
    """What a head adds to the energy of a cell: ``features @ of_features_ev + counts @ of_atoms_ev``, K of them."""

    of_features_ev: Array  # shape (K, C): for a unit of each summed feature
    of_atoms_ev: Array  # shape (K, 118): for an atom of each element

    def energies_ev(self, features: Array, crystal: Crystal) -> Array:
        """Of a cell with summed features (C,), shape (K,)."""
        counts = np.bincount(crystal.numbers, minlength=119)[1:119]
        return np.asarray(self.of_features_ev @ features + self.of_atoms_ev @ counts)


def expected_correction(head: CalibratedHead) -> LinearCorrection:
    """The expected error as a function of positions, K = 1: what takes the model's energy to ``energy_expected_ev``."""
    correction = _linear_correction(head, head.centre.share * head.pops.ridge.coefficients[None])
    return LinearCorrection(correction.of_features_ev, correction.of_atoms_ev + head.centre.shifts)


def drawn_corrections(head: CalibratedHead, n: int, seed: int = 0) -> LinearCorrection:
    """Draw ``n`` deviations from the head's POPS posterior, less their mean; not stretched to errors yet."""
    posterior = head.pops.posteriors[head.material.draws] if head.material else head.pops.posterior
    deviations = posterior.sample(n, np.random.default_rng(seed))
    return _linear_correction(head, (deviations - deviations.mean(axis=0)) @ head.pops.axes.T)


def _linear_correction(head: CalibratedHead, coefficients: Array) -> LinearCorrection:
    """Coefficients on fitted columns per atom (K, m) as weights of sums over the cell."""
    raw, constant = head.pops.design.on_raw_columns(coefficients)
    n_features = len(head.identity.columns)
    of_atoms = np.zeros((len(coefficients), 118))
    if head.identity.composition:
        of_atoms += raw[:, n_features:]
    return LinearCorrection(raw[:, :n_features], of_atoms + constant[:, None])


@dataclass(frozen=True, eq=False)
class Committee:
    """K potentials about the one in use, whose energies spread as the calibrated standard deviation says.

    Attributes
    ----------
    energy_ensemble_ev : ndarray, shape (K,)
        Their mean is the energy in use, their standard deviation (K - 1 degrees of freedom) ``energy_uncertainty``.
    forces_ev_a : ndarray, shape (K, n_atoms, 3)
    stress_ev_a3 : ndarray, shape (K, 3, 3)
        Derivatives of these energies at a fixed ``stretch``. That they spread as errors of forces do was not measured.
    stretch : float
        By what the draws of the posterior were multiplied.
    volume_a3 : float
    """

    energy_ensemble_ev: Array
    forces_ev_a: Array
    stress_ev_a3: Array
    stretch: float
    volume_a3: float

    @property
    def forces_uncertainty_ev_a(self) -> Array:
        """Standard deviation of each force component, shape (n_atoms, 3)."""
        return np.asarray(self.forces_ev_a.std(axis=0, ddof=1))

    @property
    def stress_uncertainty_ev_a3(self) -> Array:
        """Standard deviation of each stress component, shape (3, 3)."""
        return np.asarray(self.stress_ev_a3.std(axis=0, ddof=1))

    def to_ipi(self) -> str:
        """JSON that a driver of i-PI gives back as ``extras`` for ``ffcommittee`` with ``parse_json``.

        ``committee_pot`` (K,), ``committee_force`` (K, n_atoms, 3) and ``committee_virial`` (K, 3, 3) in atomic units,
        the virial being minus the derivative with respect to strain, as in i-PI.
        """
        return json.dumps(
            {
                "committee_pot": (self.energy_ensemble_ev / Hartree).tolist(),
                "committee_force": (self.forces_ev_a * (Bohr / Hartree)).tolist(),
                "committee_virial": (-self.stress_ev_a3 * (self.volume_a3 / Hartree)).tolist(),
            }
        )


def committee_of(
    drawn: LinearCorrection,
    mean: Derivatives,
    seen: Evaluated,
    crystal: Crystal,
    std_ev: float | None,
    stretch: float | None = None,
) -> Committee:
    """Stretch draws to the calibrated standard deviation of a structure, and differentiate them.

    Parameters
    ----------
    drawn : LinearCorrection
        K >= 2 draws (:func:`drawn_corrections`).
    mean : Derivatives
        The potential in use, K = 1.
    seen : Evaluated
    crystal : Crystal
    std_ev : float or None
        Calibrated standard deviation of the energy of the cell.
    stretch : float, optional
        Instead of what ``std_ev`` asks for: one number for a whole trajectory keeps every member conservative.

    Raises
    ------
    HeadError
        If there is neither.
    """
    energies = drawn.energies_ev(seen.features.features, crystal)
    if stretch is None:
        if std_ev is None:
            raise HeadError(
                "the head has no 68 % level, so that there is no standard deviation to stretch a committee to; give "
                "stretch=."
            )
        stretch = std_ev / float(energies.std(ddof=1))
    weights = stretch * drawn.of_features_ev
    model, members = seen.derivatives(), seen.derivatives(weights)
    return Committee(
        mean.energy_ev + stretch * energies,
        mean.forces_ev_a + members.forces_ev_a - model.forces_ev_a,
        mean.stress_ev_a3 + members.stress_ev_a3 - model.stress_ev_a3,
        stretch,
        crystal.volume,
    )


def std_ev(bounds: Bounds) -> float | None:
    """Calibrated standard deviation of the energy of a cell; None where the head has no 68 % level."""
    std = bounds.std_mev_per_atom
    return None if std is None else std * bounds.n_atoms / MEV_PER_EV
