"""Lower convex hulls of energy over composition, of many draws at once.

The energy of the hull at a composition is a linear programme: the cheapest mixture of phases that has it. Draws differ
only in the costs, so one simplex method goes through all of them side by side, starting from the mixture that is best
without errors; the reduced costs of all phases prove that a mixture is the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_TOLERANCE = 1e-11  # eV/atom by which a phase must lower the energy to enter
_PIVOT = 1e-10  # smallest part of a phase in a direction along which another one leaves
_SHARE = 1e-9  # atomic share from which a phase is part of a mixture
_MOST_PIVOTS = 300
_FICTITIOUS_EV = 1e4  # energy per atom of an element that no phase gives


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Cheapest mixtures at one composition, of n draws."""

    energy: Array  # shape (n,): energy of the hull, eV/atom; NaN where no phases have the composition
    phases: Indices  # shape (n, d): phases of the mixture
    shares: Array  # shape (n, d): their atomic shares; 0 for those that are no part of it


def cheapest_mixtures(composition: Array, phases: Array, energies: Array) -> Mixtures:
    """Find the hull at one composition for every draw.

    Parameters
    ----------
    composition : ndarray, shape (118,)
        Atomic fractions.
    phases : ndarray, shape (m, 118)
        Atomic fractions of the phases.
    energies : ndarray, shape (n, m)
        Their energies in each draw, eV/atom.

    Returns
    -------
    Mixtures

    Notes
    -----
    Primal simplex with Dantzig's rule, vectorised over draws; bases that several draws share are inverted once. Draws
    that are not done after 300 pivots go to scipy's HiGHS.
    """
    elements = np.flatnonzero(composition > 0)
    usable = np.flatnonzero(phases @ (composition <= 0).astype(np.float64) == 0)
    d, n = len(elements), len(energies)
    # one fictitious phase for each element makes a first mixture of every composition
    parts = np.concatenate([phases[np.ix_(usable, elements)], np.eye(d)])
    costs = np.concatenate([energies[:, usable], np.full((n, d), _FICTITIOUS_EV)], axis=1)
    x = composition[elements]
    first = np.arange(len(usable), len(usable) + d)[None, :]
    basis = _improve(first, x, parts, costs.mean(axis=0)[None, :])
    basis = _improve(np.repeat(basis, n, axis=0), x, parts, costs)
    shares = np.maximum(
        np.linalg.solve(_columns(parts, basis), np.broadcast_to(x[:, None], (n, d, 1)))[..., 0], 0
    )
    shares[shares < _SHARE] = 0.0
    energy = (shares * np.take_along_axis(costs, basis, axis=1)).sum(axis=1)
    missing = ((basis >= len(usable)) & (shares > 0)).any(axis=1)
    names = np.concatenate([usable, np.full(d, -1)])
    return Mixtures(np.where(missing, np.nan, energy), names[basis], shares)


def _columns(parts: Array, basis: Indices) -> Array:
    """Compositions of the phases of bases as columns, shape (u, d, d)."""
    return np.asarray(parts[basis].transpose(0, 2, 1))


def _improve(basis: Indices, x: Array, parts: Array, costs: Array) -> Indices:
    """Pivot until no phase lowers the energy of any draw; shape (n, d) as ``basis``."""
    basis = np.sort(basis, axis=1)
    active = np.arange(len(basis))
    names = np.random.default_rng(0).integers(np.iinfo(np.int64).max, size=basis.shape[1])
    for _ in range(_MOST_PIVOTS):
        # sums that wrap around are names of bases, which are faster to compare than rows
        _, first, which = np.unique(basis[active] @ names, return_index=True, return_inverse=True)
        inverse = np.linalg.inv(_columns(parts, basis[active[first]]))
        amounts = np.maximum(inverse @ x, 0.0)
        own = np.take_along_axis(costs[active], basis[active], axis=1)
        potentials = np.einsum("nd,nde->ne", own, inverse[which])
        reduced = costs[active] - potentials @ parts.T
        enters = reduced.argmin(axis=1)
        better = np.take_along_axis(reduced, enters[:, None], axis=1)[:, 0] < -_TOLERANCE
        if not better.any():
            return basis
        active, which, enters = active[better], which[better], enters[better]
        direction = np.einsum("nde,ne->nd", inverse[which], parts[enters])
        ratio = np.where(
            direction > _PIVOT, amounts[which] / np.where(direction > _PIVOT, direction, 1.0), np.inf
        )
        basis[active, ratio.argmin(axis=1)] = enters
        basis[active] = np.sort(basis[active], axis=1)
    for draw in active:
        basis[draw] = _by_highs(basis[draw], x, parts, costs[draw])
    return basis


def _by_highs(basis: Indices, x: Array, parts: Array, costs: Array) -> Indices:
    """The same for one draw by scipy; the old basis fills up where the mixture has fewer phases than elements."""
    from scipy.optimize import linprog

    found = linprog(costs, A_eq=parts.T, b_eq=x, method="highs")
    if found.x is None:
        raise StructureError(f"the convex hull could not be found ({found.message}); check the phases.")
    chosen = list(np.flatnonzero(found.x > _SHARE))
    for phase in (*basis, *range(len(parts) - len(x), len(parts))):
        trial = [*chosen, phase]
        if len(chosen) < len(x) and np.linalg.matrix_rank(parts[trial], tol=1e-9) == len(trial):
            chosen = trial
    return np.sort(np.array(chosen, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class HullDraws:
    """Distances of k candidates from the hull of all other phases, in n draws."""

    distance: Array  # shape (n, k): eV/atom; below 0 by what a stable candidate gains over the best mixture of others
    phases: tuple[Indices, ...]  # one (n, d) for each candidate: entries of its best mixture, -1 for none
    shares: tuple[Array, ...]  # one (n, d) for each candidate: their atomic shares
    rivals: NDArray[np.bool_]  # shape (k,): whether another phase has the candidate's composition


def hull_distances(
    candidates: Array,
    candidate_energies: Array,
    phases: Array,
    phase_energies: Array,
    itself: Indices,
) -> HullDraws:
    """Distance of candidates from the hull of the phases, each without itself, in every draw.

    Parameters
    ----------
    candidates : ndarray, shape (k, 118)
        Atomic fractions.
    candidate_energies : ndarray, shape (n, k)
        eV/atom.
    phases : ndarray, shape (m, 118)
    phase_energies : ndarray, shape (n, m)
    itself : ndarray of int64, shape (k,)
        Which phase is the candidate itself; -1 where none is.

    Returns
    -------
    HullDraws
        ``max(distance, 0)`` is what is called the energy above the hull.
    """
    rounded = np.round(phases, 10)
    distinct, first, group = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    members = [np.flatnonzero(group == g) for g in range(len(distinct))]
    lowest = (
        np.stack([phase_energies[:, rows].min(axis=1) for rows in members], axis=1)
        if members
        else (np.empty((len(candidate_energies), 0)))
    )
    which = [rows[phase_energies[:, rows].argmin(axis=1)] for rows in members]
    compositions = phases[first]
    distance = np.empty((len(candidate_energies), len(candidates)))
    of_phases: list[Indices] = []
    of_shares: list[Array] = []
    known: dict[bytes, Mixtures] = {}
    place = {key.tobytes(): g for g, key in enumerate(distinct)}
    rivals = np.zeros(len(candidates), dtype=bool)
    for c, x in enumerate(candidates):
        key = np.round(x, 10).tobytes()
        if key not in known:
            known[key] = cheapest_mixtures(x, compositions, lowest)
        best, entries = known[key], which
        own = int(itself[c])
        rivals[c] = key in place and len(members[place[key]]) > (own >= 0)
        used = best
        if own >= 0:
            g = int(group[own])
            rows = (best.phases == g) & (best.shares > 0)
            again = rows.any(axis=1) & (which[g] == own)
            if again.any():
                others = members[g][members[g] != own]
                costs = lowest[again].copy()
                kept = np.ones(len(members), dtype=bool)
                entries = list(which)
                if len(others):
                    costs[:, g] = phase_energies[np.ix_(again, others)].min(axis=1)
                    entries[g] = others[phase_energies[:, others].argmin(axis=1)]
                else:
                    kept[g] = False
                back = np.flatnonzero(kept)
                without = cheapest_mixtures(x, compositions[back], costs[:, back])
                names = np.append(back, -1)[without.phases]
                energy, inside, shares = best.energy.copy(), best.phases.copy(), best.shares.copy()
                energy[again], inside[again], shares[again] = without.energy, names, without.shares
                used = Mixtures(energy, inside, shares)
        distance[:, c] = candidate_energies[:, c] - used.energy
        if own >= 0 and np.count_nonzero(x) == 1 and np.isnan(used.energy).all():
            distance[:, c] = 0.0  # the only phase of an element is the reference
        of_phases.append(_entries(used, entries))
        of_shares.append(used.shares)
    return HullDraws(distance, tuple(of_phases), tuple(of_shares), rivals)


def _entries(mixtures: Mixtures, which: list[Indices]) -> Indices:
    """The entry of each composition that is lowest in each draw, shape (n, d)."""
    out = np.full(mixtures.phases.shape, -1, dtype=np.int64)
    for g in np.unique(mixtures.phases[mixtures.shares > 0]):
        if g >= 0:
            draw, place = np.nonzero((mixtures.phases == g) & (mixtures.shares > 0))
            out[draw, place] = which[g][draw]
    return out
