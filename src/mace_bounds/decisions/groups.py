"""Differences among labelled rows, on which joint errors are chosen and calibrated.

Polymorphs, one crystal at two volumes, reactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Places = NDArray[np.int64]

POLYMORPH, STRAINED, REACTION = "polymorph", "strained", "reaction"
KINDS = (POLYMORPH, STRAINED, REACTION)
"""Differences within one composition, of one crystal at two volumes, and balanced sums over several compositions."""

SMALLEST_STRAIN = 0.05
"""Change of ln V below which labelled structures are not known to be one crystal at two volumes: polymorphs and
magnetic orders of one crystal differ by as much."""

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


def polymorph_pairs(
    formulas: Sequence[str], hashes: Sequence[str], strained: Strained | None = None
) -> Differences:
    """Every pair of different structures of one composition, the first minus the second.

    Parameters
    ----------
    formulas, hashes : sequences of str, shape (m,)
        Reduced formula and hash of each structure; equal hashes are one structure.
    strained : Strained, optional
        Which pairs are one crystal at two volumes, and no polymorphs.
    """
    same = np.asarray(hashes, dtype=str)

    def differ(i: Places, j: Places) -> NDArray[np.bool_]:
        apart = np.asarray(same[i] != same[j])
        return apart if strained is None else apart & ~strained.are(i, j)

    names = np.asarray(formulas, dtype=str)
    return _pairs(names, names, differ)


@dataclass(frozen=True, eq=False)
class Strained:
    """Which of m labelled structures are one crystal at several volumes."""

    crystals: NDArray[np.str_]  # shape (m,): equal for one crystal; empty where that is not known
    log_volume: Array  # shape (m,): ln of Å³ per atom; NaN where that is not known

    @classmethod
    def of(cls, table: pd.DataFrame) -> Strained:
        """One crystal are structures of one formula, size of the cell and space group, where a store knows that."""
        known = [str(group)[:1].isdigit() for group in table["space_group"]]  # neither missing nor unknown
        columns = (table["formula"], table["n_atoms"], table["space_group"])
        names = [" ".join(map(str, row)) for row in zip(*columns, strict=True)]
        return cls(np.where(known, np.array(names, dtype=str), ""), log_volumes(table))

    def take(self, rows: NDArray[np.bool_]) -> Strained:
        """Those of some structures."""
        return Strained(self.crystals[rows], self.log_volume[rows])

    def are(self, i: Places, j: Places) -> NDArray[np.bool_]:
        """Whether structures i and j are one crystal at two volumes."""
        one = (self.crystals[i] == self.crystals[j]) & (self.crystals[i] != "")
        return np.asarray(one & (np.abs(self.log_volume[i] - self.log_volume[j]) >= SMALLEST_STRAIN))

    def pairs(self, formulas: Sequence[str]) -> Differences:
        """Every pair of them, the first minus the second."""
        return _pairs(np.asarray(formulas, dtype=str), self.crystals, self.are)


def log_volumes(table: pd.DataFrame) -> Array:
    """Logarithm of the volume per atom in Å³ of rows of a store, shape (m,); NaN where it is not known."""
    volume = table["volume_a3"].to_numpy(dtype=np.float64) / table["n_atoms"].to_numpy(dtype=np.float64)
    return np.log(np.where(volume > 0, volume, np.nan))


def _pairs(
    formulas: NDArray[np.str_],
    blocks: NDArray[np.str_],
    wanted: Callable[[Places, Places], NDArray[np.bool_]],
) -> Differences:
    """Pairs within blocks; weights such that every structure of a block counts once."""
    _, code = np.unique(blocks, return_inverse=True)
    order = np.argsort(code, kind="stable")
    first, second, weights = list[Places](), list[Places](), list[Array]()
    for block in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if not len(block) or blocks[block[0]] == "":
            continue
        i, j = (block[side] for side in np.triu_indices(len(block), 1))
        some = wanted(i, j)
        first, second = [*first, i[some]], [*second, j[some]]
        weights.append(np.full(int(some.sum()), 1.0 / max(len(block) - 1, 1)))
    a, b = (np.concatenate([np.empty(0, dtype=np.int64), *side]) for side in (first, second))
    pair = np.arange(len(a))
    coefficients = coo_matrix(
        (np.repeat([1.0, -1.0], len(a)), (np.tile(pair, 2), np.concatenate([a, b]))), (len(a), len(formulas))
    )
    return Differences(csr_matrix(coefficients), formulas[a], np.concatenate([np.empty(0), *weights]))


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
