"""What neighbours say of a row's error: local kriging over features and composition, without the row itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_NEIGHBOURS = 50
_REACH = 8.0  # correlation length in features, in typical distances to the fifth neighbour
_LENGTH = 0.7  # correlation length in atomic fractions; half of the distance between two elements
_SIGNAL, _NUGGET = 4.0, 0.25  # variances in units of the typical scale squared
_CLIP = 5.0  # errors beyond this many scales do not pull their neighbours
_SAME, _OTHER = 1e-3, 0.1  # distances: features that are the same, compositions that are not
_FIFTH, _SAMPLE = 5, 1000
_ROUGH = 0.05  # single precision cannot tell features closer than this
_CHUNK, _CELLS = 1024, 1 << 20  # rows, and distances, in hand at a time


@dataclass(frozen=True, eq=False)
class Space:
    """Where rows lie, in single precision.

    Attributes
    ----------
    features : ndarray of float32, shape (n, p)
        Standardised, in typical distances to the fifth neighbour.
    fractions : ndarray of float32, shape (n, e)
        Atomic fractions of the elements that occur.
    """

    features: NDArray[np.float32]
    fractions: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Neighbourly:
    """What the neighbours of some rows say; energies in the unit of the deviations given.

    Attributes
    ----------
    expected : ndarray, shape (m,)
        Expected deviation.
    std : ndarray, shape (m,)
        Its standard deviation, that of a single label included.
    nearest : ndarray of int64, shape (m,)
        The nearest row among the known ones.
    distance : ndarray, shape (m,)
        Distance to it in features, in typical distances to the fifth neighbour.
    blind : ndarray of bool, shape (m,)
        Whether another composition has the same features: the model sees no neighbours of any atom.
    """

    expected: Array
    std: Array
    nearest: NDArray[np.int64]
    distance: Array
    blind: NDArray[np.bool_]


def space(features: NDArray[np.floating], fractions: NDArray[np.floating], *, seed: int = 0) -> Space:
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
    return Space(x, np.ascontiguousarray(fractions[:, fractions.any(axis=0)], dtype=np.float32))


def neighbourly(where: Space, deviation: Array, scale: float, rows: NDArray[np.int64]) -> Neighbourly:
    """Predict the deviations of some rows from those of their neighbours.

    Parameters
    ----------
    where : Space
        Of rows whose deviation is known.
    deviation : ndarray, shape (n,)
        Error less what is expected of it.
    scale : float
        Typical size of a deviation, same unit.
    rows : ndarray of int64, shape (m,)
        The rows to predict, each without itself.

    Returns
    -------
    Neighbourly

    Notes
    -----
    Simple kriging on the nearest 50 rows with the product of an exponential kernel of features and one of atomic
    fractions: prior standard deviation of two scales, half a scale of noise. Errors are clipped at five scales, so
    that one wrong label does not make its neighbours suspect.
    """
    x, f = where.features, where.fractions
    n, m = len(x), len(rows)
    pulled = np.clip(deviation, -_CLIP * scale, _CLIP * scale)
    k = min(N_NEIGHBOURS, n - 1)
    expected, std = np.zeros(m), np.full(m, np.sqrt(_SIGNAL + _NUGGET) * scale)
    nearest, distance, blind = rows.copy(), np.full(m, np.inf), np.zeros(m, dtype=bool)
    size = _rows_at_a_time(n)
    for start in range(0, m if k else 0, size):
        chunk = rows[start : start + size]
        apart, other = _rough_distances(x, chunk), _rough_distances(f, chunk)
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
    return Neighbourly(expected, std, nearest, distance, blind)


def _rows_at_a_time(n: int) -> int:
    return max(1, _CELLS // n)


def _rough_distances(x: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Distances of some rows to all, by matrix products: good enough to choose neighbours by."""
    squares = np.einsum("ij,ij->i", x, x)
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
    fifth, size = min(_FIFTH, len(x) - 1), _rows_at_a_time(len(x))
    found = [
        np.partition(_rough_distances(x, sample[i : i + size]), fifth, axis=1)[:, fifth].copy()
        for i in range(0, len(sample), size)
    ]
    return float(np.median(np.concatenate(found))) or 1.0
