"""How far a structure is from the training rows, by D-optimality or by clusters (GRACE), made a width."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.linalg import solve_triangular

from mace_bounds.benchmark.baselines.interface import (
    FLOOR_SHARE,
    BaselineRows,
    FittedBaseline,
    Widths,
    composition_folds,
    floor_of,
    nll_scale,
    training_columns,
    training_rows,
)
from mace_bounds.head import MAD_TO_STD, ActiveSet, Design, active_set

MIXES: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""Shares of the width that grow with γ, on average over left-out rows, that are compared."""
DOMINANT = 1.0 + 1e-9
"""Largest γ of a training row at which the search for the final active sets ends."""
_ROWS_PER_CLUSTER = 100
_SMALLEST_CLUSTER = 20
_KMEANS_STEPS = 20
_CALIBRATION_ROWS = 5_000  # beyond, one left-out fold is enough for two numbers
_CALIBRATION_TOLERANCE = 1.05  # of active sets that serve only to calibrate: the last swaps cost most


class Grader(Protocol):
    """Gives an extrapolation grade γ."""

    def grade(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """γ of raw rows (n, P), shape (n,), not negative."""


@dataclass(frozen=True)
class DOptimality:
    """σ = a + b·log(1 + γ), a and b not negative, about ``rows.centre``.

    γ(x) = max |x A⁻¹|, A the training rows of maximum volume (E. V. Podryabinkin and A. V. Shapeev, Comput.
    Mater. Sci. 140, 171 (2017), equation 12), found by MaxVol in the numerical row space (:func:`active_set`);
    γ ≤ 1 on every training row. With ``most_clusters`` > 1 the rows are first clustered (k-means on
    standardised features, at least 100 rows a cluster on average), every cluster has an active set of its
    own, and γ is that of the nearest cluster, as in the clustering-enhanced local D-optimality of F. Shuang et
    al., arXiv:2508.03405, here for structures instead of atoms.

    The papers use γ as a flag. To make it a width, a and b (eV/atom) minimise the Gaussian negative
    log-likelihood of y - centre over training rows whose composition was left out of clusters and active
    sets; outside the row space γ ranges over decades, hence the logarithm, and it counts as at most the
    largest γ of these rows. Weights enter the likelihood, and the means and scales that k-means sees; an
    active set has no weights.
    """

    name: str
    most_clusters: int
    rank_tolerance: float

    def fit(self, rows: BaselineRows, seed: int) -> FittedGrade:
        """Calibrate a and b on left-out compositions, then make the active sets of all rows."""
        return width_by_grade(
            training_rows(rows),
            seed,
            lambda part: self._regions(part, seed, _CALIBRATION_TOLERANCE),
            lambda part: self._regions(part, seed),
        )

    def _regions(self, rows: BaselineRows, seed: int, tolerance: float = DOMINANT) -> Regions:
        """Cluster the rows and make an active set of each cluster, γ ≤ tolerance on its rows."""
        design = training_columns(rows).design
        z = design.transform(rows.x)
        n_clusters = int(np.clip(len(z) // _ROWS_PER_CLUSTER, 1, self.most_clusters))
        centres = cluster_centres(z, n_clusters, seed)
        label, _ = vq(z, centres)
        sets = tuple(
            active_set(rows.x[label == k], rank_tolerance=self.rank_tolerance, tolerance=tolerance)
            for k in range(len(centres))
        )
        return Regions(design, centres, sets)


def width_by_grade(
    kept: BaselineRows,
    seed: int,
    draft: Callable[[BaselineRows], Grader],
    final: Callable[[BaselineRows], Grader],
) -> FittedGrade:
    """Make a grade γ a width a + b·log(1 + γ): a and b by likelihood on compositions that the grade has not seen.

    ``kept``: training rows; ``draft``, ``final``: make the grader of some rows, the first for the rows of a fold.
    """
    folds = composition_folds(kept.groups, seed)
    grade = np.full(len(kept), np.nan)
    for fold in np.unique(folds)[: 1 if len(kept) > _CALIBRATION_ROWS else None]:
        held = folds == fold
        grade[held] = draft(kept.take(~held)).grade(kept.x[held])
    graded = np.isfinite(grade)
    size, error, weights = np.log1p(grade[graded]), kept.error[graded], kept.weights[graded]
    mean = float(np.average(size, weights=weights)) or 1.0
    # A row of zeros has γ = 0, and must not make a width of zero.
    shapes = np.maximum(1.0 - MIXES + MIXES * (size[:, None] / mean), FLOOR_SHARE)
    best, alpha = nll_scale(error, shapes, weights)
    return FittedGrade(
        grader=final(kept),
        constant=alpha * float(1.0 - MIXES[best]),
        slope=alpha * float(MIXES[best]) / mean,
        largest=float(grade[graded].max()),
        floor=floor_of(alpha * shapes[:, best], weights),
    )


def cluster_centres(z: NDArray[np.float64], n_clusters: int, seed: int) -> NDArray[np.float64]:
    """Centres of k-means (Lloyd's algorithm from seeded rows), shape (≤ n_clusters, m).

    Clusters under 20 rows are dissolved: their rows go to the nearest of the others.
    """
    start = np.random.default_rng(seed).choice(len(z), n_clusters, replace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster may become empty: it is dissolved below
        centres, _ = kmeans2(z, z[np.sort(start)], iter=_KMEANS_STEPS, minit="matrix")
    while len(centres) > 1:
        counts = np.bincount(vq(z, centres)[0], minlength=len(centres))
        if counts.min() >= _SMALLEST_CLUSTER:
            break
        centres = np.delete(centres, int(counts.argmin()), axis=0)
    return np.asarray(centres)


@dataclass(frozen=True, eq=False)
class Regions:
    """Standardised columns, cluster centres (k, m) in them, and the active set of each cluster."""

    design: Design
    centres: NDArray[np.float64]
    sets: tuple[ActiveSet, ...]

    def grade(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """γ of raw rows (n, P) in the cluster nearest to each, shape (n,)."""
        label, _ = vq(self.design.transform(x), self.centres)
        grade = np.empty(len(x))
        for k, one in enumerate(self.sets):
            grade[label == k] = one.grade(x[label == k])
        return grade


@dataclass(frozen=True, eq=False)
class FittedGrade(FittedBaseline):
    """What grades, a and b in eV/atom, the largest γ that counts, and the smallest width in eV/atom."""

    grader: Grader
    constant: float
    slope: float
    largest: float
    floor: float

    def grade(self, rows: BaselineRows) -> NDArray[np.float64]:
        """Extrapolation grade γ of each row, shape (n,), not limited."""
        return self.grader.grade(rows.x)

    def predict(self, rows: BaselineRows) -> Widths:
        """Evaluate a + b·log(1 + γ); the centre is that of the rows."""
        size = np.log1p(np.minimum(self.grade(rows), self.largest))
        return Widths(rows.centre, np.maximum(self.constant + self.slope * size, self.floor))


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
