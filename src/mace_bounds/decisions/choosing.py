"""Which joint errors a head has: chosen and calibrated on differences of rows that its heads have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import ndtri

from mace_bounds.calibration import DesignRows, conformal_quantile, group_folds, square_distances
from mace_bounds.decisions.groups import (
    POLYMORPH,
    REACTION,
    STRAINED,
    Differences,
    Strained,
    polymorph_pairs,
    syntheses,
)
from mace_bounds.decisions.hull_prior import HullPrior
from mace_bounds.decisions.joint import JointErrors, difference_std, strained_std
from mace_bounds.decisions.likeness import Copula, Independent, Likeness, PopsLikeness
from mace_bounds.head import PopsHead
from mace_bounds.levels import LEVELS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]

_MOST_SHARED = 0.98  # of an error: no two structures err alike altogether
MOST_ROWS = 10_000
"""Left-out rows that joint errors are chosen on: of more, compositions at random."""
_NEIGHBOURS, _RANDOM, _MOST_ROWS = 10, 60_000, 4000
_FOLDS = 5
_WORTHWHILE = 0.98
"""Interval score over that of independence from which on joint errors are worth having: less may be luck."""


@dataclass(frozen=True, eq=False)
class LeftOutErrors:
    """Errors of m labelled rows, each said of by a head that has not seen its composition."""

    rows: DesignRows
    formulas: NDArray[np.str_]  # shape (m,): reduced
    hashes: NDArray[np.str_]  # shape (m,): of the structures
    error: Array  # shape (m,): E_DFT - E_model less the centre, eV/atom
    std: Array  # shape (m,): calibrated standard deviation, eV/atom
    strained: Strained | None = None  # which are one crystal at several volumes, where that is known

    def sample(self, most: int, seed: int) -> LeftOutErrors:
        """At most so many rows, of compositions at random, each whole."""
        if len(self.error) <= most:
            return self
        _, code, counts = np.unique(self.formulas, return_inverse=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(counts))
        chosen = np.isin(code, order[np.cumsum(counts[order]) <= most])
        return LeftOutErrors(
            self.rows.take(chosen),
            self.formulas[chosen],
            self.hashes[chosen],
            self.error[chosen],
            self.std[chosen],
            None if self.strained is None else self.strained.take(chosen),
        )

    @property
    def gaussian(self) -> Array:
        """Error over σ, made normal by its rank, shape (m,): the sign stays, the size is a quantile."""
        size = np.abs(self.error / self.std)
        rank = np.argsort(np.argsort(size, kind="stable"), kind="stable")
        return np.asarray(np.sign(self.error) * ndtri(0.5 + (rank + 0.5) / (2.0 * len(size))))


@dataclass(frozen=True, eq=False, repr=False)
class DifferenceScores:
    """Sizes of left-out differences over their standard deviation, one set for a kind of difference."""

    scores: Array  # shape (k,), growing
    weights: Array  # shape (k,): such that every structure of a composition counts once
    n_compositions: int
    # whether the standard deviation is that of the joint errors (of a crystal at two volumes that of the strain), or
    # of independent ones
    joint: bool = True

    def __repr__(self) -> str:
        return f"DifferenceScores({len(self.scores)} of {self.n_compositions} compositions)"

    @classmethod
    def of(cls, scores: Array, differences: Differences, *, joint: bool = True) -> DifferenceScores:
        """Sort them."""
        order = np.argsort(scores, kind="stable")
        n = len(np.unique(differences.clusters))
        return cls(scores[order], differences.weights[order], n, joint)

    def widths(self, errors: JointErrors, coefficients: csr_matrix, strain: Array | None = None) -> Array:
        """Standard deviations that the scores are multiples of, shape (k,), eV/atom; ``strain`` of one crystal."""
        if not self.joint:
            return errors.independent_std(coefficients)
        if strain is not None:
            return strained_std(coefficients, errors.marginals.std, strain)
        return errors.std(coefficients)

    @property
    def room(self) -> float:
        """Weight of one more composition: of a new one nothing is known (counted by composition, not by pair)."""
        return float(self.weights.sum()) / max(self.n_compositions, 1)

    def half_width(self, level: float) -> float:
        """Half-width in standard deviations; ``inf`` where there are too few compositions for the level."""
        if not len(self.scores):
            return float("inf")
        return conformal_quantile(self.scores, level, self.weights, self.room)

    def probability_below(self, t: Array) -> Array:
        """Probability that t standard deviations and an error sum to less than zero; never 0 or 1."""
        share = np.concatenate([[0.0], np.cumsum(self.weights)]) / (self.weights.sum() + self.room)
        inside = share[np.searchsorted(self.scores, np.abs(t))]
        return np.asarray(0.5 * (1.0 - np.sign(t) * inside))


@dataclass(frozen=True)
class Reliability:
    """How differences of one kind did on folds of compositions that took no part in their calibration."""

    kind: str
    likeness: str
    level: float
    coverage: float
    interval_score_mev_per_atom: float
    n_differences: int
    n_compositions: int


@dataclass(frozen=True, eq=False, repr=False)
class JointModel:
    """What a head knows of joint errors."""

    likeness: Likeness
    scores: Mapping[str, DifferenceScores]  # by kind of difference
    reliability: tuple[Reliability, ...]  # of every likeness that was tried
    prior: HullPrior | None = None  # None: too few distances from a hull are known to say how probable one is

    def __repr__(self) -> str:
        return f"JointModel({self.likeness.name}, {dict(self.scores)})"


UNKNOWN = JointModel(Independent(), {}, ())
"""Of a head that was made without: errors are taken as independent."""


def fit_copula(left_out: LeftOutErrors, seed: int = 0) -> Copula:
    """Fit the weights of the copula to products of left-out Gaussianised errors (a variogram), by least squares >= 0.

    Pairs of one composition, pairs of near neighbours and pairs at random have equal weight.
    """
    blank, g = Copula.blank(left_out.rows), left_out.gaussian
    first, second, weights = _pairs(blank, left_out, seed)
    terms = blank.terms(left_out.rows, first, second)
    root = np.sqrt(weights)
    found = nnls(terms * root[:, None], g[first] * g[second] * root)[0]
    return replace(blank, weights=found * min(1.0, _MOST_SHARED / max(found.sum(), 1e-300)))


def _pairs(
    blank: Copula, left_out: LeftOutErrors, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    random = np.random.default_rng(seed)
    m = len(left_out.error)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Array]] = []
    pairs = polymorph_pairs(left_out.formulas.tolist(), left_out.hashes.tolist(), left_out.strained)
    if len(pairs):
        ends = pairs.coefficients.indices.reshape(-1, 2).astype(np.int64)
        parts.append((ends[:, 0], ends[:, 1], pairs.weights))
    some = random.permutation(m)[:_MOST_ROWS]
    points = blank.points(left_out.rows)[some]
    near = []
    for start in range(0, len(some), 512):
        square = square_distances(points[start : start + 512], points)
        same = left_out.formulas[some[start : start + 512], None] == left_out.formulas[some]
        square[same] = np.inf
        near.append(np.argpartition(square, min(_NEIGHBOURS, len(some) - 1), axis=1)[:, :_NEIGHBOURS])
    second = some[np.concatenate(near).ravel()]
    first = np.repeat(some, len(second) // max(len(some), 1))
    parts.append((first, second, np.ones(len(first))))
    first, second = random.integers(m, size=(2, _RANDOM))
    parts.append((first, second, np.ones(_RANDOM)))
    parts = [(i[d], j[d], w[d] / w[d].sum()) for i, j, w in parts if (d := i != j).any()]
    i, j, w = (np.concatenate(column) for column in zip(*parts, strict=True))
    return i, j, w


def fit_joint(left_out: LeftOutErrors, pops: PopsHead, seed: int = 0) -> JointModel:
    """Choose the joint errors of a head and calibrate differences with them.

    Parameters
    ----------
    left_out : LeftOutErrors
        Of the rows that the head was made from.
    pops : PopsHead
        Its posterior, one of the candidates.
    seed : int
        Of samples and folds.

    Returns
    -------
    JointModel
        With the likeness of the smallest interval scores of differences, on folds of compositions; independence where
        there is nothing to measure them on, or nothing is better by 2 %. A kind of difference for which the chosen one
        is no better has the widths of independent errors.
    """
    left_out = left_out.sample(MOST_ROWS, seed)
    groups = difference_groups(left_out, seed)
    candidates: tuple[Likeness, ...] = (Independent(), PopsLikeness(pops), fit_copula(left_out, seed))
    tried: list[Reliability] = []
    scores: dict[str, dict[str, DifferenceScores]] = {}
    for likeness in candidates:
        factors = likeness.factors(left_out.rows)
        for kind, group in groups.items():
            width = difference_std(group.coefficients, left_out.std, factors)
            error = group.coefficients @ left_out.error
            tried += measured(kind, likeness.name, error, width, group, seed)
            size = np.abs(error) / np.maximum(width, 1e-12)
            scores.setdefault(likeness.name, {})[kind] = DifferenceScores.of(size, group)
    worth = {likeness.name: _scores_by_kind(tried, likeness.name) for likeness in candidates}
    chosen = min(
        candidates,
        key=lambda likeness: sum(v if v < _WORTHWHILE else 1.0 for v in worth[likeness.name].values()),
    )
    kept = {
        kind: joint
        if worth[chosen.name].get(kind, 1.0) < _WORTHWHILE
        else replace(scores[Independent.name][kind], joint=False)
        for kind, joint in scores.get(chosen.name, {}).items()
    }
    strained, also = fit_strained(left_out, seed)
    return JointModel(chosen, kept | strained, (*tried, *also))


def fit_strained(
    left_out: LeftOutErrors, seed: int = 0
) -> tuple[dict[str, DifferenceScores], list[Reliability]]:
    """Calibrate differences of one crystal at two volumes, by strain or, where that is no better, as independent ones.

    Nothing where there are none. What the strain is worth does not say what is worth most for other differences.
    """
    if left_out.strained is None or not len(group := left_out.strained.pairs(left_out.formulas.tolist())):
        return {}, []
    error, log_volume = group.coefficients @ left_out.error, left_out.strained.log_volume
    ends = group.coefficients.indices.reshape(-1, 2)
    strain = np.abs(log_volume[ends[:, 0]] - log_volume[ends[:, 1]])
    none = np.zeros((len(left_out.std), 0))
    widths = {
        STRAINED: strained_std(group.coefficients, left_out.std, strain),
        Independent.name: difference_std(group.coefficients, left_out.std, none),
    }
    tried = [
        row for name, width in widths.items() for row in measured(STRAINED, name, error, width, group, seed)
    ]
    joint = _scores_by_kind(tried, STRAINED).get(STRAINED, 1.0) < _WORTHWHILE
    size = np.abs(error) / np.maximum(widths[STRAINED if joint else Independent.name], 1e-12)
    return {STRAINED: DifferenceScores.of(size, group, joint=joint)}, tried


def difference_groups(left_out: LeftOutErrors, seed: int = 0) -> dict[str, Differences]:
    """Differences of every kind among labelled rows."""
    formulas = left_out.formulas.tolist()
    groups = {
        POLYMORPH: polymorph_pairs(formulas, left_out.hashes.tolist(), left_out.strained),
        REACTION: syntheses(formulas, left_out.rows.fractions, seed),
    }
    return {kind: group for kind, group in groups.items() if len(group)}


def measured(
    kind: str, name: str, error: Array, width: Array, group: Differences, seed: int
) -> list[Reliability]:
    """Coverage and interval score of differences on folds of compositions, at the levels there is data for."""
    folds = group_folds(group.clusters, _FOLDS, seed)
    size = np.abs(error) / np.maximum(width, 1e-12)
    out = []
    for level in LEVELS:
        half = np.zeros(len(error))
        for fold in np.unique(folds):
            others = folds != fold
            kept = DifferenceScores.of(size[others], group.take(others))
            reach = kept.half_width(level)
            half[~others] = reach * width[~others] if np.isfinite(reach) else np.inf
        if not np.isfinite(half).all():
            continue
        outside = np.maximum(np.abs(error) - half, 0.0)
        score = 2.0 * half + 2.0 / (1.0 - level) * outside
        out.append(
            Reliability(
                kind,
                name,
                level,
                float(np.average(outside <= 0, weights=group.weights)),
                1000.0 * float(np.average(score, weights=group.weights)),
                len(error),
                len(np.unique(group.clusters)),
            )
        )
    return out


def _scores_by_kind(tried: Sequence[Reliability], name: str) -> dict[str, float]:
    """Mean over levels of the interval score over that of independence, by kind of difference where it is known."""
    at = {(r.kind, r.level, r.likeness): r.interval_score_mev_per_atom for r in tried}
    ratios: dict[str, list[float]] = {}
    for kind, level, likeness in at:
        if likeness == Independent.name:
            ratios.setdefault(kind, []).append(at[kind, level, name] / at[kind, level, likeness])
    return {kind: float(np.mean(values)) for kind, values in ratios.items()}
