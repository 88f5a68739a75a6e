"""What neighbours say of a row's error, and how large errors usually are where it lies.

Local kriging over features and composition, without the row itself; then a Student distribution of what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head import minimise

Array = NDArray[np.float64]

N_NEIGHBOURS = 50
# Correlation lengths: in features in typical distances to the fifth neighbour, in atomic fractions half of the distance
# between two elements. Variances are in units of the typical scale squared.
_REACH, _LENGTH = 8.0, 0.7
_SIGNAL, _NUGGET = 4.0, 0.25
_CLIP = 5.0  # errors beyond this many scales do not pull their neighbours
_SAME, _OTHER = 1e-3, 0.1  # distances: features that are the same, compositions that are not
_FIFTH, _SAMPLE = 5, 1000
_ROUGH = 0.05  # single precision cannot tell features closer than this
_CHUNK, _CELLS = 1024, 1 << 20  # rows, and distances, in hand at a time
_FREEDOM = 3.0  # degrees of freedom: a model's errors have heavy tails
_RIDGE = 0.01
_WRONG_LABEL_EV = 1.0  # eV/atom, the typical size of a wrong label's shift


@dataclass(frozen=True, eq=False)
class FeatureMetric:
    """Where rows lie, in single precision, so that distances compare."""

    features: NDArray[np.float32]  # shape (n, p): standardised, in typical distances to the fifth neighbour
    fractions: NDArray[np.float32]  # shape (n, e): atomic fractions of the elements that occur
    # features_squared, fractions_squared, shape (n,): squared lengths of the rows of both, which every
    # distance needs
    features_squared: NDArray[np.float32]
    fractions_squared: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NeighbourPrediction:
    """What the neighbours of some rows lead to expect; energies in the unit of the deviations given."""

    expected: Array  # shape (m,): expected deviation
    std: Array  # shape (m,): its standard deviation, that of a single label included
    nearest: NDArray[np.int64]  # shape (m,): the nearest row among the known ones
    distance: Array  # shape (m,): distance to it in features, in typical distances to the fifth neighbour
    # shape (m,): whether another composition has the same features: the model sees no neighbours of any atom
    blind: NDArray[np.bool_]


def feature_metric(
    features: NDArray[np.floating], fractions: NDArray[np.floating], *, seed: int = 0
) -> FeatureMetric:
    """Scale features per atom, shape (n, p), and atomic fractions, shape (n, 118), so that distances compare.

    ``seed`` is that of the sample from which the typical distance is taken.
    """
    n = len(features)
    mean = features.mean(axis=0, dtype=np.float64)
    chunks = range(0, n, _CHUNK)
    spread = np.sqrt(sum(((features[i : i + _CHUNK] - mean) ** 2).sum(axis=0) for i in chunks) / n)
    varied = np.flatnonzero(spread > 0)
    x = np.empty((n, len(varied)), dtype=np.float32)
    for i in chunks:
        x[i : i + _CHUNK] = (features[i : i + _CHUNK, varied] - mean[varied]) / spread[varied]
    x /= np.float32(_typical_distance(x, seed))
    f = np.ascontiguousarray(fractions[:, fractions.any(axis=0)], dtype=np.float32)
    return FeatureMetric(x, f, _squared(x), _squared(f))


def predict_from_neighbours(
    metric: FeatureMetric, deviation: Array, scale: float, rows: NDArray[np.int64]
) -> NeighbourPrediction:
    """Predict the deviations of some rows from those of their neighbours.

    ``metric``: of rows whose deviation is known; ``deviation`` (n,): error less what is expected of it;
    ``scale``: typical size of a deviation, same unit; ``rows`` (m,): the rows to predict, each without
    itself.

    Simple kriging on the nearest 50 rows with the product of an exponential kernel of features and one of atomic
    fractions: prior standard deviation of two scales, half a scale of noise. Errors are clipped at five scales, so
    that one wrong label does not make its neighbours suspect.
    """
    x, f = metric.features, metric.fractions
    n, m = len(x), len(rows)
    pulled = np.clip(deviation, -_CLIP * scale, _CLIP * scale)
    k = min(N_NEIGHBOURS, n - 1)
    expected, std = np.zeros(m), np.full(m, np.sqrt(_SIGNAL + _NUGGET) * scale)
    nearest, distance, blind = rows.copy(), np.full(m, np.inf), np.zeros(m, dtype=bool)
    size = _rows_at_a_time(n)
    for start in range(0, m if k else 0, size):
        chunk = rows[start : start + size]
        apart = _rough_distances(x, metric.features_squared, chunk)
        other = _rough_distances(f, metric.fractions_squared, chunk)
        alike = (apart < _ROUGH) & (other > _OTHER)
        apart *= np.float32(1 / _REACH)
        apart += other / np.float32(_LENGTH)
        apart[np.arange(len(chunk)), chunk] = np.inf
        near = np.argpartition(apart, k - 1, axis=1)[:, :k]
        for i, known in enumerate(near, start):
            at = np.append(known, rows[i])
            between = _distances(x[at])
            covariance = _SIGNAL * np.exp(-between / _REACH - _distances(f[at]) / _LENGTH)
            towards, inner = covariance[k, :k], covariance[:k, :k] + _NUGGET * np.eye(k)
            weight = np.linalg.solve(inner, towards)
            expected[i] = weight @ pulled[known]
            std[i] = scale * np.sqrt(max(_SIGNAL + _NUGGET - float(weight @ towards), _NUGGET))
            first = int(np.argmax(towards))
            nearest[i], distance[i] = known[first], between[k, first]
            twins = np.flatnonzero(alike[i - start])
            blind[i] = bool((np.linalg.norm(x[twins] - x[rows[i]], axis=1) < _SAME).any())
    return NeighbourPrediction(expected, std, nearest, distance, blind)


def _rows_at_a_time(n: int) -> int:
    return max(1, _CELLS // n)


def _squared(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.einsum("ij,ij->i", x, x))


def _rough_distances(
    x: NDArray[np.float32], squares: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Distances of some rows to all, by matrix products: good enough to choose neighbours by."""
    found = x[rows] @ x.T
    found *= -2
    found += squares
    found += squares[rows, None]
    return np.asarray(np.sqrt(np.maximum(found, 0, out=found), out=found))


def _distances(x: NDArray[np.float32]) -> Array:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(x, x))


def _typical_distance(x: NDArray[np.float32], seed: int) -> float:
    """Median distance to the fifth neighbour, from a sample of the rows."""
    sample = np.random.default_rng(seed).permutation(len(x))[:_SAMPLE]
    fifth, size, squares = min(_FIFTH, len(x) - 1), _rows_at_a_time(len(x)), _squared(x)
    found = [
        np.partition(_rough_distances(x, squares, sample[i : i + size]), fifth, axis=1)[:, fifth].copy()
        for i in range(0, len(sample), size)
    ]
    return float(np.median(np.concatenate(found))) or 1.0


@dataclass(frozen=True, eq=False)
class UsualError:
    """Scale s of a Student distribution of surprises: log s = b0 + b·z, with z the standardised covariates."""

    coefficients: Array  # shape (1 + c,): b0 and the slopes, which are not negative
    # mean, spread, shape (c,): of the covariates
    mean: Array
    spread: Array

    def scale(self, covariates: Array) -> Array:
        """Scale s of rows with these covariates, shape (n,)."""
        return np.asarray(np.exp(_design(covariates, self.mean, self.spread) @ self.coefficients))


def fit_usual_error(surprise: Array, covariates: Array) -> UsualError:
    """Fit what surprises usually are: log s = b0 + b·z, where s is the scale of a Student distribution.

    ``surprise`` (n,): errors less what was expected of them; wrong labels among them are outvoted;
    ``covariates`` (n, c): what the scale grows with; standardised inside to z.

    Maximum likelihood with three degrees of freedom and a small ridge on the slopes.
    """
    mean, spread = covariates.mean(axis=0), covariates.std(axis=0)
    z = _design(covariates, mean, spread)
    penalty = np.where(np.arange(z.shape[1]) > 0, _RIDGE, 0.0)

    def loss(b: Array) -> tuple[float, Array]:
        log_s = z @ b
        squared = (surprise * np.exp(-log_s)) ** 2 / _FREEDOM
        value = np.mean(log_s + 0.5 * (_FREEDOM + 1) * np.log1p(squared)) + 0.5 * penalty @ b**2
        slope = 1 - (_FREEDOM + 1) * squared / (1 + squared)
        return float(value), np.asarray(z.T @ slope / len(z) + penalty * b)

    start = np.zeros(z.shape[1])
    start[0] = np.log(max(1.4826 * float(np.median(np.abs(surprise))), 1e-6))
    bounds = [(None, None)] + [(0.0, None)] * covariates.shape[1]
    return UsualError(minimise(loss, start, name="usual errors", bounds=bounds), mean, spread)


def evidence(surprise: Array, usual: Array) -> Array:
    """How many powers of ten likelier a wrong label makes surprises, shape (n,); energies in eV/atom.

    The decimal logarithm of a ratio of two densities: a Cauchy distribution of 1 eV/atom and the usual error, for a
    shifted label; and the Student distribution of the usual error, for the model's own.
    """
    from scipy.stats import cauchy, t

    shifted = cauchy.logpdf(surprise, scale=_WRONG_LABEL_EV + usual)
    own = t.logpdf(surprise, _FREEDOM, scale=usual)
    return np.asarray((shifted - own) / np.log(10))


def _design(covariates: Array, mean: Array, spread: Array) -> Array:
    z = np.where(spread > 1e-9, (covariates - mean) / np.where(spread > 1e-9, spread, 1.0), 0.0)
    return np.column_stack([np.ones(len(z)), z])
