"""How alike the errors of two structures are: the correlation of their Gaussianised errors, as factors of low rank.

A likeness gives each structure a row of factors ψ with |ψ|² <= 1. The correlation of two structures is ψ_i · ψ_j, that
of a structure with itself 1: what |ψ|² leaves is its own. Such a matrix, of low rank and a diagonal, is positive
semidefinite for any number of structures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import DesignRows
from mace_bounds.errors import HeadError
from mace_bounds.head import PopsHead, read_tensor

Array = NDArray[np.float64]

LENGTHS = ((0.1, 0.15), (0.1, np.inf), (0.25, 0.3), (0.25, np.inf), (0.6, 0.3), (0.6, np.inf), (np.inf, 0.3))
"""Lengths of the kernels: of the whitened features (root mean square) and of the atomic fractions."""

_FREQUENCIES = 192  # of the random Fourier features of a kernel: two factors each
_CLAMP = 6.0  # standard deviations to which a whitened feature is clamped
_SHRINKAGE = 0.1  # of the correlations of features towards none, before they are taken out
_SEED = 20110


class Likeness(Protocol):
    """Which errors go together."""

    name: ClassVar[str]

    def factors(self, rows: DesignRows) -> Array:
        """Factors of m rows, shape (m, rank); the squares of a row sum to 1 at most."""
        ...

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Every number of it."""
        ...


@dataclass(frozen=True)
class Independent:
    """No two errors have anything in common: what one has to suppose where nothing was measured."""

    name: ClassVar[str] = "independent"

    def factors(self, rows: DesignRows) -> Array:
        """No columns."""
        return np.zeros((len(rows.fractions), 0))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Nothing."""
        return {}


@dataclass(frozen=True, eq=False)
class PopsLikeness:
    """The correlation of the errors θ·x over the posterior of POPS: structures along one direction err together."""

    name: ClassVar[str] = "pops"
    head: PopsHead

    def factors(self, rows: DesignRows) -> Array:
        """Principal coordinates times the spread of the corrections along each, to length 1; shape (m, rank)."""
        along = self.head.design.transform(rows.x) @ self.head.axes
        box = self.head.posterior.to_tensors()
        # an ellipsoid or an ensemble has no sides: all directions count alike
        spread = (box["upper"] - box["lower"]) / np.sqrt(12.0) if "lower" in box else np.ones(along.shape[1])
        factors = along * spread
        return np.asarray(factors / np.maximum(np.linalg.norm(factors, axis=1), 1e-300)[:, None])

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Nothing: the head has its posterior."""
        return {}


@dataclass(frozen=True, eq=False)
class Copula:
    """Correlation that falls with the distance in features and composition, and a share for elements in common.

    ``Σ_k a_k exp(-|Δx|²/2ℓ_k² - |Δf|²/2m_k²) + b cos(f, f') + c``, x the whitened features per atom over √p and f
    the atomic fractions; a, b, c >= 0 and their sum at most 1. Kernels are written as random Fourier features, so that
    the rank does not depend on the number of structures.

    References
    ----------
    Rahimi & Recht, "Random features for large-scale kernel machines", NIPS 2007.
    """

    name: ClassVar[str] = "copula"
    centre: Array  # shape (p,): mean of the features per atom of the head's data
    spread: Array  # shape (p,): their standard deviation; ``inf`` where there is none
    axes: Array  # shape (p, p): takes the correlations of the standardised features out of them
    # weights, shape (n_kernels + 2,): of the kernels in the order of LENGTHS, of elements in common, of all alike
    weights: Array

    @classmethod
    def blank(cls, rows: DesignRows) -> Copula:
        """Of these rows' scales, with no weights yet."""
        centre, spread = rows.features.mean(axis=0), rows.features.std(axis=0)
        spread = np.where(spread > 1e-10 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
        z = (rows.features - centre) / spread
        correlations = (1.0 - _SHRINKAGE) * (z.T @ z) / max(len(z), 1) + _SHRINKAGE * np.eye(z.shape[1])
        values, vectors = np.linalg.eigh(correlations)
        axes = (vectors / np.sqrt(values)) @ vectors.T
        return cls(centre, spread, axes, np.zeros(len(LENGTHS) + 2))

    def points(self, rows: DesignRows) -> Array:
        """Whitened and clamped features over √p, shape (m, p)."""
        z = np.clip((rows.features - self.centre) / self.spread @ self.axes, -_CLAMP, _CLAMP)
        return np.asarray(z / np.sqrt(max(z.shape[1], 1)))

    def terms(self, rows: DesignRows, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        """Each part of the correlation of pairs of rows, exact, for weights of 1; shape (n_pairs, n_kernels + 2)."""
        points, fractions, unit = self.points(rows), rows.fractions, _unit(rows.fractions)
        out = np.empty((len(first), len(LENGTHS) + 2))
        for start in range(0, len(first), 65536):
            part = slice(start, start + 65536)
            i, j = first[part], second[part]
            apart = np.square(points[i] - points[j]).sum(axis=1)
            mixed = np.square(fractions[i] - fractions[j]).sum(axis=1)
            for k, (length, width) in enumerate(LENGTHS):
                out[part, k] = np.exp(-0.5 * apart / length**2 - 0.5 * mixed / width**2)
            out[part, -2] = (unit[i] * unit[j]).sum(axis=1)
            out[part, -1] = 1.0
        return out

    def factors(self, rows: DesignRows) -> Array:
        """Random Fourier features of the kernels, elements and a constant, each times √weight; shape (m, rank)."""
        points, fractions = self.points(rows), rows.fractions
        random = np.random.default_rng(_SEED)
        along = random.standard_normal((points.shape[1] + fractions.shape[1], _FREQUENCIES))
        by_features = points @ along[: points.shape[1]]
        by_fractions = fractions @ along[points.shape[1] :]
        parts = [np.zeros((len(points), 0))]
        for weight, (length, width) in zip(self.weights, LENGTHS, strict=False):
            if weight > 0:
                phase, scale = by_features / length + by_fractions / width, np.sqrt(weight / _FREQUENCIES)
                parts += [scale * np.cos(phase), scale * np.sin(phase)]
        if self.weights[-2] > 0:
            parts.append(np.sqrt(self.weights[-2]) * _unit(fractions))
        if self.weights[-1] > 0:
            parts.append(np.full((len(points), 1), np.sqrt(self.weights[-1])))
        return np.concatenate(parts, axis=1)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Scales and weights."""
        return {"centre": self.centre, "spread": self.spread, "axes": self.axes, "weights": self.weights}


def likeness_from(name: str, tensors: Mapping[str, NDArray[Any]], head: PopsHead) -> Likeness:
    """Rebuild a likeness by its name; HeadError if there is none, or its numbers are not what they should be."""
    if name == Independent.name:
        return Independent()
    if name == PopsLikeness.name:
        return PopsLikeness(head)
    if name != Copula.name:
        raise HeadError(
            f"the head's joint errors are of the kind {name!r}, which is not known; fit it again."
        )
    centre = read_tensor(tensors, "centre", (None,))
    spread = read_tensor(tensors, "spread", centre.shape, infinite=True)
    p = len(centre)
    # the first heads with joint errors measured distances without
    axes = read_tensor(tensors, "axes", (p, p)) if "axes" in tensors else np.eye(p)
    weights = read_tensor(tensors, "weights", (len(LENGTHS) + 2,))
    if (weights < 0).any() or weights.sum() > 1.0 + 1e-9 or not (spread > 0).all():
        raise HeadError("the weights of the head's joint errors are no correlation; fit it again.")
    return Copula(centre, spread, axes, weights)


def _unit(fractions: Array) -> Array:
    return np.asarray(fractions / np.maximum(np.linalg.norm(fractions, axis=1), 1e-300)[:, None])
