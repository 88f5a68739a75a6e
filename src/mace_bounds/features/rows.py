"""Rows of features in memory, and the columns that a head is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class AtomRows:
    """Features of single atoms of some structures, one structure after the other."""

    # shape (n_atoms, n_features): in the order of the structures and of the atoms in each
    values: NDArray[np.float32]
    counts: NDArray[
        np.int64
    ]  # shape (n_structures,): atoms of each structure; 0 where its atoms are not kept

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> AtomRows:
        """The atoms of the structures that a mask or indices choose, in their order."""
        chosen = np.arange(len(self.counts))[rows]
        counts = self.counts[chosen]
        first = (np.cumsum(self.counts) - self.counts)[chosen]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return AtomRows(self.values[np.repeat(first, counts) + within], counts)

    @classmethod
    def join(cls, parts: Sequence[AtomRows]) -> AtomRows:
        """The atoms of several sets of structures, in order."""
        return cls(np.concatenate([p.values for p in parts]), np.concatenate([p.counts for p in parts]))


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Some rows of a store: a table of plain columns and the arrays beside it."""

    # id, source, formula, chemical_system, n_atoms, run_type, flags, reason, label_reason, structure_hash,
    # energy_ev, label_kind, energy_model_ev, fixed_energy_ev, elements, counts, volume_a3, space_group,
    # hull_distance_ev_per_atom. The last three are empty where a store does not know them. A table, or its columns as
    # arrays: for one structure a table takes longer to make and to look into than all that is computed from it.
    given: pd.DataFrame | dict[str, NDArray[Any]]
    features: NDArray[np.float64]  # shape (n_rows, n_features): sums over atoms; NaN where a row has a reason
    atoms: AtomRows | None = None  # features of single atoms, where they are kept and were asked for

    @cached_property
    def table(self) -> pd.DataFrame:
        """The plain columns as a table."""
        import pandas as pd

        return pd.DataFrame(self.given) if isinstance(self.given, dict) else self.given

    def column(self, name: str) -> NDArray[Any]:
        """The values of one plain column."""
        return self.given[name] if isinstance(self.given, dict) else self.given[name].to_numpy()

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column of numbers; NaN where there is none."""
        return self.column(name).astype(np.float64, copy=False)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which rows have a reason instead of features, shape (n,)."""
        if isinstance(self.given, dict):
            return np.array([reason is not None for reason in self.given["reason"]], dtype=np.bool_)
        return self.given["reason"].notna().to_numpy()

    def scored(self) -> FeatureRows:
        """The rows that have features."""
        return self.take(self.table["reason"].isna().to_numpy())

    def labelled(self) -> FeatureRows:
        """The rows that have features and a label."""
        return self.take((self.table["reason"].isna() & self.table["energy_ev"].notna()).to_numpy())

    @classmethod
    def join(cls, parts: Sequence[FeatureRows]) -> FeatureRows:
        """The rows of several parts, in order, without the features of single atoms."""
        import pandas as pd

        table = pd.concat([part.table for part in parts], ignore_index=True)
        return cls(table, np.concatenate([part.features for part in parts]))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> FeatureRows:
        """The rows that a mask or indices choose, in their order."""
        atoms = None if self.atoms is None else self.atoms.take(rows)
        chosen = np.arange(len(self.table))[rows]
        return FeatureRows(self.table.iloc[chosen].reset_index(drop=True), self.features[chosen], atoms)


N_ELEMENTS = 118


def element_counts(elements: Sequence[Sequence[int]], counts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Atoms of each element, shape (n_rows, 119), column ``Z``.

    Parameters
    ----------
    elements, counts : sequences of length n_rows
        Atomic numbers of each row and how many atoms of each.
    """
    out = np.zeros((len(elements), N_ELEMENTS + 1))
    for row, numbers, n in zip(out, elements, counts, strict=True):
        row[np.asarray(numbers, dtype=int)] = n
    return out


def atomic_fractions(
    elements: Sequence[Sequence[int]], counts: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Share of each element, shape (n_rows, 118), column ``Z - 1``; parameters as of :func:`element_counts`."""
    atoms = element_counts(elements, counts)[:, 1:]
    return np.asarray(atoms / atoms.sum(axis=1, keepdims=True))


def design_matrix(
    features: NDArray[np.float64],
    n_atoms: NDArray[np.float64],
    fractions: NDArray[np.float64],
    *,
    composition: bool,
) -> NDArray[np.float64]:
    """Per-atom rows x = φ/N, with the atomic fractions beside them or not.

    Parameters
    ----------
    features : ndarray, shape (n_rows, n_features)
        Sums over atoms.
    n_atoms : ndarray, shape (n_rows,)
    fractions : ndarray, shape (n_rows, 118)
        Atomic fractions; joined as columns when ``composition`` is true.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_features [+ 118])
    """
    per_atom = features / n_atoms[:, None]
    return np.concatenate([per_atom, fractions], axis=1) if composition else per_atom
