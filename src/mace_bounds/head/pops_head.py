"""A fitted POPS head, what a fit leaves behind, and predictions in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.folder import read_tensor, tensors_named, tensors_under
from mace_bounds.head.linear import Design
from mace_bounds.head.posteriors import POSTERIORS, Posterior

_RIDGE_SCALARS = {
    "alpha": "f",
    "lambda_": "f",
    "effective_parameters": "f",
    "n_rows": "i",
    "n_iter": "i",
    "converged": "b",
}


@dataclass(frozen=True, eq=False)
class Ridge:
    """The Bayesian ridge regression that gives the mean; m fitted columns, the constant last."""

    coefficients: Array  # shape (m,): posterior mean, eV/atom
    whitening: Array  # shape (m, m): F, with α Σ = F Fᵀ and Σ the covariance of the coefficients
    # alpha, lambda_: noise precision, (eV/atom)⁻², and weight precision
    alpha: float
    lambda_: float
    effective_parameters: float  # γ, the number of well-determined parameters
    n_rows: int  # rows of positive weight
    n_iter: int  # steps of the evidence iteration
    converged: bool  # whether it met its stop

    @property
    def covariance(self) -> Array:
        """Epistemic covariance Σ of the fitted coefficients, shape (m, m), (eV/atom)²."""
        return np.asarray(self.whitening @ self.whitening.T / self.alpha)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return every number as an array."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], size: int) -> Ridge:
        """Rebuild it with ``size`` = m columns; HeadError if a tensor is missing or not what it should be."""
        scalars = {name: read_tensor(tensors, name, (), kind).item() for name, kind in _RIDGE_SCALARS.items()}
        if scalars["alpha"] <= 0.0:
            raise HeadError("the head's noise precision is not positive; fit or download it again.")
        coefficients = read_tensor(tensors, "coefficients", (size,))
        return cls(coefficients, read_tensor(tensors, "whitening", (size, size)), **scalars)


@dataclass(frozen=True, eq=False, repr=False)
class PopsHead:
    """A linear correction and its uncertainty."""

    config: PopsConfig  # the settings of the fit
    design: Design  # from P raw columns to m fitted ones
    ridge: Ridge  # the mean and its epistemic covariance
    # shape (m, m): principal axes W of the pointwise corrections, as columns: the coordinates of the
    # posteriors
    axes: Array
    posteriors: Mapping[str, Posterior]  # those of the config, by name, in principal coordinates
    n_selected: int  # rows whose corrections made them

    def __repr__(self) -> str:
        return f"PopsHead({self.design.size} columns from {self.ridge.n_rows} rows, {', '.join(self.posteriors)})"

    @property
    def posterior(self) -> Posterior:
        """The posterior that the config names."""
        return self.posteriors[self.config.posterior]

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return every number of the head as named arrays (settings apart: ``config.to_dict()``)."""
        tensors = {"axes": self.axes, "n_selected": np.asarray(self.n_selected)}
        tensors |= tensors_named("design", self.design.to_tensors())
        tensors |= tensors_named("ridge", self.ridge.to_tensors())
        for name, posterior in self.posteriors.items():
            tensors |= tensors_named(name, posterior.to_tensors())
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], config: PopsConfig) -> PopsHead:
        """Rebuild a head from :meth:`to_tensors`; other tensors are ignored.

        Raises
        ------
        HeadError
            If a tensor is missing, or has the wrong shape, type or values.
        """
        design = Design.from_tensors(tensors_under(tensors, "design"), intercept=config.fit_intercept)
        m = design.size
        return cls(
            config=config,
            design=design,
            ridge=Ridge.from_tensors(tensors_under(tensors, "ridge"), m),
            axes=read_tensor(tensors, "axes", (m, m)),
            posteriors={
                name: POSTERIORS[name].from_tensors(tensors_under(tensors, name), m)
                for name in config.posteriors
            },
            n_selected=int(read_tensor(tensors, "n_selected", (), "i")),
        )


@dataclass(frozen=True, eq=False)
class PopsFit:
    """A head and the training rows it came from, in the order of the chunks (rows of zero weight included)."""

    head: PopsHead  # the head
    leverage: Array  # shape (n,): regularised hat values w·xᵀAx in [0, 1); 0 for rows of zero weight
    residual: Array  # shape (n,): y minus the fitted mean, eV/atom
    # shape (n,): y minus the mean that a fit without this row would give (at the same α, λ, columns), eV/atom
    loo_residual: Array
    selected: NDArray[np.bool_]  # shape (n,): rows that made the posterior
    weight: Array  # shape (n,): weights as used: mean 1 over rows of positive weight


@dataclass(frozen=True, eq=False)
class PopsPrediction:
    """What a head says about rows; all arrays have shape (n,), all energies are eV/atom."""

    mean: Array  # expected residual
    epistemic_std: Array  # standard deviation from the finite number of rows, |Fᵀx|/√α
    misspecification_std: Array  # standard deviation of x·θ under the posterior named in the config
    # support_lower, support_upper: range of x·θ under that posterior
    support_lower: Array
    support_upper: Array
    leverage: Array  # |Fᵀx|², dimensionless: near 0 inside the training data, large outside
    ellipsoid_std: Array  # standard deviation of x·θ over the ellipsoid; NaN where the head has none
    # number of columns that were constant in training and differ here (for element counts: unseen elements)
    unseen_columns: NDArray[np.int64]


_CHUNK_ROWS = 512  # intermediate results stay in the cache of a core
_SAME = (
    1e-9  # a column further than this (relative to its training value, at least 1) from constant is unseen
)


def predict(head: PopsHead, x: ArrayLike) -> PopsPrediction:
    """Predict mean, standard deviations and ranges of the residual.

    Parameters
    ----------
    head : PopsHead
        A fitted head.
    x : array, shape (n, P)
        Raw features, the columns of the fit.

    Returns
    -------
    PopsPrediction
        Arrays of shape (n,), eV/atom.

    Raises
    ------
    HeadError
        If the number of columns differs from the fit's, or a value is not finite.

    References
    ----------
    Swinburne and Perez (2025), section 4; closed forms in :mod:`mace_bounds.head.posteriors`.
    """
    raw = np.asarray(x)
    if raw.ndim != 2 or raw.shape[1] != len(head.design.active):
        raise HeadError(
            f"the head takes features of shape (n, {len(head.design.active)}), and these have {raw.shape}; extract the "
            "kind of features that the head was fitted to."
        )
    parts = list[dict[str, Any]]()
    for start in range(0, max(len(raw), 1), _CHUNK_ROWS):
        chunk = np.asarray(raw[start : start + _CHUNK_ROWS], dtype=np.float64)
        if not np.isfinite(chunk).all():
            row = start + int(np.argmin(np.isfinite(chunk).all(axis=1)))
            raise HeadError(f"row {row} of the features holds NaN or infinity; leave such structures out.")
        parts.append(dict(_predict_rows(head, chunk)))
    if len(parts) == 1:
        return PopsPrediction(**parts[0])
    return PopsPrediction(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _predict_rows(head: PopsHead, x: Array) -> Iterator[tuple[str, Array]]:
    z = head.design.transform(x)
    mean = z @ head.ridge.coefficients
    u = z @ head.ridge.whitening
    leverage = np.einsum("ij,ij->i", u, u)
    along = z @ head.axes
    yield "mean", mean
    yield "leverage", leverage
    yield "epistemic_std", np.sqrt(leverage / head.ridge.alpha)
    yield "misspecification_std", head.posterior.std(along)
    lower, upper = head.posterior.support(along)
    yield "support_lower", mean + lower
    yield "support_upper", mean + upper
    ellipsoid = head.posteriors.get("ellipsoid")
    yield "ellipsoid_std", np.full(len(x), np.nan) if ellipsoid is None else ellipsoid.std(along)
    fixed = head.design.reference[head.design.constant]
    differs = np.abs(x[:, head.design.constant] - fixed) > _SAME * np.maximum(1.0, np.abs(fixed))
    yield "unseen_columns", differs.sum(axis=1)


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients:
    """θ = mean + stretch · axes b, with b from a posterior; an energy is a row a · θ.

    Attributes
    ----------
    mean : ndarray, shape (C,)
        Mean of θ, eV.
    axes : ndarray, shape (C, m)
        From deviations b in the principal coordinates of a POPS fit to those of θ.
    posterior : Posterior
        What draws and standard deviations are of.
    box : Posterior
        Box of all corrections, unclipped: what the envelope is of.
    stretch : float
        By which deviations of ``posterior`` are multiplied, so that their spread is that of errors on left-out data.
    """

    mean: Array
    axes: Array
    posterior: Posterior
    box: Posterior
    stretch: float = 1.0

    def __repr__(self) -> str:
        return (
            f"Coefficients({len(self.mean)} columns, {type(self.posterior).__name__}, × {self.stretch:.2f})"
        )

    def draws(self, n: int, seed: int = 0) -> Array:
        """Draw θ, shape (n, C), eV; the same for the same seed.

        Least and largest of a property over draws depend on their number, and are no bounds; see :meth:`envelope`.
        """
        deviations = self.posterior.sample(n, np.random.default_rng(seed))
        return np.asarray(self.mean + self.stretch * (deviations @ self.axes.T))

    def std(self, rows: ArrayLike) -> Array:
        """Standard deviation of a · θ about its mean for rows a (n, C), shape (n,)."""
        return self.stretch * self.posterior.std(np.asarray(rows, dtype=np.float64) @ self.axes)

    def envelope(self, rows: ArrayLike) -> tuple[Array, Array]:
        """Least and largest a · θ over the box of all POPS corrections for rows a (n, C), each shape (n,)."""
        a = np.asarray(rows, dtype=np.float64)
        lower, upper = self.box.support(a @ self.axes)
        mean = a @ self.mean
        return mean + lower, mean + upper
