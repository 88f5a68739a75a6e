"""How far crystals like those of a head's data are from the hull: without it, P(stable) is said far too often.

A candidate whose energy is uncertain by 150 meV/atom may lie below the hull by its interval alone, but few crystals do.
Draws of its distance are therefore weighted by how often such distances are found among labelled crystals (Bayes): of
crystals with a rival, another phase of the same composition, which few beat, or of those without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from scipy.special import ndtri

from mace_bounds.calibration import group_folds
from mace_bounds.decisions.corrections import mp2020_corrections, oxide_types_of
from mace_bounds.decisions.hull import hull_distances
from mace_bounds.features import FeatureRows, atomic_fractions
from mace_bounds.structures import suspect_label

Array = NDArray[np.float64]

GUARDED_LABEL = frozenset({"suspect_label", "close_atoms", "isolated_atoms", "charged_cell"})
"""Flags with which a phase whose energy is a label may not shape the hull."""

LIMITS_MEV = (0, 25, 50, 100)
"""Distances from the hull, meV/atom, of which the probability is said: to be stable, and nearer than these."""

_WIDTH_EV = 0.02  # of the kernels on known distances, eV/atom
_ON_HULL_EV = 1e-9
_QUANTILES, _FOLDS = 201, 5
_FLOOR = 0.01  # of the mean: no distance is impossible
_FEWEST_ALIKE = 20  # crystals with rivals, or without, from which on they are looked at by themselves
FEWEST_COMPOSITIONS = 19
"""Compositions with a known distance that a head needs to measure probabilities."""
FEWEST_TO_SAY = 50
"""Compositions from which on that measurement is believed: with 30 it was passed by probabilities that did worse than
the share of stable crystals on 258 other ones (``scripts/decisions_study.py``)."""
MOST_ASKED = 1000
"""Crystals whose distance is looked for."""
FEWEST_COMPOUNDS = 20
"""Compositions beside the elements from which on a system is taken to have a hull."""


@dataclass(frozen=True, eq=False, repr=False)
class HullPrior:
    """Distances from the hull, by DFT, of left-out crystals, and whether probabilities made with them were any good."""

    distances: Array  # shape (n,): eV/atom, growing; below 0 by what a stable crystal gains
    rivals: NDArray[np.bool_]  # shape (n,): whether another phase had the composition of the crystal
    n_compositions: int
    # brier, base_rate_brier, shape (4,): mean squared error of the probabilities at LIMITS_MEV, and of the share of
    # crystals within the limit, on folds of compositions that took no part in them
    brier: Array
    base_rate_brier: Array

    def __repr__(self) -> str:
        return f"HullPrior({len(self.distances)} crystals of {self.n_compositions} compositions)"

    def is_reliable(self, limit_mev: float) -> bool:
        """Whether the probability of being within a limit did better than the share of crystals that are, on enough."""
        k = LIMITS_MEV.index(limit_mev)
        return self.n_compositions >= FEWEST_TO_SAY and bool(self.brier[k] < self.base_rate_brier[k])

    def probability(self, draws: Array, rivals: NDArray[np.bool_], limit_mev: float) -> Array:
        """Probability of being within a limit, shape (k,).

        Parameters
        ----------
        draws : ndarray, shape (n, k)
            Distances of k candidates, eV/atom.
        rivals : ndarray of bool, shape (k,)
            Whether another phase has the candidate's composition.
        limit_mev : float
            meV/atom.
        """
        return _probability(self.distances, self.rivals, draws, rivals, limit_mev / 1000)


def _probability(
    known: Array, known_rivals: NDArray[np.bool_], draws: Array, rivals: NDArray[np.bool_], limit: float
) -> Array:
    """Weighted share among draws, by the known distances of crystals with rivals or of those without."""
    out = np.empty(draws.shape[1])
    for kind in (False, True):
        alike = known[known_rivals == kind]
        places = rivals == kind
        out[places] = weighted_share(alike if len(alike) >= _FEWEST_ALIKE else known, draws[:, places], limit)
    return out


def density(known: Array, distance: Array) -> Array:
    """How often a distance is found among known ones, in arbitrary units, of the shape of ``distance`` (eV/atom)."""
    grid = np.linspace(known.min() - 0.2, known.max() + 0.2, 2001)
    height = np.exp(-0.5 * np.square((grid[:, None] - known) / _WIDTH_EV)).sum(axis=1)
    found = np.interp(distance, grid, height, left=0.0, right=0.0)
    return np.asarray(found + _FLOOR * height.mean())


def weighted_share(known: Array, draws: Array, limit_ev_per_atom: float) -> Array:
    """Share of the draws (n, k) of k distances within a limit, weighted by :func:`density`; shape (k,)."""
    weights = density(known, draws)
    inside = draws <= limit_ev_per_atom + _ON_HULL_EV
    return np.asarray((weights * inside).sum(axis=0) / weights.sum(axis=0))


def known_distances(
    rows: FeatureRows,
    wanted: NDArray[np.bool_],
    fewest_compounds: int = FEWEST_COMPOUNDS,
    references: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Array, NDArray[np.bool_]]:
    """Distance from the hull of the labels of all rows, for the wanted ones; NaN where it cannot be known.

    Only systems of which every element is known have a hull; energies are those of PBE(+U), to which MP2020
    corrections are applied.

    Parameters
    ----------
    rows : FeatureRows
        All rows of a store.
    wanted : ndarray of bool, shape (n,)
    fewest_compounds : int
        Compositions beside the elements that a system needs for its hull to be believed.
    references : mapping of str to float
        Energies of elements beside those of the rows, eV/atom, without corrections.

    Returns
    -------
    distances : ndarray, shape (n,)
        eV/atom.
    rivals : ndarray of bool, shape (n,)
        Whether another phase has the composition.
    """
    table = rows.table
    out, rivals = np.full(len(table), np.nan), np.zeros(len(table), dtype=bool)
    label = ((table["energy_ev"] - table["energy_model_ev"]) / table["n_atoms"]).to_numpy(dtype=float)
    flagged = np.array([not GUARDED_LABEL.isdisjoint(flags) for flags in table["flags"]], dtype=bool)
    known = np.array([np.isfinite(e) and not suspect_label(e) for e in label], dtype=bool) & ~flagged
    fractions = atomic_fractions(table["elements"].tolist(), table["counts"].tolist())
    there = (fractions > 0).astype(np.float32)
    absent = np.ones(there.shape[1], dtype=np.float32)
    absent[(fractions[known] == 1.0).any(axis=0)] = 0.0  # elements that have a phase of their own
    given = [atomic_numbers[symbol] - 1 for symbol in references]
    absent[given] = 0.0
    asked = np.flatnonzero(wanted & known & (there @ absent == 0))
    hashes = table["structure_hash"].to_numpy(dtype=str)
    asked = asked[np.argsort(hashes[asked], kind="stable")[: 3 * MOST_ASKED]]  # of many a sample at random
    systems, of_asked = np.unique(there[asked], axis=0, return_inverse=True)
    compounds = np.unique(fractions[known & (there.sum(axis=1) > 1)].round(10), axis=0) > 0
    # a hull of elements and little else is no hull: what is there alone would seem to be very stable
    full = (compounds.astype(np.float32) @ (1.0 - systems).T == 0).sum(axis=0) >= fewest_compounds
    asked, systems = asked[full[of_asked.ravel()]][:MOST_ASKED], systems[full]
    used = np.flatnonzero(known & (there @ (1.0 - systems).T == 0).any(axis=1))
    if not len(used):
        return out, rivals
    elements, counts = table["elements"].iloc[used].tolist(), table["counts"].iloc[used].tolist()
    kinds = oxide_types_of(table["flags"].iloc[used])
    fixed = mp2020_corrections(cells(elements, counts), table["run_type"].iloc[used].tolist(), kinds)
    energies = (table["energy_ev"] / table["n_atoms"]).to_numpy(dtype=float)[used] + fixed.ev_per_atom
    good = np.isfinite(energies)
    used, energies = used[good], energies[good]
    place = np.flatnonzero(np.isin(used, asked))
    if len(place):
        phases = np.concatenate([fractions[used], np.eye(fractions.shape[1])[given]])
        costs = np.concatenate([energies, list(references.values())])[None]
        found = hull_distances(phases[place], costs[:, place], phases, costs, place)
        out[used[place]], rivals[used[place]] = found.distance[0], found.rivals
    return out, rivals


def hull_prior(
    formulas: NDArray[np.str_],
    distances: Array,
    rivals: NDArray[np.bool_],
    errors: tuple[Array, Array],
    seed: int = 0,
) -> HullPrior | None:
    """Collect known distances, and measure what probabilities they give.

    Parameters
    ----------
    formulas : ndarray of str, shape (n,)
        Reduced formulas of left-out crystals.
    distances, rivals : ndarray, shape (n,)
        From :func:`known_distances`.
    errors : (error, std), shape (n,) each
        Left-out error of each energy and its standard deviation, eV/atom.
    seed : int
        Of the folds.

    Returns
    -------
    HullPrior or None
        None where there are too few compositions.
    """
    known = np.isfinite(distances)
    names, rival = formulas[known], rivals[known]
    n_compositions = len(np.unique(names))
    if n_compositions < FEWEST_COMPOSITIONS:
        return None
    error, spread = (values[known] for values in errors)
    true = distances[known]
    draws = true - error + spread * ndtri((np.arange(_QUANTILES)[:, None] + 0.5) / _QUANTILES)
    folds = group_folds(names, _FOLDS, seed)
    said, share = np.zeros((2, len(LIMITS_MEV), len(true)))
    for fold in np.unique(folds):
        held, others = folds == fold, folds != fold
        for k, limit in enumerate(LIMITS_MEV):
            said[k, held] = _probability(
                true[others], rival[others], draws[:, held], rival[held], limit / 1000
            )
            share[k, held] = np.mean(true[others] <= limit / 1000 + _ON_HULL_EV)
    was = true <= np.array(LIMITS_MEV)[:, None] / 1000 + _ON_HULL_EV
    order = np.argsort(true, kind="stable")
    brier, of_share = (np.square(p - was).mean(axis=1) for p in (said, share))
    return HullPrior(true[order], rival[order], n_compositions, brier, of_share)


def cells(elements: list[NDArray[np.int32]], counts: list[NDArray[np.int32]]) -> list[str]:
    """Formulas of cells as they are, not reduced."""
    return [
        "".join(f"{chemical_symbols[z]}{n}" for z, n in zip(e, c, strict=True))
        for e, c in zip(elements, counts, strict=True)
    ]
