"""Where a row lies among the training rows: standardised features, distance, and kernels around landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.scale_inputs import ScaleInputs

N_LANDMARKS = 128
"""Most training rows around which a kernel sits."""
KERNEL_WIDTH = 0.5
"""Width of a kernel, in median distances between landmarks."""

_FAR = 6.0  # standard deviations to which a standardised feature is clamped
_SAME = 1e-9  # a constant column that differs by less, relative to its value (at least 1), is the same
_RIDGE = 1e-3  # of the mean eigenvalue: directions of less variance are not told apart
_SMALLEST_MODE = 1e-3  # of the largest: kernel modes below it are round-off and luck
_MIN_REST = 1e-3  # smallest 1 - h

Arrays = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Space:
    """Standardised columns of the training rows and the metric of their correlation.

    Attributes
    ----------
    centre, spread : ndarray, shape (c,)
        Mean and standard deviation of features and fractions; spread ``inf`` for a constant column.
    metric : ndarray, shape (c, c)
        W such that |(x - centre) / spread · W|² + ``offset`` is the leverage of a row: LLPR's xᵀC⁻¹x with an intercept.
    offset : ndarray, shape ()
        One over the number of training rows.
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    metric: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def fit(cls, inputs: ScaleInputs) -> Space:
        """Learn means, spreads and metric from the training rows, each counting once."""
        x = inputs.columns
        centre, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-10 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
        z = (x - centre) / spread
        values, vectors = np.linalg.eigh(z.T @ z)
        ridge = _RIDGE * max(float(values.mean()), 1e-300)
        return cls(centre, spread, vectors / np.sqrt(np.maximum(values, 0.0) + ridge), np.array(1.0 / len(x)))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Space:
        """Rebuild from :meth:`to_arrays`."""
        return cls(**{name: arrays[f"space_{name}"] for name in ("centre", "spread", "metric", "offset")})

    def to_arrays(self) -> Arrays:
        """Arrays to keep in the head."""
        return {f"space_{name}": np.asarray(values) for name, values in self.__dict__.items()}

    def gain(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Leverage of rows that were not in the fit, shape (n,); ``inf`` where a constant column differs."""
        away = inputs.columns - self.centre
        u = (away / self.spread) @ self.metric
        new = np.isinf(self.spread) & (np.abs(away) > _SAME * np.maximum(1.0, np.abs(self.centre)))
        return np.where(new.any(axis=1), np.inf, self.offset + np.einsum("ij,ij->i", u, u))

    def left_out_gain(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Leverage that each training row has against the others, shape (n,) (Sherman-Morrison)."""
        gain = self.gain(inputs)
        return np.asarray(gain / np.maximum(1.0 - gain, _MIN_REST))

    def features(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Return the standardised features, clamped and divided by √p, shape (n, p).

        The division makes all of them together weigh as much in a ridge as one column of unit variance.
        """
        if inputs.features is None:
            return np.empty((len(inputs), 0))
        p = inputs.features.shape[1]
        z = np.clip((inputs.features - self.centre[:p]) / self.spread[:p], -_FAR, _FAR)
        return np.asarray(z / np.sqrt(max(p, 1)))


def landmarks(points: NDArray[np.float64], order: NDArray[np.int64]) -> tuple[Arrays, NDArray[np.float64]]:
    """Place kernels exp(-|x - z|²/2ℓ²) on rows, and return their whitened modes (Nyström).

    Parameters
    ----------
    points : ndarray, shape (n, p)
        Standardised features of the training rows.
    order : ndarray of int64, shape (n,)
        The rows in the order in which they may become landmarks.

    Returns
    -------
    arrays : dict
        ``landmarks`` (k, p) and ``kernel_width`` ().
    modes : ndarray, shape (k, m)
        ``kernel(points) @ modes`` are columns whose ridge is the norm of the kernel's function space.

    References
    ----------
    C. Williams and M. Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000.
    """
    chosen = points[order[:N_LANDMARKS]]
    square = _square_distances(chosen, chosen)
    apart = square[np.triu_indices(len(chosen), 1)]
    width = KERNEL_WIDTH * np.sqrt(float(np.median(apart)) if apart.size and apart.any() else 1.0)
    arrays = {"landmarks": chosen, "kernel_width": np.array(max(width, 1e-6))}
    values, vectors = np.linalg.eigh(kernel(arrays, chosen))
    kept = values > _SMALLEST_MODE * values[-1]
    return arrays, vectors[:, kept] / np.sqrt(values[kept])


def kernel(arrays: Mapping[str, NDArray[np.float64]], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel between rows and landmarks, shape (n, k)."""
    square = _square_distances(points, arrays["landmarks"])
    return np.asarray(np.exp(-0.5 * square / float(arrays["kernel_width"]) ** 2))


def _square_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(np.maximum(square, 0.0))
