"""Flags for structures unlike those a head was fitted on, with known rates of false alarm.

A grade says what is new. It is no estimate of an error: novel structures may be predicted well, and familiar
ones badly. Clusters: F. Shuang, Z. Wei, K. Liu, W. Gao, P. Dey, arXiv:2508.03405 (2025), "clustering-enhanced local
D-optimality": one active set spans too much where the training data are of many kinds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.cluster.vq import kmeans2, vq

from mace_bounds.features import AtomRows, FeatureRows
from mace_bounds.head import ActiveSet, active_set, tensors_named, tensors_under
from mace_bounds.structures import compositions_in

Array = NDArray[np.float64]

GRADES = ("gamma", "gamma_local", "gamma_atom", "gamma_atom_local")
"""Structures against all and against clusters; the largest grade of a structure's atoms, likewise."""

_RARE = 0.05  # share of held-out compositions up to which an unseen pair of elements is worth a flag
STRUCTURE_GRADES = 2  # of these need no atoms

DIRECTIONS = 12
ROWS_PER_CLUSTER = 100
MAX_CLUSTERS = 64
_KMEANS_STEPS = 20
_BLOCK_ROWS = 65_536  # of all clusters together


@dataclass(frozen=True, eq=False)
class NoveltyGrades:
    """How new structures are; NaN where a grade needs atoms that are not there."""

    grades: Array  # shape (n, 4): :data:`GRADES`
    # shape (n,): the atom of largest local grade, counted from 0 in the order of the structure's sites; -1
    # without atoms
    atom: NDArray[np.int64]
    novelty: Array  # shape (n,): largest grade in units of its threshold; 1 % of held-out structures exceed 1
    # shape (n,): whether two elements of the structure never met in one structure of the fit. Nowhere true
    # where that is common, as with few training structures: where it holds for over 5 % of the compositions
    # kept from the fit.
    unseen_pair: NDArray[np.bool_]
    # local grades of the atoms, structure after structure; none without atoms
    of_atoms: Array = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, eq=False)
class LocalSets:
    """One active set per cluster of training rows, in the leading principal components of all."""

    center: Array  # shape (P,): mean of the rows
    axes: Array  # shape (P, d): principal components of the standardised rows, as columns
    clusters: Array  # shape (k, d): centres of the clusters
    # those of the clusters, in d + 1 columns: components relative to the centre, and 1
    sets: tuple[ActiveSet, ...]

    def grade(self, b: NDArray[Any]) -> Array:
        """Smallest grade γ of rows (n, P) among the clusters, shape (n,): ≤ 1 for training rows, to 1e-9."""
        grade = np.full(len(b), np.inf)
        block = max(1, _BLOCK_ROWS // len(self.sets))
        for start in range(0, len(b), block):
            rows = slice(start, start + block)
            components = (b[rows] - self.center) @ self.axes
            coefficients = (components - self.clusters[:, None]) @ self._maps[:, :-1] + self._maps[:, -1:]
            grade[rows] = np.abs(coefficients).max(axis=2).min(axis=0)
        return grade

    @cached_property
    def _maps(self) -> Array:
        """What takes rows of every cluster to the coefficients whose largest is the grade, (k, d + 1, d + 1)."""
        return np.stack([chosen.coefficients for chosen in self.sets])

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that rebuild it."""
        tensors: dict[str, NDArray[Any]] = {
            "center": self.center,
            "axes": self.axes,
            "clusters": self.clusters,
        }
        for k, chosen in enumerate(self.sets):
            tensors |= {f"set{k}.{name}": array for name, array in chosen.to_tensors().items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> LocalSets:
        """Rebuild it from :meth:`to_tensors`; missing names raise ``KeyError``."""
        sets = (
            ActiveSet.from_tensors({name: tensors[f"set{k}.{name}"] for name in ActiveSet.__annotations__})
            for k in range(len(tensors["clusters"]))
        )
        return cls(tensors["center"], tensors["axes"], tensors["clusters"], tuple(sets))


@dataclass(frozen=True, eq=False)
class NoveltySets:
    """Active sets of structures, and of atoms where there were atoms."""

    structures: ActiveSet
    local_structures: LocalSets
    atoms: ActiveSet | None
    local_atoms: LocalSets | None

    def grades(
        self, x: Array, n_features: int, atoms: AtomRows | None
    ) -> tuple[Array, NDArray[np.int64], Array]:
        """Grades (n, 4), the atom of largest local grade (n,), and the local grades of all atoms."""
        grades = np.full((len(x), len(GRADES)), np.nan)
        worst = np.full(len(x), -1, dtype=np.int64)
        grades[:, 0] = self.structures.grade(affine(x))
        grades[:, 1] = self.local_structures.grade(x[:, :n_features])
        if atoms is None or self.atoms is None or self.local_atoms is None or not atoms.counts.any():
            return grades, worst, np.empty(0)
        has_atoms = atoms.counts > 0
        first = (np.cumsum(atoms.counts) - atoms.counts)[has_atoms]
        local = self.local_atoms.grade(atoms.values)
        grades[has_atoms, 2] = np.maximum.reduceat(self.atoms.grade(affine(atoms.values)), first)
        grades[has_atoms, 3] = np.maximum.reduceat(local, first)
        ends = first + atoms.counts[has_atoms]
        worst[has_atoms] = [local[a:b].argmax() for a, b in zip(first, ends, strict=True)]
        return grades, worst, local


@dataclass(frozen=True, eq=False)
class Novelty:
    """What a head remembers of its training structures in order to tell new ones; see :func:`fit_novelty`."""

    sets: NoveltySets  # global and local, of structures and, where the feature store kept them, of atoms
    # shape (2, 4): of :data:`GRADES`, for structures of a composition that the fit has seen and of a new one;
    # infinite where there were no atoms
    thresholds: Array
    # shape (2, 2): largest grade in units of its threshold, that few held-out structures exceed: seen and new
    # compositions; without and with atoms
    joint_thresholds: Array
    seen_pairs: NDArray[np.bool_]  # shape (118, 118): pairs of elements that met in a structure of the fit
    compositions: NDArray[np.uint64]  # keys of the compositions among them, sorted
    n_features: int  # feature columns, without the composition
    # rates of false alarm as measured on compositions that the fit has not seen, and sizes of the samples
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
        grades, atom, of_atoms = self.sets.grades(x, self.n_features, rows.atoms)
        tier = np.where(compositions_in(rows.column("formula").tolist(), self.compositions), 0, 1)
        with_atoms = np.isfinite(grades[:, STRUCTURE_GRADES:]).all(axis=1).astype(int)
        novelty = ratio(grades, self.thresholds[tier]) / self.joint_thresholds[tier, with_atoms]
        unseen = np.array(
            [not self.seen_pairs[pairs(row)].all() for row in rows.column("elements")], dtype=bool
        )
        rare = self.rates.get("measured", {}).get("unseen_pair", 0.0) <= _RARE
        return NoveltyGrades(grades, atom, novelty, unseen & rare, of_atoms)

    def atom_grades(self, rows: FeatureRows) -> tuple[Array, float]:
        """Local grades of the atoms of one structure, shape (n_atoms,), and their threshold; none without atoms."""
        if self.sets.local_atoms is None or rows.atoms is None:
            return np.empty(0), float("inf")
        tier = 0 if compositions_in(rows.column("formula").tolist(), self.compositions)[0] else 1
        threshold = self.thresholds[tier, GRADES.index("gamma_atom_local")] * self.joint_thresholds[tier, 1]
        return self.sets.local_atoms.grade(rows.atoms.values), float(threshold)

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


def fit_local_sets(x: NDArray[Any], seed: int) -> LocalSets:
    """Cluster training rows by k-means and find the active set of each cluster.

    ``x`` (n, P): training rows, n ≥ 1. Their order matters for the start of k-means: bring them into a
    definite one; ``seed``: of that start.
    Returns about one cluster per 100 rows, 64 at most; the 12 leading components. A cluster of fewer rows
    than twice its columns is given to its neighbours.
    """
    center = x.mean(axis=0, dtype=np.float64)
    spread = x.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0.0, spread, 1.0)
    standard = (x - center) / scale
    _, vectors = linalg.eigh(standard.T @ standard)
    axes = vectors[:, ::-1][:, :DIRECTIONS] / scale[:, None]
    components = (x - center) @ axes
    clusters = _clusters(components, seed)
    label, _ = vq(components, clusters)
    sets = tuple(active_set(_local(components[label == k], cluster)) for k, cluster in enumerate(clusters))
    return LocalSets(center, axes, clusters, sets)


def _local(components: Array, cluster: Array) -> Array:
    columns: Array = np.column_stack([components - cluster, np.ones(len(components))])
    return columns


def _clusters(components: Array, seed: int) -> Array:
    wanted = int(np.clip(len(components) // ROWS_PER_CLUSTER, 1, MAX_CLUSTERS))
    if wanted == 1:
        return np.asarray(components.mean(axis=0)[None, :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster; it is left out below
        centres, label = kmeans2(
            components, wanted, iter=_KMEANS_STEPS, minit="++", rng=np.random.default_rng(seed)
        )
    large = np.bincount(label, minlength=wanted) >= 2 * (components.shape[1] + 1)
    return np.asarray(centres[large] if large.any() else components.mean(axis=0)[None, :])
