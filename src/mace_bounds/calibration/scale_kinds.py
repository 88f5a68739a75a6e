"""The kinds of σ(x): each is a few lines that fit a size to training rows and evaluate it on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.scale_inputs import ScaleInputs
from mace_bounds.calibration.scale_solvers import gamma_nnls, laplace_path, low_rank
from mace_bounds.calibration.scale_space import Arrays, Space, kernel, landmarks

RANK = 4
"""Columns of U in the ``low_rank`` kind."""

_PATH = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # ridge strengths, in units of a candidate's
_CLIP_QUANTILE = 0.995  # sizes above this quantile are cut before a mean is fitted to them
_MARGIN = np.log(2.0)  # by which a logarithm may leave its training range
_LARGEST_LOG = 300.0  # the ceiling of the scale cuts long before; this only keeps exp finite


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows to which a kind is fitted: inputs, |residual| (n,), weights (n,) of mean 1, and landmark order (n,)."""

    inputs: ScaleInputs
    size: NDArray[np.float64]
    w: NDArray[np.float64]
    order: NDArray[np.int64]


class Kind(Protocol):
    """One way to model the size of a residual."""

    @property
    def strengths(self) -> Sequence[float]:
        """Strengths of its ridge or prior that are worth comparing, the safest first; one if it has none."""

    @property
    def arrays(self) -> Sequence[str]:
        """Names of the arrays without which it cannot be evaluated."""

    @property
    def minimum(self) -> int:
        """Fewest rows for which it is tried."""

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Arrays of the fitted model for every strength."""

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
        """Size of each row up to a factor, shape (n,), not negative."""


@dataclass(frozen=True)
class Constant:
    """One size for all."""

    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    arrays: ClassVar[tuple[str, ...]] = ()
    minimum: ClassVar[int] = 0

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:  # noqa: ARG002
        """Nothing to learn: the factor of the model is the size."""
        return [{} for _ in strengths]

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:  # noqa: ARG002
        """Ones."""
        return np.ones(len(inputs))


@dataclass(frozen=True)
class Support:
    """c0 + c1·support, not negative, by a gamma fit: the width of POPS as it is."""

    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    arrays: ClassVar[tuple[str, ...]] = ("coefficients", "low", "high")
    minimum: ClassVar[int] = 0

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Gamma regression of |r|, the largest cut."""
        columns = np.column_stack([np.ones(len(rows.size)), rows.inputs.support_width])
        coefficients = gamma_nnls(columns, _cut(rows.size, rows.w), rows.w)
        return [{"coefficients": coefficients, **_clamps(columns[:, 1:])} for _ in strengths]

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
        """Linear in the clamped support."""
        column = np.clip(inputs.support_width, arrays["low"][0], arrays["high"][0])
        return np.asarray(arrays["coefficients"][0] + arrays["coefficients"][1] * column)


@dataclass(frozen=True)
class Variance:
    """σ² = Σ θ·[1, support², box², leverage, 1/n, ellipsoid²] + Σ_element f·s², all θ, s² ≥ 0.

    The prior of strength k counts as k rows of every pure element with the size of the average row: element terms
    that few rows can tell shrink together, so that the model is safe from a hundred rows on.
    """

    strengths: ClassVar[tuple[float, ...]] = (100.0,)
    arrays: ClassVar[tuple[str, ...]] = ("coefficients", "element_coefficients", "low", "high")
    minimum: ClassVar[int] = 100

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Gamma regression of r², the largest cut."""
        columns, seen = rows.inputs.variance_columns(), rows.inputs.elements
        fractions, target = rows.inputs.fractions[:, seen], _cut(rows.size, rows.w) ** 2
        n_elements = fractions.shape[1]
        mean = np.average(columns, axis=0, weights=rows.w)
        prior = np.column_stack([np.tile(mean, (n_elements, 1)), np.eye(n_elements)])
        design = np.vstack([np.column_stack([columns, fractions]), prior])
        sizes = np.concatenate([target, np.full(n_elements, np.average(target, weights=rows.w))])
        out = []
        for strength in strengths:
            theta = gamma_nnls(design, sizes, np.concatenate([rows.w, np.full(n_elements, strength)]))
            k = columns.shape[1]
            arrays = {"coefficients": theta[:k], "element_coefficients": _elements(theta[k:], seen)}
            out.append({**arrays, **_clamps(columns[:, 1:])})
        return out

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
        """Root of the non-negative sum."""
        columns = inputs.variance_columns(len(arrays["coefficients"]))
        columns[:, 1:] = np.clip(columns[:, 1:], arrays["low"], arrays["high"])
        linear = columns @ arrays["coefficients"] + inputs.fractions @ arrays["element_coefficients"]
        return np.sqrt(np.maximum(linear, 0.0))


@dataclass(frozen=True)
class LogLinear:
    """log σ linear in log widths, log distance, atomic fractions and, if asked, features and kernels around rows.

    The logarithms have unit variance and the features together too, so that one ridge serves all. log σ is the mean
    over a path of ridge strengths, 1 to 300 rows times the candidate's: folds on a few hundred rows with heavy tails
    cannot tell strengths apart, and on left-out crystals the mean was up to 8 % sharper than the strength they chose.

    Attributes
    ----------
    with_features, with_kernel : bool
        What joins widths, distance and fractions.
    minimum : int
        Fewest rows for which it is tried.
    """

    with_features: bool
    with_kernel: bool
    minimum: int
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.3, 0.1, 0.03)
    arrays: ClassVar[tuple[str, ...]] = ("coefficients", "element_coefficients", "floors", "low", "high")

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Laplace likelihood with a ridge, see :func:`laplace_path`."""
        space, floors = Space.fit(rows.inputs), rows.inputs.floors()
        distance = 0.5 * np.log(space.left_out_gain(rows.inputs))
        logs = np.column_stack([rows.inputs.log_columns(floors), distance])
        spread = logs.std(axis=0)
        unit = np.where(spread > 1e-12, spread, np.inf)  # a column that does not vary gets no coefficient
        points = space.features(rows.inputs)
        placed: Arrays = {}
        blocks, modes = [logs / unit, rows.inputs.fractions], np.empty((0, 0))
        if self.with_features:
            blocks.append(points)
        if self.with_kernel:
            placed, modes = landmarks(points, rows.order)
            blocks.append(kernel(placed, points) @ modes)
        clamps = {"floors": floors, "low": logs.min(axis=0) - _MARGIN, "high": logs.max(axis=0) + _MARGIN}
        cuts = np.cumsum([1, *(block.shape[1] for block in blocks)])[:-1]
        out = []
        for solution in _mean_paths(np.column_stack(blocks), rows, strengths):
            parts = np.split(solution, cuts)
            arrays = {**space.to_arrays(), **clamps, **placed, "element_coefficients": parts[2]}
            arrays["coefficients"] = np.concatenate([parts[0], parts[1] / unit])
            if self.with_features:
                arrays["feature_coefficients"] = parts[3]
            if self.with_kernel:
                arrays["kernel_coefficients"] = modes @ parts[-1]
            out.append(arrays)
        return out

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
        """Exponential of the linear predictor; logarithms clamped a factor of two beyond the training range."""
        logs = inputs.log_columns(arrays["floors"])
        linear = inputs.fractions @ arrays["element_coefficients"] + arrays["coefficients"][0]
        if "space_centre" in arrays:  # heads from before the distance have none
            space = Space.of(arrays)
            logs = np.column_stack([logs, 0.5 * np.log(space.gain(inputs))])
            points = space.features(inputs)
            if "feature_coefficients" in arrays:
                linear = linear + points @ arrays["feature_coefficients"]
            if "kernel_coefficients" in arrays:
                linear = linear + kernel(arrays, points) @ arrays["kernel_coefficients"]
        logs = np.clip(logs, arrays["low"], arrays["high"])
        log_size = linear + logs @ arrays["coefficients"][1:]
        return np.asarray(np.exp(np.clip(log_size, -_LARGEST_LOG, _LARGEST_LOG)))


@dataclass(frozen=True)
class LowRank:
    """σ² = floor + θ·[support², box², leverage, 1/n, ellipsoid²] + Σ_element f·s² + |Uᵀu|², u the features."""

    strengths: ClassVar[tuple[float, ...]] = (30.0,)
    arrays: ClassVar[tuple[str, ...]] = (
        *Variance.arrays,
        "directions",
        "space_centre",
    )
    minimum: ClassVar[int] = 200

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Laplace likelihood with a ridge, see :func:`low_rank`."""
        space, columns = Space.fit(rows.inputs), rows.inputs.variance_columns()[:, 1:]
        seen, k = rows.inputs.elements, 1 + columns.shape[1]
        unit = np.maximum(np.average(columns, axis=0, weights=rows.w), 1e-300)
        terms = np.column_stack([columns / unit, rows.inputs.fractions[:, seen]])
        u, shared = space.features(rows.inputs), {**space.to_arrays(), **_clamps(columns)}
        out = []
        for strength in strengths:
            theta, directions = low_rank(terms, u, rows.size, rows.w, strength, RANK)
            solved = {"coefficients": theta[:k] / np.append(1.0, unit), "directions": directions}
            out.append({**shared, **solved, "element_coefficients": _elements(theta[k:], seen)})
        return out

    def size(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
        """Root of the sum."""
        columns = inputs.variance_columns(len(arrays["coefficients"]))
        columns[:, 1:] = np.clip(columns[:, 1:], arrays["low"], arrays["high"])
        linear = columns @ arrays["coefficients"] + inputs.fractions @ arrays["element_coefficients"]
        u = Space.of(arrays).features(inputs) @ arrays["directions"]
        return np.asarray(np.sqrt(linear + np.einsum("ij,ij->i", u, u)))


STRATEGIES: dict[str, Kind] = {
    "constant": Constant(),
    "pops": Support(),
    "log_ridge": LogLinear(with_features=False, with_kernel=False, minimum=50),
    "log_features": LogLinear(with_features=True, with_kernel=False, minimum=100),
    "variance": Variance(),
    "low_rank": LowRank(),
    "kernel": LogLinear(with_features=True, with_kernel=True, minimum=200),
}
"""All kinds, simplest first; a head's ``scale.kind`` is one of these names."""


def weighted_quantile(values: NDArray[np.float64], w: NDArray[np.float64], level: float) -> float:
    """Smallest value whose cumulated weight reaches ``level`` of the total."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(w[order])
    position = int(np.searchsorted(cumulated, level * cumulated[-1]))
    return float(values[order[min(position, values.size - 1)]])


def _mean_paths(
    design: NDArray[np.float64], rows: TrainingRows, strengths: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Mean over the path of ridges for every strength; equal ridges of several paths are solved once."""
    ridges = sorted({strength * step for strength in strengths for step in _PATH})
    solved = dict(zip(ridges, laplace_path(design, rows.size, rows.w, ridges), strict=True))
    return [np.mean([solved[strength * step] for step in _PATH], axis=0) for strength in strengths]


def _elements(values: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Spread values of the seen elements over all; an element never seen counts as their mean."""
    out = np.full(len(seen), float(values.mean()))
    out[seen] = values
    return out


def _cut(size: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    cut = weighted_quantile(size, w, _CLIP_QUANTILE)
    return np.minimum(size, cut) if cut > 0 else size


def _clamps(columns: NDArray[np.float64]) -> Arrays:
    """Training range of each column, a factor of two wider on both sides."""
    return {"low": 0.5 * columns.min(axis=0), "high": 2.0 * columns.max(axis=0)}
