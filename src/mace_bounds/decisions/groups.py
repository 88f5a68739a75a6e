"""Differences among labelled rows, on which joint errors are chosen and calibrated: polymorphs and reactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

Array = NDArray[np.float64]

POLYMORPH, REACTION = "polymorph", "reaction"
KINDS = (POLYMORPH, REACTION)
"""Differences within one composition, and balanced sums over several."""

PARTNERS = 3


@dataclass(frozen=True, eq=False)
class Differences:
    """Some sums of energies per atom, Σ c_i E_i, over m structures."""

    coefficients: csr_matrix  # shape (k, m): c, atomic shares; a sum over a row is 0
    clusters: NDArray[np.str_]  # shape (k,): the composition whose difference it is
    # shape (k,): such that every structure of a composition counts once, not every pair
    weights: Array

    def __len__(self) -> int:
        return len(self.clusters)

    def take(self, rows: NDArray[np.bool_]) -> Differences:
        """Some of them."""
        return Differences(self.coefficients[np.flatnonzero(rows)], self.clusters[rows], self.weights[rows])

    @classmethod
    def join(cls, parts: Iterable[Differences]) -> Differences:
        """Several sets over the same structures."""
        every = list(parts)
        return cls(
            csr_matrix(vstack([part.coefficients for part in every])),
            np.concatenate([part.clusters for part in every]),
            np.concatenate([part.weights for part in every]),
        )


def polymorph_pairs(formulas: Sequence[str], hashes: Sequence[str]) -> Differences:
    """Every pair of different structures of one composition, the first minus the second.

    Parameters
    ----------
    formulas, hashes : sequences of str, shape (m,)
        Reduced formula and hash of each structure; equal hashes are one structure.
    """
    _, code = np.unique(np.asarray(formulas, dtype=str), return_inverse=True)
    order = np.argsort(code, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    first, second, weights = list[Array](), list[Array](), list[Array]()
    same = np.asarray(hashes, dtype=str)
    for block in blocks:
        i, j = (block[side] for side in np.triu_indices(len(block), 1))
        differ = same[i] != same[j]
        first, second = [*first, i[differ]], [*second, j[differ]]
        weights.append(np.full(int(differ.sum()), 1.0 / max(len(block) - 1, 1)))
    a, b = (np.concatenate(side).astype(np.int64) for side in (first, second))
    pair = np.arange(len(a))
    coefficients = coo_matrix(
        (np.repeat([1.0, -1.0], len(a)), (np.tile(pair, 2), np.concatenate([a, b]))), (len(a), len(formulas))
    )
    names = np.asarray(formulas, dtype=str)[a]
    return Differences(csr_matrix(coefficients), names, np.concatenate(weights))


def syntheses(formulas: Sequence[str], fractions: Array, seed: int = 0) -> Differences:
    """Reactions that make a structure of one of fewer or the same elements, and of elements whose energy is given.

    Of two structures E_i - s E_j with s as large as the composition of i allows: what elements have to be added have no
    error. Balanced reactions of labelled rows alone would be few, because the elements are in every model's training.

    Parameters
    ----------
    formulas : sequence of str, shape (m,)
        Reduced formulas.
    fractions : ndarray, shape (m, 118)
        Atomic fractions.
    seed : int
        Of the choice among possible partners, :data:`PARTNERS` for each structure.
    """
    random = np.random.default_rng(seed)
    names, there = np.asarray(formulas, dtype=str), fractions > 0
    systems, of_row = np.unique(np.packbits(there, axis=1), axis=0, return_inverse=True)
    of_row = of_row.ravel()
    bits = np.unpackbits(systems, axis=1)[:, : fractions.shape[1]].astype(np.float32)
    size = bits.sum(axis=1)
    first, second, shares = list[int](), list[int](), list[float]()
    for g in range(len(systems)):
        inside = np.flatnonzero((bits @ bits[g] == size) & (size > 1))
        pool = np.flatnonzero(np.isin(of_row, inside))
        for i in np.flatnonzero(of_row == g):
            others = pool[names[pool] != names[i]]
            for j in random.choice(others, min(PARTNERS, len(others)), replace=False):
                first.append(int(i))
                second.append(int(j))
                shares.append(float((fractions[i][there[j]] / fractions[j][there[j]]).min()))
    row = np.arange(len(first))
    coefficients = coo_matrix(
        (
            np.concatenate([np.ones(len(first)), -np.asarray(shares)]),
            (np.tile(row, 2), np.array(first + second)),
        ),
        (len(first), len(names)),
    )
    clusters = names[first] if first else np.empty(0, dtype=str)
    each = np.bincount(first, minlength=len(names))[first] if first else np.empty(0)
    return Differences(csr_matrix(coefficients), clusters, 1.0 / np.maximum(each, 1))
