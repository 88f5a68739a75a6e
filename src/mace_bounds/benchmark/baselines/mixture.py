"""Distance to the nearest cluster of the training rows, in the covariance of the cluster, as a width (GRACE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import vq
from scipy.linalg import solve_triangular

from mace_bounds.benchmark.baselines.grades import FittedGrade, cluster_centres, width_by_grade
from mace_bounds.benchmark.baselines.interface import BaselineRows, training_columns, training_rows
from mace_bounds.head import MAD_TO_STD, Design

DIMENSIONS = 128
"""Of the random projection, as in ``grace_uq build``; fewer where there are fewer columns."""
_RIDGE = 1e-2  # of the mean variance, added to a covariance that few rows make
_SMALLEST = 1e-12


@dataclass(frozen=True)
class MixtureGamma:
    """σ = a + b·log(1 + γ) about ``rows.centre``, γ that of GRACE's uncertainty, here for structures instead of atoms.

    Features are divided by their length, projected at random (R ~ N(0, 1) / √d) and joined by the logarithm of the
    length; γ is the Mahalanobis distance to the nearest centre of k-means over a threshold of the cluster, the median
    of its rows and three robust standard deviations: Y. Lysogorskiy, A. Bochkarev, R. Drautz, ``tensorpotential``
    0.6 (``grace_uq``), with clusters of structures where it has some for each element. There γ is a flag; it is made a
    width as the D-optimality grade is.
    """

    name: str = "gmm_gamma"
    most_clusters: int = 8

    def fit(self, rows: BaselineRows, seed: int) -> FittedGrade:
        """Calibrate a and b on left-out compositions, then cluster all rows."""

        def make(part: BaselineRows) -> Mixture:
            return Mixture.of(part, self.most_clusters, seed)

        return width_by_grade(training_rows(rows), seed, make, make)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Standardised columns, their projection (m, d), and of each of k clusters centre, covariance and threshold."""

    design: Design
    projection: NDArray[np.float64]  # shape (m, d)
    centres: NDArray[np.float64]  # shape (k, d + 1)
    factors: NDArray[np.float64]  # shape (k, d + 1, d + 1): Cholesky factors of the covariances
    thresholds: NDArray[np.float64]  # shape (k,)

    @classmethod
    def of(cls, rows: BaselineRows, most_clusters: int, seed: int) -> Mixture:
        """Cluster rows; a cluster has at least twice as many of them as dimensions on average."""
        design = training_columns(rows).design
        m = design.size - int(design.intercept)
        d = min(DIMENSIONS, m)
        projection = np.random.default_rng(seed).standard_normal((m, d)) / np.sqrt(max(d, 1))
        z = _projected(design, projection, rows.x)
        z = z[
            np.argsort(z @ np.cos(np.arange(1.0, d + 2.0)), kind="stable")
        ]  # an order that labels do not decide
        n_clusters = int(np.clip(len(z) // (2 * (d + 1)), 1, most_clusters))
        centres = cluster_centres(z, n_clusters, seed)
        label, _ = vq(z, centres)
        centres = np.array([z[label == k].mean(axis=0) for k in range(len(centres))])
        factors, thresholds = [], []
        for k, centre in enumerate(centres):
            away = z[label == k] - centre
            covariance = away.T @ away / len(away)
            ridge = _RIDGE * float(np.trace(covariance)) / len(covariance) + _SMALLEST
            factors.append(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance))))
            distance = _mahalanobis(away, factors[-1])
            middle = float(np.median(distance))
            spread = MAD_TO_STD * float(np.median(np.abs(distance - middle)))
            thresholds.append(max(middle + 3.0 * spread, _SMALLEST))
        return cls(design, projection, centres, np.array(factors), np.array(thresholds))

    def grade(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """γ of raw rows (n, P), shape (n,)."""
        z = _projected(self.design, self.projection, x)
        label, _ = vq(z, self.centres)
        grade = np.empty(len(z))
        for k, centre in enumerate(self.centres):
            held = label == k
            grade[held] = _mahalanobis(z[held] - centre, self.factors[k]) / self.thresholds[k]
        return grade


def _projected(
    design: Design, projection: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    z = design.transform(x)[:, : len(projection)]
    length = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), _SMALLEST)
    return np.concatenate([z / length @ projection, np.log(length)], axis=1)


def _mahalanobis(away: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(solve_triangular(factor, away.T, lower=True), axis=0))
