"""What a row's neighbours in feature space say of its error: local kriging, each row left out of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_NEIGHBOURS = 50
_REACH = 4.0  # correlation length, in typical distances to the fifth neighbour
_SIGNAL, _NUGGET = 4.0, 0.25  # variances in units of the typical scale squared
_CLIP = 5.0  # errors beyond this many scales do not pull their neighbours
_FIFTH, _CHUNK, _SAMPLE = 5, 256, 1000


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
        Distance to it, in typical distances to the fifth neighbour.
    """

    expected: Array
    std: Array
    nearest: NDArray[np.int64]
    distance: Array


def neighbourly(
    features: Array, deviation: Array, scale: float, rows: NDArray[np.int64], *, seed: int = 0
) -> Neighbourly:
    """Predict the deviations of some rows from those of their neighbours.

    Parameters
    ----------
    features : ndarray, shape (n, p)
        Features per atom of rows whose deviation is known; standardised inside.
    deviation : ndarray, shape (n,)
        Error less what is expected of it.
    scale : float
        Typical size of a deviation, same unit.
    rows : ndarray of int64, shape (m,)
        The rows to predict, each without itself.
    seed : int
        Of the sample from which the typical distance is taken.

    Returns
    -------
    Neighbourly

    Notes
    -----
    Simple kriging with an exponential kernel on the nearest 50 rows: prior standard deviation of two scales, half a
    scale of noise. Errors are clipped at five scales, so that one wrong label does not make its neighbours suspect.
    """
    spread = features.std(axis=0)
    x = (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    unit = _typical_distance(x, seed)
    pulled = np.clip(deviation, -_CLIP * scale, _CLIP * scale)
    k = min(N_NEIGHBOURS, len(x) - 1)
    expected, std = np.zeros(len(rows)), np.full(len(rows), np.sqrt(_SIGNAL + _NUGGET) * scale)
    nearest, distance = rows.copy(), np.full(len(rows), np.inf)
    for start in range(0, len(rows) if k else 0, _CHUNK):
        chunk = rows[start : start + _CHUNK]
        far = _distances(x[chunk], x) / unit
        far[np.arange(len(chunk)), chunk] = np.inf
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        for i, (known, away) in enumerate(zip(near, far, strict=True), start):
            between = _distances(x[known], x[known]) / unit
            covariance = _SIGNAL * np.exp(-between / _REACH) + _NUGGET * np.eye(k)
            towards = _SIGNAL * np.exp(-away[known] / _REACH)
            weight = np.linalg.solve(covariance, towards)
            expected[i] = weight @ pulled[known]
            std[i] = scale * np.sqrt(max(_SIGNAL + _NUGGET - weight @ towards, _NUGGET))
            first = int(np.argmin(away[known]))
            nearest[i], distance[i] = known[first], away[known[first]]
    return Neighbourly(expected, std, nearest, distance)


def _distances(a: Array, b: Array) -> Array:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b))


def _typical_distance(x: Array, seed: int) -> float:
    """Median distance to the fifth neighbour, from a sample of the rows."""
    sample = np.random.default_rng(seed).permutation(len(x))[:_SAMPLE]
    fifth = min(_FIFTH, len(x) - 1)
    found = [
        np.partition(_distances(x[sample[i : i + _CHUNK]], x), fifth, axis=1)[:, fifth]
        for i in range(0, len(sample), _CHUNK)
    ]
    return float(np.median(np.concatenate(found))) or 1.0
