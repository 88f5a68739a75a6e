"""The kinds of σ(x), a class each, and the two regressions behind them: deterministic, with closed-form gradients.

A new kind is a class with the methods of :class:`Kind`, and a line in :data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.inputs import Arrays, KernelSpace, ScaleInputs, kernel, landmarks
from mace_bounds.calibration.neighbours import errors_nearby, place
from mace_bounds.calibration.splits import hashed_order
from mace_bounds.head import minimise, weighted_quantile

Shapes: TypeAlias = Mapping[str, tuple[int | str, ...]]
"""Shapes of arrays by name: a length, a word for one that is the same wherever it stands, or ``"word+1"``."""

_PATH = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # ridge strengths, in units of a candidate's
_CLIP_QUANTILE = 0.995  # sizes above this quantile are cut before a mean is fitted to them
_MARGIN = np.log(2.0)  # by which a logarithm may leave its training range
_LOG_LINEAR: Shapes = {
    "floors": ("widths",),
    "low": ("widths+1",),
    "high": ("widths+1",),
    "coefficients": ("widths+2",),
    "element_coefficients": ("elements",),
    "space_centre": ("columns",),
    "space_spread": ("columns",),
    "space_metric": ("columns", "columns"),
    "space_offset": (),
}
_KERNEL: Shapes = {
    "landmarks": ("landmarks", "features"),
    "kernel_width": (),
    "feature_coefficients": ("features",),
    "kernel_coefficients": ("landmarks",),
}
_NEIGHBOURS: Shapes = {
    "low": ("widths+3",),
    "high": ("widths+3",),
    "coefficients": ("widths+4",),
    "neighbour_axes": ("features", "axes"),
    "neighbour_points": ("neighbours", "axes"),
    "neighbour_sizes": ("neighbours",),
    "neighbour_compositions": ("neighbours",),
}
SINGLE = ("neighbour_points", "neighbour_sizes")
"""Arrays of many rows, which heads keep in float32."""
_LARGEST_LOG = 300.0  # the ceiling of the scale cuts long before; this only keeps exp finite
WIDTH = "width of the posterior"
NEAREST = "nearest crystals"
# columns that measure the same, whose coefficients share one effect
_GROUPS = {"support_width": WIDTH, "box_std": WIDTH, "ellipsoid_std": WIDTH}
_LOGS = ("leverage", NEAREST, NEAREST)  # of the columns behind the widths


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows to which a kind is fitted: inputs, |residual| (n,), weights (n,) of mean 1, and landmark order (n,)."""

    inputs: ScaleInputs
    size: NDArray[np.float64]
    w: NDArray[np.float64]
    order: NDArray[np.int64]
    # shape (n,): 1 for rows of the model's own training, which come last; None where there are none
    trained: NDArray[np.float64] | None = None

    def comparable_size(self) -> NDArray[np.float64]:
        """|residual|, shape (n,), those of the model's own training brought to the mean of the others."""
        if self.trained is None:
            return self.size
        of_training = self.trained > 0
        means = (float(self.size[part].mean()) for part in (~of_training, of_training))
        new, known = (max(mean, 1e-300) for mean in means)
        return np.where(of_training, self.size * (new / known), self.size)


class Kind(Protocol):
    """One way to model the size of a residual."""

    @property
    def strengths(self) -> Sequence[float]:
        """Strengths of its ridge or prior that are worth comparing, the safest first; one if it has none."""

    @property
    def arrays(self) -> Shapes:
        """The arrays without which it cannot be evaluated."""

    @property
    def minimum(self) -> int:
        """Fewest rows for which it is tried."""

    @property
    def of_training(self) -> bool:
        """Whether it is fitted to rows of the model's own training too; as many of these are then wanted."""

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Arrays of the fitted model for every strength."""

    def terms(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> Arrays:
        """What the logarithm of each row's size, up to a constant, is the sum of, by name, shape (n,) each."""


@dataclass(frozen=True)
class Constant:
    """One size for all."""

    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    arrays: ClassVar[Shapes] = {}
    minimum: ClassVar[int] = 0
    of_training: ClassVar[bool] = False

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:  # noqa: ARG002
        """Nothing to learn: the factor of the model is the size."""
        return [{} for _ in strengths]

    def terms(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> Arrays:  # noqa: ARG002
        """None: every size is one."""
        return {}


@dataclass(frozen=True)
class Support:
    """c0 + c1·support, not negative, by a gamma fit: the width of POPS as it is."""

    strengths: ClassVar[tuple[float, ...]] = (1.0,)
    arrays: ClassVar[Shapes] = {"coefficients": (2,), "low": (1,), "high": (1,)}
    minimum: ClassVar[int] = 0
    of_training: ClassVar[bool] = False

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Gamma regression of |r|, the largest cut."""
        columns = np.column_stack([np.ones(len(rows.size)), rows.inputs.support_width])
        coefficients = gamma_nnls(columns, _cut(rows.size, rows.w), rows.w)
        return [{"coefficients": coefficients, **_clamps(columns[:, 1:])} for _ in strengths]

    def terms(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> Arrays:
        """Linear in the clamped support."""
        column = np.clip(inputs.support_width, arrays["low"][0], arrays["high"][0])
        size = arrays["coefficients"][0] + arrays["coefficients"][1] * column
        return {WIDTH: np.log(np.maximum(size, np.exp(-_LARGEST_LOG)))}


@dataclass(frozen=True)
class LogLinear:
    """log σ linear in log widths, log distance, atomic fractions and, on demand, features and kernels around rows.

    The logarithms have unit variance and the features together too, so that one ridge serves all. log σ is the mean
    over a path of ridge strengths, 1 to 300 rows times the candidate's: folds on a few hundred rows with heavy tails
    cannot tell strengths apart, and on left-out crystals the mean was up to 8 % sharper than the strength they chose.
    """

    # whether the model's features, and Gaussian kernels around training rows in them, join the rest
    with_kernel: bool
    minimum: int  # fewest rows for which it is tried
    # whether rows of the model's own training teach it too: with one more coefficient that says how much smaller errors
    # are there, and as neighbours, whose errors are two more columns
    of_training: bool = False
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.3, 0.1, 0.03)

    @property
    def arrays(self) -> Shapes:
        """Coefficients, the training range, the space, where kernels sit, and the rows that are neighbours."""
        shapes = {**_LOG_LINEAR, **_KERNEL} if self.with_kernel else _LOG_LINEAR
        return {**shapes, **_NEIGHBOURS} if self.of_training else shapes

    def fit(self, rows: TrainingRows, strengths: Sequence[float]) -> list[Arrays]:
        """Laplace likelihood with a ridge, see :func:`laplace_path`."""
        space, floors = KernelSpace.fit(rows.inputs), rows.inputs.floors()
        distance = 0.5 * np.log(space.left_out_leverage(rows.inputs))
        logs = np.column_stack([rows.inputs.log_columns(floors), distance])
        points = space.features(rows.inputs)
        placed: Arrays = {}
        if self.of_training:
            placed = place(points, rows.inputs.fractions, rows.comparable_size(), rows.order)
            logs = np.column_stack([logs, errors_nearby(placed, points, rows.inputs.fractions)])
        spread = logs.std(axis=0)
        unit = np.where(spread > 1e-12, spread, np.inf)  # a column that does not vary gets no coefficient
        blocks, modes = [logs / unit, rows.inputs.fractions], np.empty((0, 0))
        if self.with_kernel:
            centres, modes = landmarks(points, rows.order)
            placed |= centres
            blocks += [points, kernel(placed, points) @ modes]
        if rows.trained is not None:
            blocks.append(rows.trained[:, None])
        clamps = {"floors": floors, "low": logs.min(axis=0) - _MARGIN, "high": logs.max(axis=0) + _MARGIN}
        cuts = np.cumsum([1, *(block.shape[1] for block in blocks)])[:-1]
        out = []
        for solution in _mean_paths(np.column_stack(blocks), rows, strengths):
            parts = np.split(solution, cuts)
            arrays = {**space.to_arrays(), **clamps, **placed, "element_coefficients": parts[2]}
            arrays["coefficients"] = np.concatenate([parts[0], parts[1] / unit])
            if self.with_kernel:
                arrays |= {"feature_coefficients": parts[3], "kernel_coefficients": modes @ parts[4]}
            out.append(arrays)
        return out

    def terms(self, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> Arrays:
        """Parts of the linear predictor; logarithms clamped a factor of two beyond the training range."""
        space = KernelSpace.of(arrays)
        intercept, slopes = arrays["coefficients"][0], arrays["coefficients"][1:]
        points = space.features(inputs)
        logs = np.column_stack([inputs.log_columns(arrays["floors"]), 0.5 * np.log(space.leverage(inputs))])
        if self.of_training:
            logs = np.column_stack([logs, errors_nearby(arrays, points, inputs.fractions)])
        logs = np.clip(logs, arrays["low"], arrays["high"])
        out: Arrays = {}
        names = [*inputs.width_names(), *_LOGS][: logs.shape[1]]
        for name, column, slope in zip(names, logs.T, slopes, strict=True):
            group = _GROUPS.get(name, name)
            out[group] = out.get(group, 0.0) + slope * column
        out["composition"] = inputs.fractions @ arrays["element_coefficients"] + intercept
        if self.with_kernel:
            out["features"] = points @ arrays["feature_coefficients"]
            out["neighbourhood"] = kernel(arrays, points) @ arrays["kernel_coefficients"]
        return out


KINDS: dict[str, Kind] = {
    "constant": Constant(),
    "pops": Support(),
    "log_ridge": LogLinear(with_kernel=False, minimum=50),
    "kernel": LogLinear(with_kernel=True, minimum=200),
    "training_kernel": LogLinear(with_kernel=True, minimum=200, of_training=True),
}
"""All kinds, simplest first; a head's ``scale.kind`` is one of these names, and it chooses among all of them."""


def kinds_for(n_rows: int, n_trained: int) -> tuple[str, ...]:
    """Kinds that are tried with so many rows, and so many of the model's own training; the constant always."""
    return tuple(
        name
        for name, kind in KINDS.items()
        if name == "constant"
        or (n_rows >= kind.minimum and (not kind.of_training or n_trained >= kind.minimum))
    )


def rows_for(kind: str, rows: TrainingRows, labels: NDArray[np.str_], seed: int) -> TrainingRows:
    """The rows that a kind is fitted to: with those of the model's own training, of weight 1, where it takes them."""
    trained = rows.inputs.trained
    if trained is None or not KINDS[kind].of_training:
        return rows
    size = np.concatenate([rows.size, np.abs(trained.residual)])
    w = np.concatenate([rows.w, np.ones(len(trained.residual))])
    groups = np.concatenate([labels, trained.groups])
    return TrainingRows(
        rows.inputs.followed_by(trained.inputs),
        size,
        w / w.mean(),
        hashed_order(groups, f"landmark:{seed}", size),
        trained=(np.arange(len(size)) >= len(rows.size)).astype(np.float64),
    )


def size_of(kind: str, arrays: Mapping[str, NDArray[np.float64]], inputs: ScaleInputs) -> NDArray[np.float64]:
    """Size of each row up to a factor, shape (n,), positive: the exponential of the sum of the kind's terms."""
    log_size = sum(KINDS[kind].terms(arrays, inputs).values(), np.zeros(len(inputs)))
    return np.asarray(np.exp(np.clip(log_size, -_LARGEST_LOG, _LARGEST_LOG)))


def _mean_paths(
    design: NDArray[np.float64], rows: TrainingRows, strengths: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Mean over the path of ridges for every strength; equal ridges of several paths are solved once."""
    ridges = sorted({strength * step for strength in strengths for step in _PATH})
    solved = dict(zip(ridges, laplace_path(design, rows.size, rows.w, ridges), strict=True))
    return [np.mean([solved[strength * step] for step in _PATH], axis=0) for strength in strengths]


def _cut(size: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    cut = weighted_quantile(size, w, _CLIP_QUANTILE * w.sum())
    return np.minimum(size, cut) if cut > 0 else size


def _clamps(columns: NDArray[np.float64]) -> Arrays:
    """Training range of each column, a factor of two wider on both sides."""
    return {"low": 0.5 * columns.min(axis=0), "high": 2.0 * columns.max(axis=0)}


def laplace_path(
    design: NDArray[np.float64], size: NDArray[np.float64], w: NDArray[np.float64], strengths: Sequence[float]
) -> NDArray[np.float64]:
    """Fit log σ linear in columns by the likelihood of Laplace noise, for several ridge strengths.

    Minimises Σ w (log σ + |r|/σ) + λ|b|²/2 with log σ = b0 + design·b. This is convex, and the free intercept
    has a closed form: b0 = log of the mean of |r| exp(-design·b). Laplace, because residuals of crystals have
    heavy tails: a Gaussian likelihood follows the few largest, a regression of log|r| the luck of the smallest.

    ``design`` (n, p): columns of comparable unit; ``size``, ``w`` (n,): |r|, not all zero, and row weights of
    mean 1; ``strengths``: ridge strengths λ, in rows.
    Returns (n_strengths, 1 + p): intercept and slopes for every strength.

    References: P. McCullagh and J. Nelder, *Generalized Linear Models*, 1989, chapter 8 (the same equations:
    exponential noise, log link); L-BFGS as in scipy, in the eigenbasis of the Hessian at its mean.
    """
    total = float(w.sum())
    level = float(w @ size) / total
    a = w * size / level
    centre = np.average(design, axis=0, weights=w)
    x = design - centre
    values, vectors = np.linalg.eigh((x * w[:, None]).T @ x)
    along, values = x @ vectors, np.maximum(values, 0.0)
    out = np.empty((len(strengths), 1 + design.shape[1]))
    start = np.zeros(len(values))
    for k in np.argsort(strengths)[::-1]:  # from the strongest: each starts from the one before
        strength = float(strengths[k])
        unit = 1.0 / np.sqrt(values + strength)

        def loss(
            c: NDArray[np.float64], unit: NDArray[np.float64] = unit, strength: float = strength
        ) -> tuple[float, NDArray[np.float64]]:
            b = c * unit
            eta = -(along @ b)
            top = float(eta.max())
            share = a * np.exp(eta - top)
            mass = float(share.sum())
            gradient = -total * (along.T @ share) / mass + strength * b
            value = total * (np.log(mass / total) + top) + 0.5 * strength * float(b @ b)
            return value / total, gradient * unit / total

        b = minimise(loss, start / unit, name="a scale", max_iter=200, ftol=1e-10, gtol=1e-7) * unit
        start = b
        slopes = vectors @ b
        eta = -(along @ b)
        top = float(eta.max())
        intercept = np.log(float(a @ np.exp(eta - top)) / total) + top + np.log(level)
        out[k] = np.concatenate([[intercept - centre @ slopes], slopes])
    return out


def gamma_nnls(
    design: NDArray[np.float64],
    target: NDArray[np.float64],
    w: NDArray[np.float64],
    max_iterations: int = 50,
    tolerance: float = 1e-6,
) -> NDArray[np.float64]:
    """Fit a mean that is linear in non-negative columns with non-negative coefficients, for gamma-like noise.

    Minimises the gamma deviance Σ w (y/μ + log μ), μ = design·θ, θ ≥ 0: the noise of a squared residual is
    proportional to its mean, so plain least squares would only see the largest rows.

    ``design`` (n, p): columns, not negative; ``target``, ``w`` (n,): non-negative sizes (|r| or r²), and row
    weights; ``max_iterations``, ``tolerance``: of the iteratively reweighted least squares; stop on the
    relative change of the deviance.
    Returns (p,): coefficients, not negative.

    References: McCullagh & Nelder, *Generalized Linear Models*, 1989, chapter 8; Lawson & Hanson, NNLS.
    """
    from scipy.optimize import nnls

    level = float(np.average(target, weights=w))
    unit = np.maximum(np.abs(design).max(axis=0), 1e-300)
    x, y = design / unit, target / level
    mean = np.ones(len(y))
    theta = np.zeros(x.shape[1])
    best, deviance = theta, np.inf
    for _ in range(max_iterations):
        weight = w / mean**2
        gram = (x * weight[:, None]).T @ x
        gram[np.diag_indices_from(gram)] += 1e-10 * np.trace(gram) / len(gram)
        factor = np.linalg.cholesky(gram)
        step, _ = nnls(factor.T, np.linalg.solve(factor, x.T @ (weight * y)))
        theta = step if not theta.any() else 0.5 * (theta + step)  # damped: undamped steps can cycle
        mean = np.maximum(x @ theta, 1e-6)
        value = float(np.average(y / mean + np.log(mean), weights=w))
        if value < deviance:
            best = theta
        if abs(deviance - value) <= tolerance * (1.0 + abs(value)):
            break
        deviance = min(value, deviance)
    coefficients: NDArray[np.float64] = best * level / unit
    return coefficients
