"""A fitted POPS head and what a fit leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.design import Design
from mace_bounds.head.posteriors import Box, Ellipsoid, Ensemble, Posterior

_PREFIX = "pops."
_SCALARS = ("alpha", "lambda_", "effective_parameters", "n_rows", "n_selected", "n_iter", "converged")


@dataclass(frozen=True, eq=False)
class PopsHead:
    """A linear correction and its uncertainty; P raw columns, k active ones, m = k + 1 with the constant.

    Attributes
    ----------
    config : PopsConfig
        The settings of the fit.
    active, constant : ndarray of bool, shape (P,)
        Columns that are fitted; columns that had one value in training.
    reference : ndarray, shape (P,)
        That value, 0 for columns that vary.
    center, scale : ndarray, shape (k,)
        Subtracted from the active columns, then divided by.
    coefficients : ndarray, shape (m,)
        Posterior mean in fitted columns (the constant last), eV/atom.
    whitening : ndarray, shape (m, m)
        F, with α Σ = F Fᵀ.
    axes : ndarray, shape (m, m)
        Principal axes W of the corrections as columns (of the whitened corrections, in fitted columns, for the
        ``whitened`` basis).
    rms : ndarray, shape (m,)
        Root mean square of the corrections along each axis, eV/atom.
    lower, upper : ndarray, shape (m,)
        Clipped range of the corrections along each axis (0 below the mode threshold), eV/atom.
    envelope_lower, envelope_upper : ndarray, shape (m,)
        Their full range along every axis, eV/atom.
    alpha, lambda_ : float
        Noise precision, (eV/atom)⁻², and weight precision.
    effective_parameters : float
        γ, the number of well-determined parameters.
    n_rows, n_selected : int
        Rows of positive weight; rows that made the posterior.
    n_iter : int
        Steps of the evidence iteration.
    converged : bool
        Whether it met its stop.
    ellipsoid_axes : ndarray, shape (m, q), optional
        Axes of the ellipsoid in principal coordinates, eV/atom, where one was fitted.
    corrections : ndarray, shape (k, m), optional
        Corrections in principal coordinates, eV/atom, where they are the posterior: at most 1000, stratified by
        leverage.
    """

    config: PopsConfig
    active: NDArray[np.bool_]
    constant: NDArray[np.bool_]
    reference: Array
    center: Array
    scale: Array
    coefficients: Array
    whitening: Array
    axes: Array
    rms: Array
    lower: Array
    upper: Array
    envelope_lower: Array
    envelope_upper: Array
    alpha: float
    lambda_: float
    effective_parameters: float
    n_rows: int
    n_selected: int
    n_iter: int
    converged: bool
    ellipsoid_axes: Array | None = None
    corrections: Array | None = None

    @property
    def design(self) -> Design:
        """How raw columns become fitted ones."""
        return Design(
            self.active, self.constant, self.reference, self.center, self.scale, self.config.fit_intercept
        )

    @property
    def ellipsoid(self) -> Ellipsoid | None:
        """The fitted ellipsoid, if there is one."""
        return None if self.ellipsoid_axes is None else Ellipsoid(self.ellipsoid_axes)

    @property
    def posterior(self) -> Posterior:
        """The posterior that the config names, in principal coordinates."""
        if self.config.posterior == "hypercube":
            return Box(self.lower, self.upper)
        if self.config.posterior == "ensemble" and self.corrections is not None:
            return Ensemble(self.rms, self.corrections)
        if self.config.posterior == "ellipsoid" and self.ellipsoid is not None:
            return self.ellipsoid
        raise HeadError(f"the head was fitted without the posterior {self.config.posterior!r}; fit it again.")

    @property
    def covariance(self) -> Array:
        """Epistemic covariance Σ of the fitted coefficients, shape (m, m), (eV/atom)²."""
        return np.asarray(self.whitening @ self.whitening.T / self.alpha)

    @property
    def raw_coefficients(self) -> tuple[Array, float]:
        """Weights of the raw columns, shape (P,), and intercept, eV/atom: mean = x·weights + intercept."""
        weights = np.zeros(len(self.active))
        weights[self.active] = self.coefficients[: len(self.center)] / self.scale
        constant = float(self.coefficients[-1]) if self.config.fit_intercept else 0.0
        return weights, constant - float(weights[self.active] @ self.center)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return every number of the head as named arrays (settings apart: ``config.to_dict()``)."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "config"}
        return {_PREFIX + name: np.asarray(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], config: PopsConfig) -> PopsHead:
        """Rebuild a head from :meth:`to_tensors`, checking shapes, types, values; other tensors are ignored.

        Raises
        ------
        HeadError
            If a tensor is missing, or has the wrong shape, type or values.
        """
        held = {"config": False, "ellipsoid_axes": config.wants_ellipsoid}
        held["corrections"] = config.posterior == "ensemble"
        names = [name for name in cls.__dataclass_fields__ if held.get(name, True)]
        for name in names:
            if _PREFIX + name not in tensors:
                raise HeadError(f"the head holds no tensor {_PREFIX + name!r}; fit or download it again.")
        found = {name: np.asarray(tensors[_PREFIX + name]) for name in names}
        columns = found["active"].size
        k = int(np.count_nonzero(found["active"]))
        m = k + int(config.fit_intercept)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (m,))
        shapes |= dict.fromkeys(_SCALARS, ()) | dict.fromkeys(("active", "constant", "reference"), (columns,))
        shapes |= {"center": (k,), "scale": (k,), "whitening": (m, m), "axes": (m, m)}
        shapes["ellipsoid_axes"] = (m, config.ellipsoid_rank)
        shapes["corrections"] = (max((1, *found["corrections"].shape[:1])), m) if held["corrections"] else ()
        kinds = {
            "active": "b",
            "constant": "b",
            "converged": "b",
            "n_rows": "i",
            "n_selected": "i",
            "n_iter": "i",
        }
        for name, array in found.items():
            kind = kinds.get(name, "f")
            if array.shape != shapes[name] or array.dtype.kind != kind or not np.isfinite(array).all():
                raise HeadError(
                    f"tensor {_PREFIX + name!r} of the head should be finite, of shape {shapes[name]} and "
                    f"kind {kind!r}, "
                    f"got {array.shape} {array.dtype}; fit or download it again."
                )
        if found["alpha"] <= 0.0 or (found["scale"] <= 0.0).any():
            raise HeadError(
                "the head's noise precision or column scales are not positive; fit or download it again."
            )
        values: dict[str, Any] = {n: a.item() if n in _SCALARS else a for n, a in found.items()}
        return cls(config=config, **values)


@dataclass(frozen=True, eq=False)
class PopsFit:
    """A head and the training rows it came from, in the order of the chunks (rows of zero weight included).

    Attributes
    ----------
    head : PopsHead
        The head.
    leverage : ndarray, shape (n,)
        Regularised hat values w·xᵀAx in [0, 1); 0 for rows of zero weight.
    residual : ndarray, shape (n,)
        y minus the fitted mean, eV/atom.
    loo_residual : ndarray, shape (n,)
        y minus the mean that a fit without this row would give (at the same α, λ, columns), eV/atom.
    selected : ndarray of bool, shape (n,)
        Rows that made the posterior.
    weight : ndarray, shape (n,)
        Weights as used: mean 1 over rows of positive weight (as given in compatibility mode).
    """

    head: PopsHead
    leverage: Array
    residual: Array
    loo_residual: Array
    selected: NDArray[np.bool_]
    weight: Array


@dataclass(frozen=True, eq=False)
class PopsPrediction:
    """What a head says about rows; all arrays have shape (n,), all energies are eV/atom.

    Attributes
    ----------
    mean : ndarray
        Expected residual.
    epistemic_std : ndarray
        Standard deviation from the finite number of rows, |Fᵀx|/√α.
    misspecification_std : ndarray
        Standard deviation of x·θ under the posterior named in the config.
    support_lower, support_upper : ndarray
        Range of x·θ under that posterior (``hypercube``: over the clipped box).
    ensemble_std : ndarray
        Root mean square of x·δ over the corrections δ of the selected rows.
    leverage : ndarray
        |Fᵀx|², dimensionless: near 0 inside the training data, large outside.
    envelope_lower, envelope_upper : ndarray
        Range over the box that holds every correction; grows without limit with the number of rows.
    ellipsoid_std : ndarray
        Standard deviation of x·θ over the ellipsoid; NaN where the head has none.
    ellipsoid_lower, ellipsoid_upper : ndarray
        Range of x·θ over the ellipsoid; NaN where the head has none.
    unseen_columns : ndarray of int64
        Number of columns that were constant in training and differ here (for element counts: unseen
        elements).
    """

    mean: Array
    epistemic_std: Array
    misspecification_std: Array
    support_lower: Array
    support_upper: Array
    ensemble_std: Array
    leverage: Array
    envelope_lower: Array
    envelope_upper: Array
    ellipsoid_std: Array
    ellipsoid_lower: Array
    ellipsoid_upper: Array
    unseen_columns: NDArray[np.int64]
