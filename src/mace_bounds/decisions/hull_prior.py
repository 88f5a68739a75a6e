"""How far crystals like those of a head's data are from the hull: without it, P(stable) is said far too often.

A candidate whose energy is uncertain by 150 meV/atom may lie below the hull by its interval alone, but few crystals do.
Draws of its distance are therefore weighted by how often such distances are found among labelled crystals (Bayes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.decisions.corrections import mp2020_corrections
from mace_bounds.decisions.hull import hull_distances
from mace_bounds.features import atomic_fractions
from mace_bounds.structures import suspect_label

if TYPE_CHECKING:
    from mace_bounds.features import FeatureRows

Array = NDArray[np.float64]

GUARDED_LABEL = frozenset({"suspect_label", "close_atoms", "isolated_atoms", "charged_cell"})
"""Flags with which a phase whose energy is a label may not shape the hull."""

_WIDTH_EV = 0.03  # of the kernels on known distances, eV/atom
_FLOOR = 0.01  # of the mean: no distance is impossible
FEWEST_COMPOSITIONS = 19
"""Compositions with a known distance that a head needs to say probabilities."""


@dataclass(frozen=True, eq=False, repr=False)
class HullPrior:
    """Distances from the hull, by DFT, of labelled crystals that the head did not see."""

    distances: Array  # shape (n,): eV/atom, growing; below 0 by what a stable crystal gains
    weights: Array  # shape (n,): every composition counts once
    n_compositions: int

    def __repr__(self) -> str:
        return f"HullPrior({len(self.distances)} crystals of {self.n_compositions} compositions)"

    def density(self, distance: Array) -> Array:
        """How often a distance is found, in arbitrary units, of the shape of ``distance`` (eV/atom)."""
        low, high = self.distances[0] - 0.2, self.distances[-1] + 0.2
        grid = np.linspace(low, high, 2001)
        kernels = np.exp(-0.5 * np.square((grid[:, None] - self.distances) / _WIDTH_EV))
        height = kernels @ self.weights
        found = np.interp(distance, grid, height, left=0.0, right=0.0)
        return np.asarray(found + _FLOOR * height.mean())


def known_distances(rows: FeatureRows, wanted: NDArray[np.bool_]) -> Array:
    """Distance from the hull of the labels of all rows, for the wanted ones; NaN where it cannot be known.

    Only systems of which every element is among the rows have a hull; energies are those of PBE(+U), to which MP2020
    corrections are applied.

    Parameters
    ----------
    rows : FeatureRows
        All rows of a store.
    wanted : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray, shape (n,)
        eV/atom.
    """
    table = rows.table
    out = np.full(len(table), np.nan)
    label = ((table["energy_ev"] - table["energy_model_ev"]) / table["n_atoms"]).to_numpy(dtype=float)
    flagged = np.array([not GUARDED_LABEL.isdisjoint(flags) for flags in table["flags"]], dtype=bool)
    known = np.array([np.isfinite(e) and not suspect_label(e) for e in label], dtype=bool) & ~flagged
    sets = [frozenset(int(z) for z in e) for e in table["elements"]]
    alone = frozenset(z for s, there in zip(sets, known, strict=True) if there and len(s) == 1 for z in s)
    asked = [k for k in np.flatnonzero(wanted & known) if sets[k] <= alone]
    systems = {sets[k] for k in asked}
    used = np.array(
        [k for k in np.flatnonzero(known) if any(sets[k] <= system for system in systems)], dtype=np.int64
    )
    if not len(used):
        return out
    elements, counts = table["elements"].iloc[used].tolist(), table["counts"].iloc[used].tolist()
    fixed = mp2020_corrections(
        cells(elements, counts), table["run_type"].iloc[used].tolist(), [None] * len(used)
    )
    energies = (table["energy_ev"] / table["n_atoms"]).to_numpy(dtype=float)[used] + fixed.ev_per_atom
    good = np.isfinite(energies)
    used, energies, fractions = used[good], energies[good], atomic_fractions(elements, counts)[good]
    asked_set = set(asked)
    place = np.array([k for k, row in enumerate(used) if row in asked_set], dtype=np.int64)
    if len(place):
        found = hull_distances(fractions[place], energies[None, place], fractions, energies[None], place)
        out[used[place]] = found.distance[0]
    return out


def hull_prior(formulas: NDArray[np.str_], distances: Array) -> HullPrior | None:
    """Collect known distances (NaN for the others); None where there are too few compositions."""
    known = np.isfinite(distances)
    names, code, counts = np.unique(formulas[known], return_inverse=True, return_counts=True)
    if len(names) < FEWEST_COMPOSITIONS:
        return None
    order = np.argsort(distances[known], kind="stable")
    return HullPrior(distances[known][order], 1.0 / counts[code][order], len(names))


def cells(elements: list[NDArray[np.int32]], counts: list[NDArray[np.int32]]) -> list[str]:
    """Formulas of cells as they are, not reduced."""
    from ase.data import chemical_symbols

    return [
        "".join(f"{chemical_symbols[z]}{n}" for z, n in zip(e, c, strict=True))
        for e, c in zip(elements, counts, strict=True)
    ]
