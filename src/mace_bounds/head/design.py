"""From raw columns to the columns that are fitted: dropped, centred, scaled, with a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.folder import read_tensor
from mace_bounds.head.tsqr import TsqrFactor

_FLAT = 1e-12  # a column that varies by less than this fraction of its size is constant up to round-off


@dataclass(frozen=True, eq=False)
class Design:
    """How raw columns become fitted ones.

    Attributes
    ----------
    active : ndarray of bool, shape (P,)
        Columns that take part in the fit.
    constant : ndarray of bool, shape (P,)
        Columns that had one value in all training rows.
    reference : ndarray, shape (P,)
        That value; 0 for columns that vary.
    center, scale : ndarray, shape (k,)
        Of the active columns: subtracted, then divided by.
    intercept : bool
        A constant 1 is the last fitted column.
    """

    active: NDArray[np.bool_]
    constant: NDArray[np.bool_]
    reference: Array
    center: Array
    scale: Array
    intercept: bool

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
        if (design.scale <= 0.0).any():
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
