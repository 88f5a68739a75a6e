"""Active sets of clusters: far from what any one kind of training row spans, though not from all of them together.

Reference: F. Shuang, Z. Wei, K. Liu, W. Gao, P. Dey, arXiv:2508.03405 (2025), "clustering-enhanced local
D-optimality": one active set spans too much where the training data are of many kinds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.cluster.vq import kmeans2

from mace_bounds.head import ActiveSet, active_set

Array = NDArray[np.float64]

DIRECTIONS = 12
ROWS_PER_CLUSTER = 100
MAX_CLUSTERS = 64
_KMEANS_STEPS = 20
_BLOCK_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class LocalSets:
    """One active set per cluster of training rows, in the leading principal components of all.

    Attributes
    ----------
    center : ndarray, shape (P,)
        Mean of the rows.
    axes : ndarray, shape (P, d)
        Principal components of the standardised rows, as columns.
    clusters : ndarray, shape (k, d)
        Centres of the clusters.
    sets : tuple of ActiveSet
        Those of the clusters, in d + 1 columns: components relative to the centre, and 1.
    """

    center: Array
    axes: Array
    clusters: Array
    sets: tuple[ActiveSet, ...]

    def grade(self, b: NDArray[Any]) -> Array:
        """Smallest grade γ of rows (n, P) among the clusters, shape (n,): ≤ 1 for training rows, to 1e-9."""
        grade = np.full(len(b), np.inf)
        for start in range(0, len(b), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            components = (b[rows] - self.center) @ self.axes
            for cluster, chosen in zip(self.clusters, self.sets, strict=True):
                grade[rows] = np.minimum(grade[rows], chosen.grade(_local(components, cluster)))
        return grade

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


def fit_local_sets(x: NDArray[Any], seed: int) -> LocalSets:
    """Cluster training rows by k-means and find the active set of each cluster.

    Parameters
    ----------
    x : ndarray, shape (n, P)
        Training rows, n ≥ 1. Their order matters for the start of k-means: bring them into a definite one.
    seed : int
        Of that start.

    Returns
    -------
    LocalSets
        About one cluster per 100 rows, 64 at most; the 12 leading components. A cluster of fewer rows than twice its
        columns is given to its neighbours.
    """
    center = x.mean(axis=0, dtype=np.float64)
    spread = x.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0.0, spread, 1.0)
    standard = (x - center) / scale
    _, vectors = linalg.eigh(standard.T @ standard)
    axes = vectors[:, ::-1][:, :DIRECTIONS] / scale[:, None]
    components = (x - center) @ axes
    clusters = _clusters(components, seed)
    label = _nearest(components, clusters)
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


def _nearest(components: Array, clusters: Array) -> NDArray[np.intp]:
    squared = -2.0 * components @ clusters.T + np.einsum("ij,ij->i", clusters, clusters)
    return np.asarray(squared.argmin(axis=1))
