"""What a posterior is fitted to, and what it must tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mace_bounds.head.chunks import Array

if TYPE_CHECKING:
    from mace_bounds.head.config import PopsConfig

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PosteriorRows:
    """The training rows, as a posterior sees them.

    The coefficients are w + W b: the mean w, and principal coordinates b along the axes W of the pointwise
    corrections. Energies are in units of ``y_scale``, in which they are of order one; what a posterior keeps is in
    eV/atom, so multiply by ``y_scale`` once, at the end.
    """

    y_scale: float  # root mean square of the residuals, eV/atom
    selected: Mask  # shape (n,): rows of high leverage, whose corrections make a POPS posterior
    leverage: Array  # shape (n,): regularised hat values, weights included
    weight: Array  # shape (n,): row weights, mean 1 over rows of positive weight
    loo_residual: Array  # shape (n,): leave-one-out residuals
    rms: Array  # shape (m,): root mean square of the corrections along each axis
    to_axes: Array  # shape (m, m): turns whitened corrections (as rows) into principal coordinates
    # from a mask (n,) to blocks (k, m) of the corrections b of its rows, in order: with w + W b the model is
    # right on the row
    corrections: Callable[[Mask], Iterable[Array]]
    # from a mask (n,) to blocks of whitened rows u (k, m), |u|² being the leverage without weight, and their
    # weights (k,) before robust re-weighting
    whitened: Callable[[Mask], Iterable[tuple[Array, Array]]]


class Posterior(Protocol):
    """A distribution of coefficient deviations b in principal coordinates.

    A row z of fitted columns has the projections a = zᵀW, and the deviation of its prediction from the mean is a · b.
    Mean and epistemic standard deviation are the head's and the same for all; a posterior adds what no amount of data
    removes.
    """

    @classmethod
    def fit(cls, rows: PosteriorRows, config: PopsConfig) -> Self:
        """Fit it to training rows."""
        ...

    def std(self, along: Array) -> Array:
        """Root mean square of a · b, the misspecification std, shape (n,), for projections a (n, m)."""
        ...

    def support(self, along: Array) -> tuple[Array, Array]:
        """Least and largest value of a · b, each shape (n,), for projections a (n, m)."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n deviations b, shape (n, m)."""
        ...

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays that rebuild it, finite."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], size: int) -> Self:
        """Rebuild it in ``size`` = m coordinates; HeadError if a tensor is missing or has another shape."""
        ...


def stratified_rows(
    leverage: Array, usable: Mask, limit: int, seed: int = 0
) -> tuple[NDArray[np.int64], Array]:
    """Choose at most ``limit`` rows, one from each of as many strata of equal size by leverage.

    Parameters
    ----------
    leverage : ndarray, shape (n,)
        What the strata are ordered by.
    usable : ndarray of bool, shape (n,)
        Rows to choose from.
    limit : int
        Largest number of rows; all usable ones are taken where there are no more.
    seed : int
        Of the choice inside the strata. It is made by rank of leverage, so the order of rows is irrelevant.

    Returns
    -------
    rows : ndarray of int64, shape (k,)
        Indices in increasing order.
    counts : ndarray, shape (k,)
        How many rows each stands for.
    """
    rows = np.flatnonzero(usable)
    if len(rows) <= limit:
        return rows, np.ones(len(rows))
    ordered = rows[np.argsort(leverage[rows], kind="stable")]
    edges = np.linspace(0, len(rows), limit + 1).astype(np.int64)
    counts = np.diff(edges)
    chosen = ordered[edges[:-1] + np.random.default_rng(seed).integers(counts)]
    order = np.argsort(chosen)
    return chosen[order], counts[order].astype(np.float64)
