"""Flags for structures unlike those a head was fitted on, with known rates of false alarm.

A grade says what is new. It is no estimate of an error: novel structures may be predicted well, and familiar
ones badly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.local_sets import LocalSets
from mace_bounds.head import ActiveSet, tensors_named, tensors_under
from mace_bounds.structures import compositions_in

if TYPE_CHECKING:
    from mace_bounds.features import AtomRows, FeatureRows

Array = NDArray[np.float64]

GRADES = ("gamma", "gamma_local", "gamma_atom", "gamma_atom_local")
"""Structures against all and against clusters; the largest grade of a structure's atoms, likewise."""

_RARE = 0.05  # share of held-out compositions up to which an unseen pair of elements is worth a flag
STRUCTURE_GRADES = 2  # of these need no atoms


@dataclass(frozen=True, eq=False)
class NoveltyGrades:
    """How new structures are; NaN where a grade needs atoms that are not there.

    Attributes
    ----------
    grades : ndarray, shape (n, 4)
        :data:`GRADES`.
    atom : ndarray of int64, shape (n,)
        The atom of largest local grade, counted from 0 in the order of the structure's sites; -1 without atoms.
    novelty : ndarray, shape (n,)
        Largest grade in units of its threshold; 1 % of held-out structures exceed 1.
    unseen_pair : ndarray of bool, shape (n,)
        Whether two elements of the structure never met in one structure of the fit. Nowhere true where that is
        common, as with few training structures: where it holds for over 5 % of the compositions kept from the fit.
    """

    grades: Array
    atom: NDArray[np.int64]
    novelty: Array
    unseen_pair: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class NoveltySets:
    """Active sets of structures, and of atoms where there were atoms."""

    structures: ActiveSet
    local_structures: LocalSets
    atoms: ActiveSet | None
    local_atoms: LocalSets | None

    def grades(self, x: Array, n_features: int, atoms: AtomRows | None) -> tuple[Array, NDArray[np.int64]]:
        """Grades (n, 4) and the atom of largest local grade (n,)."""
        grades = np.full((len(x), len(GRADES)), np.nan)
        worst = np.full(len(x), -1, dtype=np.int64)
        grades[:, 0] = self.structures.grade(affine(x))
        grades[:, 1] = self.local_structures.grade(x[:, :n_features])
        if atoms is None or self.atoms is None or self.local_atoms is None or not atoms.counts.any():
            return grades, worst
        has_atoms = atoms.counts > 0
        first = (np.cumsum(atoms.counts) - atoms.counts)[has_atoms]
        local = self.local_atoms.grade(atoms.values)
        grades[has_atoms, 2] = np.maximum.reduceat(self.atoms.grade(affine(atoms.values)), first)
        grades[has_atoms, 3] = np.maximum.reduceat(local, first)
        ends = first + atoms.counts[has_atoms]
        worst[has_atoms] = [local[a:b].argmax() for a, b in zip(first, ends, strict=True)]
        return grades, worst


@dataclass(frozen=True, eq=False)
class Novelty:
    """What a head remembers of its training structures in order to tell new ones; see :func:`fit_novelty`.

    Attributes
    ----------
    sets : active sets
        Global and local, of structures and, where the feature store kept them, of atoms.
    thresholds : ndarray, shape (2, 4)
        Of :data:`GRADES`, for structures of a composition that the fit has seen and of a new one; infinite where
        there were no atoms.
    joint_thresholds : ndarray, shape (2, 2)
        Largest grade in units of its threshold, that few held-out structures exceed: seen and new compositions;
        without and with atoms.
    seen_pairs : ndarray of bool, shape (118, 118)
        Pairs of elements that met in a structure of the fit.
    compositions : ndarray of uint64
        Keys of the compositions among them, sorted.
    n_features : int
        Feature columns, without the composition.
    rates : dict
        Rates of false alarm as measured on compositions that the fit has not seen, and sizes of the samples.
    """

    sets: NoveltySets
    thresholds: Array
    joint_thresholds: Array
    seen_pairs: NDArray[np.bool_]
    compositions: NDArray[np.uint64]
    n_features: int
    rates: dict[str, Any] = field(default_factory=dict)

    @property
    def wants_atoms(self) -> bool:
        """Whether single atoms can be graded."""
        return self.sets.atoms is not None

    def grade(self, rows: FeatureRows, x: Array) -> NoveltyGrades:
        """Grade structures.

        Polymorphs and distortions of a known crystal differ less from it than crystals of a new composition do, and
        are measured by thresholds of their own.

        Parameters
        ----------
        rows : FeatureRows
            Structures that have features, with their atoms if these are to be graded.
        x : ndarray, shape (n, P)
            Their design matrix.
        """
        grades, atom = self.sets.grades(x, self.n_features, rows.atoms)
        tier = np.where(compositions_in(rows.table["formula"].tolist(), self.compositions), 0, 1)
        with_atoms = np.isfinite(grades[:, STRUCTURE_GRADES:]).all(axis=1).astype(int)
        novelty = ratio(grades, self.thresholds[tier]) / self.joint_thresholds[tier, with_atoms]
        unseen = np.array(
            [not self.seen_pairs[pairs(row)].all() for row in rows.table["elements"]], dtype=bool
        )
        rare = self.rates.get("measured", {}).get("unseen_pair", 0.0) <= _RARE
        return NoveltyGrades(grades, atom, novelty, unseen & rare)

    def measured(self, rows: FeatureRows, x: Array) -> Novelty:
        """The same, with the rates of false alarm as measured on structures (n) of compositions new to the fit."""
        graded = self.grade(rows, x)
        rates = {
            name: float(np.mean(column[np.isfinite(column)] > limit))
            for name, column, limit in zip(GRADES, graded.grades.T, self.thresholds[1], strict=True)
            if np.isfinite(column).any()
        }
        rates |= {
            "any_grade": float(np.mean(graded.novelty > 1.0)),
            "unseen_pair": float(graded.unseen_pair.mean()),
        }
        return replace(self, rates={**self.rates, "measured": rates, "n_measured": len(x)})

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that rebuild it."""
        tensors: dict[str, NDArray[Any]] = {
            name: getattr(self, name) for name in ("thresholds", "joint_thresholds")
        }
        tensors["seen_pairs"] = self.seen_pairs
        tensors["compositions"] = self.compositions.view(np.int64)
        for name, part in self.sets.__dict__.items():
            if part is not None:
                tensors |= tensors_named(name, part.to_tensors())
        return tensors

    def to_config(self) -> dict[str, Any]:
        """Return the plain values that rebuild it."""
        return {"n_features": self.n_features, "rates": self.rates}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Novelty:
        """Rebuild it; missing names raise ``KeyError``."""
        atoms, local_atoms = (tensors_under(tensors, name) for name in ("atoms", "local_atoms"))
        sets = NoveltySets(
            ActiveSet.from_tensors(tensors_under(tensors, "structures")),
            LocalSets.from_tensors(tensors_under(tensors, "local_structures")),
            ActiveSet.from_tensors(atoms) if atoms else None,
            LocalSets.from_tensors(local_atoms) if local_atoms else None,
        )
        return cls(
            sets=sets,
            thresholds=tensors["thresholds"],
            joint_thresholds=tensors["joint_thresholds"],
            seen_pairs=tensors["seen_pairs"],
            compositions=tensors["compositions"].view(np.uint64),
            n_features=int(config["n_features"]),
            rates=dict(config["rates"]),
        )


def affine(x: NDArray[Any]) -> Array:
    """Rows (n, P) with a column of ones behind, so that no origin is special."""
    columns: Array = np.column_stack([x, np.ones(len(x))])
    return columns


def pairs(elements: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in a table of elements of all pairs of different ones, both ways."""
    z = np.asarray(elements, dtype=np.int64) - 1
    first, second = np.meshgrid(z, z)
    different = first != second
    return first[different], second[different]


def ratio(grades: Array, thresholds: Array) -> Array:
    """Largest grade in units of its threshold, of the grades that are there."""
    return np.asarray(np.where(np.isfinite(grades), grades / thresholds, 0.0).max(axis=1, initial=0.0))
