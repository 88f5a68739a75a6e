"""The mean of a head by evidence maximisation, and leverage and residual of every row.

Reference: T. D. Swinburne and D. Perez, "Parameter uncertainties for imperfect surrogate models in the
low-noise regime", Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce.
Noise and prior precision: D. J. C. MacKay, Neural Comput. 4, 415 (1992), equations 2.19-2.21; M. E. Tipping, J. Mach.
Learn. Res. 1, 211 (2001); scikit-learn's ``BayesianRidge`` for hyperpriors and start.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array, Chunks, TsqrFactor, checked_rows
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.folder import SMALLEST, read_tensor
from mace_bounds.head.numerics import FitWarning

_FLAT = 1e-12  # a column that varies by less than this fraction of its size is constant up to round-off


@dataclass(frozen=True, eq=False)
class Design:
    """How raw columns become fitted ones."""

    active: NDArray[np.bool_]  # shape (P,): columns that take part in the fit
    constant: NDArray[np.bool_]  # shape (P,): columns that had one value in all training rows
    reference: Array  # shape (P,): that value; 0 for columns that vary
    # center, scale, shape (k,): of the active columns: subtracted, then divided by
    center: Array
    scale: Array
    intercept: bool  # A constant 1 is the last fitted column

    @property
    def size(self) -> int:
        """Number of fitted columns, m."""
        return len(self.center) + int(self.intercept)

    def transform(self, x: Array) -> Array:
        """Turn raw rows (n, P) into fitted ones (n, m)."""
        z = np.empty((len(x), self.size))
        k = len(self.center)
        np.subtract(x if self.active.all() else x[:, self.active], self.center, out=z[:, :k])
        z[:, :k] /= self.scale
        z[:, k:] = 1.0
        return z

    def on_raw_columns(self, coefficients: Array) -> tuple[Array, Array]:
        """Coefficients (K, m) of fitted columns as those of raw ones (K, P), and the constant (K,) beside these."""
        k = len(self.center)
        raw = np.zeros((len(coefficients), len(self.active)))
        raw[:, self.active] = coefficients[:, :k] / self.scale
        return raw, np.asarray(coefficients[:, k:].sum(axis=1) - raw[:, self.active] @ self.center)

    def transform_factor(self, r: Array) -> Array:
        """Return [Z y] up to an orthogonal transformation, (rows, m + 1), from the R factor of [1 X y]."""
        k = len(self.center)
        z = np.zeros((max(len(r), self.size + 1), self.size + 1))
        n = len(r)
        z[:n, :k] = (r[:, 1:-1][:, self.active] - r[:, :1] * self.center) / self.scale
        if self.intercept:
            z[:n, k] = r[:, 0]
        z[:n, -1] = r[:, -1]
        return z

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays that rebuild it; whether there is a constant column is a setting of the fit."""
        return {name: getattr(self, name) for name in ("active", "constant", "reference", "center", "scale")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], *, intercept: bool) -> Design:
        """Rebuild it from :meth:`to_tensors`; HeadError if they are not those of a design."""
        active = read_tensor(tensors, "active", (None,), "b")
        columns, k = len(active), int(np.count_nonzero(active))
        design = cls(
            active=active,
            constant=read_tensor(tensors, "constant", (columns,), "b"),
            reference=read_tensor(tensors, "reference", (columns,)),
            center=read_tensor(tensors, "center", (k,)),
            scale=read_tensor(tensors, "scale", (k,)),
            intercept=intercept,
        )
        if (design.scale < SMALLEST).any():
            raise HeadError("the head's column scales are not positive; fit or download it again.")
        return design


def make_design(factor: TsqrFactor, config: PopsConfig) -> Design:
    """Decide from the factor which columns are fitted and how they are scaled."""
    if factor.n_rows < 2:
        raise HeadError(
            f"a fit needs at least 2 rows of positive weight, got {factor.n_rows}; add labelled rows."
        )
    r, root = factor.r, np.sqrt(factor.weight_sum)
    mean = r[0, 1:-1] / r[0, 0]
    size = np.linalg.norm(r[:, 1:-1], axis=0) / root
    spread = np.linalg.norm(r[1:, 1:-1], axis=0) / root
    constant = (factor.minimum == factor.maximum) | (spread <= _FLAT * size)
    active = ~constant if config.fit_intercept else size > 0.0
    center, scale = np.zeros(int(active.sum())), np.ones(int(active.sum()))
    if config.standardize:
        center = mean[active] if config.fit_intercept else center
        scale = (spread if config.fit_intercept else size)[active]
    if len(center) + int(config.fit_intercept) == 0:
        raise HeadError("every column is zero in every row, so there is nothing to fit; check the features.")
    return Design(active, constant, np.where(constant, mean, 0.0), center, scale, config.fit_intercept)


_MIN_REST = 1e-8  # smallest 1 - h: below it the row fits itself and its LOO residual is round-off


@dataclass(frozen=True, eq=False)
class Evidence:
    """A Bayesian ridge fit."""

    coefficients: Array  # shape (m,): posterior mean
    basis: Array  # shape (m, m): right singular vectors V of the design as columns, stiffest first
    spread: Array  # shape (m,): D = (s² + λ/α)^-½, so that the whitening is F = V D and α Σ = F Fᵀ
    # alpha, lambda_: precision of noise and of weights
    alpha: float
    lambda_: float
    effective_parameters: float  # γ, the number of well-determined parameters
    n_iter: int  # steps taken
    converged: bool  # whether the stop was reached within the allowed steps


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The mean and the per-row quantities, before any posterior."""

    design: Design  # raw to fitted columns
    evidence: Evidence  # the ridge fit of y / y_scale
    y_scale: float  # root mean square of y, eV/atom; 1 where every y is zero
    n_rows: int  # rows of positive weight
    unweighted_leverage: Array  # shape (n,): xᵀAx of each row: its leverage but for its weight
    residual: Array  # shape (n,): y minus the mean, in units of y_scale
    weight: Array  # shape (n,): weights as used

    @property
    def whitening(self) -> Array:
        """F, with α Σ = F Fᵀ, shape (m, m)."""
        return self.evidence.basis * self.evidence.spread

    @property
    def leverage(self) -> Array:
        """Regularised hat values, shape (n,)."""
        return self.weight * self.unweighted_leverage

    @property
    def loo_residual(self) -> Array:
        """Leave-one-out residuals e/(1 - h), shape (n,), in units of y_scale."""
        return self.residual / np.maximum(1.0 - self.leverage, _MIN_REST)


def fit_linear(chunks: Chunks, config: PopsConfig, factor: TsqrFactor | None = None) -> LinearFit:
    """Fit the mean by evidence and compute leverage and residual of every row (two passes)."""
    factor = factorise(chunks) if factor is None else factor
    design = make_design(factor, config)
    mean_weight = factor.weight_sum / factor.n_rows  # weights of mean 1: a precision counts rows
    sample_count = factor.weight_sum / mean_weight
    zy = design.transform_factor(factor.r) / np.sqrt(mean_weight)
    size = float(np.linalg.norm(zy[:, -1])) / np.sqrt(sample_count)
    y_scale = 1.0 if size == 0.0 else size
    zy[:, -1] /= y_scale
    centred = factor.r[1:, -1] / (y_scale * np.sqrt(factor.weight_sum))
    evidence = maximise_evidence(zy, sample_count, float(centred @ centred), config)
    whitening = evidence.basis * evidence.spread
    leverage, residual, weight = (np.empty(factor.n_total) for _ in range(3))
    start = 0
    for x, y, w in checked_rows(chunks):
        rows = slice(start, start + len(x))
        start += len(x)
        if start > factor.n_total:
            break
        z = design.transform(x)
        u = z @ whitening
        leverage[rows] = np.einsum("ij,ij->i", u, u)
        residual[rows] = y / y_scale - z @ evidence.coefficients
        weight[rows] = w / mean_weight
    if start != factor.n_total:
        raise HeadError(
            f"the first pass had {factor.n_total} rows, and another {start} or more; make the chunks "
            "re-iterable."
        )
    return LinearFit(design, evidence, y_scale, factor.n_rows, leverage, residual, weight)


def factorise(chunks: Chunks) -> TsqrFactor:
    """Return the TSQR factor of all rows (one pass)."""
    factor: TsqrFactor | None = None
    for x, y, w in checked_rows(chunks):
        factor = TsqrFactor(x.shape[1]) if factor is None else factor
        factor.update(x, y, w)
    if factor is None:
        raise HeadError("the fit was given no rows; add labelled rows.")
    return factor


def maximise_evidence(zy: Array, sample_count: float, y_variance: float, config: PopsConfig) -> Evidence:
    """Fit weights, α and λ by MacKay's fixed point.

    ``zy`` (rows, m + 1): design and target up to an orthogonal transformation, rows ≥ m + 1;
    ``sample_count``: number of rows of positive weight; ``y_variance``: weighted variance of the target: 1/α
    at the start; ``config``: hyperpriors and stop.
    """
    z, y = zy[:, :-1], zy[:, -1]
    u, s, vt = linalg.svd(z, full_matrices=False, check_finite=False)
    uy = u.T @ y
    rest = y - u @ uy
    outside = float(rest @ rest)
    eig, p = s * s, s * uy
    alpha, lam = 1.0 / (y_variance + float(np.finfo(np.float64).eps)), 1.0
    converged = False
    gamma, n_iter = 0.0, 0
    for n_iter in range(1, config.max_iter + 1):  # noqa: B007 - the count is reported
        c = p / (eig + lam / alpha)
        misfit = uy - s * c
        sse = float(misfit @ misfit) + outside
        gamma = float(np.sum(alpha * eig / (lam + alpha * eig)))
        new_lam = (gamma + 2.0 * config.lambda_1) / (float(c @ c) + 2.0 * config.lambda_2)
        new_alpha = (sample_count - gamma + 2.0 * config.alpha_1) / (sse + 2.0 * config.alpha_2)
        change = max(abs(new_lam / lam - 1.0), abs(new_alpha / alpha - 1.0))
        lam, alpha = new_lam, new_alpha
        converged = change < config.relative_tolerance
        if converged:
            break
    if not converged:
        warnings.warn(
            f"the evidence iteration of the mean did not converge in {config.max_iter} steps",
            FitWarning,
            stacklevel=2,
        )
    ridge = lam / alpha
    return Evidence(
        coefficients=vt.T @ (p / (eig + ridge)),
        basis=np.ascontiguousarray(vt.T),
        spread=1.0 / np.sqrt(eig + ridge),
        alpha=alpha,
        lambda_=lam,
        effective_parameters=gamma,
        n_iter=n_iter,
        converged=converged,
    )
