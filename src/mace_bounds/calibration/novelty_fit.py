"""Active sets of training structures and their atoms, and the thresholds that make flags of grades."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.inputs import head_inputs
from mace_bounds.calibration.novelty import (
    GRADES,
    STRUCTURE_GRADES,
    Novelty,
    NoveltySets,
    affine,
    fit_local_sets,
    pairs,
    ratio,
)
from mace_bounds.calibration.splits import group_folds
from mace_bounds.features import AtomRows, FeatureRows
from mace_bounds.head import active_set
from mace_bounds.structures import composition_keys

Array = NDArray[np.float64]

NOMINAL = 0.01
"""Share of held-out structures beyond a threshold: the nominal rate of false alarm."""

MAX_ROWS, MAX_ATOMS = 20_000, 100_000
"""Structures, and atoms, of the sample that the active sets and thresholds are made from."""

_FOLDS = 5
_INSIDE = 1.0 + 1e-9  # grade up to which training structures go: never a flag
_FEW = 20  # held-out structures below which a threshold of their own says nothing
_N_ELEMENTS = 118


def measured_novelty(rows: FeatureRows, fit: NDArray[np.bool_], *, composition: bool, seed: int) -> Novelty:
    """Novelty of the rows where ``fit`` (n,) is true, its rates of false alarm measured on the others."""
    used = rows.take(fit)
    novelty = fit_novelty(used, head_inputs(used, composition=composition).x, seed)
    others = rows.take(~fit)
    if len(others.table) == 0:
        return novelty
    return novelty.measured(others, head_inputs(others, composition=composition).x)


def fit_novelty(rows: FeatureRows, x: Array, seed: int) -> Novelty:
    """Active sets of training structures and their atoms, and thresholds from structures held out.

    Parameters
    ----------
    rows : FeatureRows
        Training structures, at least one, with their atoms where the store has them.
    x : ndarray, shape (n, P)
        Their design matrix.
    seed : int
        Of folds and clusters.

    Returns
    -------
    Novelty
        Without measured rates of false alarm: see :meth:`Novelty.measured`.

    Notes
    -----
    In five folds, half of the compositions are held out whole, which gives the thresholds for new compositions; of
    the other half single structures are held out, which gives those for compositions that the fit has seen. A
    threshold is the ⌈0.99 (n + 1)⌉-th smallest grade of the n held out, as in split conformal prediction, or the
    largest where n is under 99 (a nominal rate of 1/(n + 1)), and never below 1, the grade of active structures. It
    is conservative: grades in the folds are from active sets of 80 % of the structures, which are smaller. Where
    one of the two kinds has under 20 structures, the other's threshold serves. Above 20,000 structures or 100,000
    atoms a sample by the structures' hashes is used.
    """
    order = np.lexsort([rows.table[name].to_numpy(str) for name in ("formula", "structure_hash")])[:MAX_ROWS]
    x, atoms, n_features = x[order], _ordered_atoms(rows.atoms, order), rows.features.shape[1]
    formulas = rows.table["formula"].to_numpy(str)[order]
    held, known = _held_out(x, n_features, atoms, formulas, seed)
    tiers = _tiers(known, np.isfinite(held[:, 0]))
    thresholds = np.array([[_threshold(held[tier, k]) for k in range(len(GRADES))] for tier in tiers])
    seen_pairs = np.zeros((_N_ELEMENTS, _N_ELEMENTS), dtype=bool)
    for elements in rows.table["elements"]:
        seen_pairs[pairs(elements)] = True
    return Novelty(
        sets=_fit_sets(x, n_features, atoms, seed),
        thresholds=thresholds,
        joint_thresholds=np.array(
            [_joint_thresholds(held[tier], limits) for tier, limits in zip(tiers, thresholds, strict=True)]
        ),
        seen_pairs=seen_pairs,
        compositions=composition_keys(formulas),
        n_features=n_features,
        rates={
            "level": NOMINAL,
            "n_held_out": {"seen": int(tiers[0].sum()), "new": int(tiers[1].sum())},
            "n_structures": len(x),
            "n_atoms": 0 if atoms is None else int(atoms.counts.sum()),
        },
    )


def _held_out(
    x: Array, n_features: int, atoms: AtomRows | None, formulas: NDArray[np.str_], seed: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Grades (n, 4) by active sets without the structure's fold, and whether these had its composition (n,)."""
    folds, whole = _folds(formulas, seed)
    held = np.full((len(x), len(GRADES)), np.nan)
    known = np.zeros(len(x), dtype=bool)
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():
            break
        inside, outside = (None if atoms is None else atoms.take(part) for part in (~out, out))
        held[out] = _fit_sets(x[~out], n_features, inside, seed).grades(x[out], n_features, outside)[0]
        known[out] = ~whole[out] & np.isin(formulas[out], formulas[~out])
    return held, known


def _fit_sets(x: Array, n_features: int, atoms: AtomRows | None, seed: int) -> NoveltySets:
    has_atoms = atoms is not None and len(atoms.values) > 0
    return NoveltySets(
        active_set(affine(x)),
        fit_local_sets(x[:, :n_features], seed),
        active_set(affine(atoms.values)) if atoms is not None and has_atoms else None,
        fit_local_sets(atoms.values, seed) if atoms is not None and has_atoms else None,
    )


def _ordered_atoms(atoms: AtomRows | None, order: NDArray[np.int64]) -> AtomRows | None:
    """Atoms of the structures of ``order``, in that order, of as many of the first as the sample may have."""
    if atoms is None:
        return None
    ordered = atoms.take(order)
    counts = np.where(np.cumsum(ordered.counts) <= MAX_ATOMS, ordered.counts, 0)
    return AtomRows(ordered.values[: counts.sum()], counts)


def _folds(groups: NDArray[np.str_], seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Folds of rows in a definite order, and whether all rows of the row's group are held out together."""
    _, code, size = np.unique(groups, return_inverse=True, return_counts=True)
    whole = (size[code] == 1) | (group_folds(groups, 2, seed + 1) == 0)
    by_group = np.argsort(code, kind="stable")
    place = np.empty(len(groups), dtype=np.int64)
    place[by_group] = np.arange(len(groups)) - np.repeat(np.cumsum(size) - size, size)
    return (group_folds(groups, _FOLDS, seed) + np.where(whole, 0, place)) % _FOLDS, whole


def _tiers(known: NDArray[np.bool_], graded: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Held-out rows of seen compositions and of new ones; those of the other kind, or all, where they are too few."""
    both = [known & graded, ~known & graded]
    enough = [int(tier.sum()) >= _FEW for tier in both]
    return [both[k] if enough[k] else both[1 - k] if enough[1 - k] else graded for k in (0, 1)]


def _threshold(values: Array) -> float:
    ordered = np.sort(values[np.isfinite(values)])
    if len(ordered) == 0:
        return float("inf")
    place = min(len(ordered), int(np.ceil((len(ordered) + 1) * (1.0 - NOMINAL))))
    return max(float(ordered[place - 1]), _INSIDE)


def _joint_thresholds(grades: Array, thresholds: Array) -> list[float]:
    """Threshold of the largest ratio: of the grades of structures alone, and of all."""
    with_atoms = grades[np.isfinite(grades).all(axis=1)]
    limits = [
        _threshold(ratio(grades[:, :STRUCTURE_GRADES], thresholds[:STRUCTURE_GRADES])),
        _threshold(ratio(with_atoms, thresholds)),
    ]
    return [limit if np.isfinite(limit) else _INSIDE for limit in limits]
