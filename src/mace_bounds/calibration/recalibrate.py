"""A head moved and widened by a few labels that are new to it: one shift and one factor, both drawn to the old head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.conformal import Array
from mace_bounds.errors import HeadError
from mace_bounds.metrics import Membership

if TYPE_CHECKING:
    from mace_bounds.calibration.calibrated import CalibratedHead
    from mace_bounds.calibration.centre import Centre
    from mace_bounds.calibration.layer import ConformalLayer, Intervals
    from mace_bounds.calibration.scale import ScaleModel

MATCHED = (0.5, 0.68, 0.8, 0.9, 0.95)
"""Levels at which the old bounds are compared with the labels."""
MINIMUM_COMPOSITIONS = 10
"""Fewer labelled compositions than this say nothing of a head."""
MAX_FOLDS = 20
"""Of the compositions of labels, on which a change is measured."""

PRIOR_SHIFT = 0.2
"""How large a shift usually is for labels of another source, in half-widths of the intervals at 68 %."""
PRIOR_WIDER, PRIOR_NARROWER = 0.35, 0.15
"""How large the logarithm of a factor above one usually is, and of one below (too narrow does more harm)."""

CHANCE, CERTAIN = 1.5, 3.0
"""Spreads within which a value is taken for chance, and beyond which it cannot be."""

_MIDDLE = 0.68  # the interval whose middle and half-width the shift is measured from and in
_DRAWS = 200  # of compositions, for the spread of shift and factor
_ROUND_OFF = 1e-9
_SMALLEST_FACTOR = 1e-3  # labels that lie on the middle of their intervals need none


@dataclass(frozen=True)
class Adjustment:
    """What is changed of a head.

    Attributes
    ----------
    shift_ev_per_atom : float
        Added to every expected error, eV/atom.
    factor : float
        By which every σ is multiplied.
    """

    shift_ev_per_atom: float = 0.0
    factor: float = 1.0

    @property
    def changes(self) -> bool:
        """Whether the bounds are other ones with it."""
        return self != Adjustment()

    def apply(self, head: CalibratedHead) -> CalibratedHead:
        """The head with it; left-out scores, levels and novelty stay.

        Of the rows that it keeps the σ is that of the new head; whether their bounds hold is not known any more.
        """
        folds = tuple(
            replace(fold, centre=self._centre(fold.centre), scale=self._scale(fold.scale))
            for fold in head.folds
        )
        kept = head.kept_rows
        if kept is not None and self.changes:
            kept = replace(
                kept,
                sigma_ev_per_atom=np.asarray(kept.sigma_ev_per_atom * self.factor, dtype=np.float32),
                covered_above_level=np.full_like(kept.covered_above_level, np.nan),
                # the first term is what all rows share
                typical_terms=kept.typical_terms
                + np.log(self.factor) * (np.arange(len(kept.typical_terms)) == 0),
            )
        return replace(
            head,
            centre=self._centre(head.centre),
            scale=self._scale(head.scale),
            folds=folds,
            kept_rows=kept,
        )

    def _centre(self, centre: Centre) -> Centre:
        # atomic fractions add up to one: the same shift of every element shifts all
        return replace(centre, shifts=centre.shifts + self.shift_ev_per_atom)

    def _scale(self, scale: ScaleModel) -> ScaleModel:
        return replace(scale, factor=scale.factor * self.factor, bounds=scale.bounds * self.factor)


@dataclass(frozen=True, eq=False)
class NewLabels:
    """What a head says of n labelled rows that are new to it, and how far off the model was; eV/atom."""

    error: Array  # shape (n,): E_DFT - E_model
    fold_centre: Array  # shape (K, n): as in :class:`Intervals`
    fold_sigma: Array  # shape (K, n)
    groups: Membership  # cells of each row that may have quantiles of their own
    compositions: NDArray[np.int64]  # shape (n,): a number for the composition of each

    @classmethod
    def of(cls, intervals: Intervals, error: Array, formulas: NDArray[np.str_]) -> NewLabels:
        """Take the intervals of rows, their errors and their reduced formulas."""
        codes = np.unique(formulas, return_inverse=True)[1]
        return cls(error, intervals.fold_centre, intervals.fold_sigma, intervals.groups, codes)

    @property
    def n_compositions(self) -> int:
        """Different compositions."""
        return len(np.unique(self.compositions))

    def take(self, rows: NDArray[np.bool_]) -> NewLabels:
        """The rows of a mask."""
        return NewLabels(
            self.error[rows],
            self.fold_centre[:, rows],
            self.fold_sigma[:, rows],
            Membership(self.groups.names, self.groups.matrix[rows]),
            self.compositions[rows],
        )

    def bounds(
        self, layer: ConformalLayer, level: float, shift: Array | float = 0.0, factor: Array | float = 1.0
    ) -> tuple[Array, Array]:
        """Lower and upper bounds, shape (n,) each, of a head that is changed, or of one for each row (n,)."""
        return layer.bounds(self.fold_centre + shift, self.fold_sigma * factor, self.groups, level)


def left_out_adjustments(labels: NewLabels, layer: ConformalLayer, seed: int = 0) -> tuple[Array, Array]:
    """Shift, eV/atom, and factor for each row (n,), from :func:`fit_adjustment` without the row's fold of compositions.

    Up to :data:`MAX_FOLDS` compositions each is a fold.
    """
    old = _Old.of(labels, layer)
    n_folds = min(old.n_compositions, MAX_FOLDS)
    folds = np.random.default_rng(seed).permutation(old.n_compositions)[old.compositions] % n_folds
    shift, factor = np.zeros(len(folds)), np.ones(len(folds))
    for fold in range(n_folds):
        held = folds == fold
        change = old.take(~held).adjustment(seed)
        shift[held], factor[held] = change.shift_ev_per_atom, change.factor
    return shift, factor


def fit_adjustment(labels: NewLabels, layer: ConformalLayer, seed: int = 0) -> Adjustment:
    """Shift and scale a head by labels that are new to it, both drawn to what they were.

    Parameters
    ----------
    labels : NewLabels
        Of at least :data:`MINIMUM_COMPOSITIONS` compositions.
    layer : ConformalLayer
        Of the head.
    seed : int
        Of the draws from which the spread of both is learnt.

    Returns
    -------
    Adjustment

    Raises
    ------
    HeadError
        If there are fewer compositions.

    Notes
    -----
    The shift is the median of the errors about the middle of the old intervals, each weighted by the inverse of its
    half-width. The factor answers: how many times as wide must the old intervals be for the labels? At each level of
    :data:`MATCHED` it is the conformal quantile of the ratios |error - middle| / half-width, with room for one more
    composition (the finite-sample correction); their geometric mean is taken, so that 20 labels say something of all
    levels.

    Where neither is larger than 1.5 times its spread s over draws of the compositions with replacement, nothing is
    changed. Else both are drawn to the old head by as much as is not known of them: what is kept is u² / (u² + s²), u
    being how large they usually are (the priors above), or what is there beyond 3 s. Bounds get narrower by the prior
    alone. All were chosen on sources left out and on the head's own (``scripts/calibrate_study.py``).
    """
    return _Old.of(labels, layer).adjustment(seed)


def _kept(usual: float, spread: float) -> float:
    """Share of a value that is kept which is usually so large and is known to within a spread."""
    return usual**2 / (usual**2 + spread**2)


def _beyond(value: float, spread: float) -> float:
    """How large a value is beyond what chance leaves open; 0 within it."""
    return float(np.sqrt(max(value**2 - (CERTAIN * spread) ** 2, 0.0)))


def _quantiles(values: Array, weights: Array, mass: Array) -> Array:
    """Smallest of n values up to which the weights (m, n) of each draw sum to a mass (m,); inf where they never do."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1) >= mass[:, None] * (1.0 - _ROUND_OFF)
    return np.where(reached.any(axis=1), values[order][reached.argmax(axis=1)], np.inf)


@dataclass(frozen=True, eq=False)
class _Old:
    """Labels beside the old intervals at the levels that are matched, eV/atom."""

    error: Array  # shape (n,)
    compositions: NDArray[np.int64]  # shape (n,): 0 to n_compositions - 1
    middle: dict[float, Array]  # shape (n,) by level
    half: dict[float, Array]

    @classmethod
    def of(cls, labels: NewLabels, layer: ConformalLayer) -> _Old:
        bounds = {level: labels.bounds(layer, level) for level in MATCHED}
        known = {level: pair for level, pair in bounds.items() if np.isfinite(pair).all()}
        return cls(
            labels.error,
            np.unique(labels.compositions, return_inverse=True)[1],
            {level: 0.5 * (high + low) for level, (low, high) in known.items()},
            {level: 0.5 * (high - low) for level, (low, high) in known.items()},
        )

    @property
    def n_compositions(self) -> int:
        return len(np.unique(self.compositions))

    def take(self, rows: NDArray[np.bool_]) -> _Old:
        return _Old(
            self.error[rows],
            np.unique(self.compositions[rows], return_inverse=True)[1],
            {level: values[rows] for level, values in self.middle.items()},
            {level: values[rows] for level, values in self.half.items()},
        )

    def adjustment(self, seed: int) -> Adjustment:
        n = self.n_compositions
        if n < MINIMUM_COMPOSITIONS:
            raise HeadError(
                f"there are labels of {n} compositions that are new to the head, and at least {MINIMUM_COMPOSITIONS} "
                "are needed; give more labelled structures."
            )
        # how often each composition counts: once, and as often as it is drawn with replacement
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=_DRAWS)
        counts = np.concatenate([np.ones((1, n)), drawn])[:, self.compositions]
        shifts = self._shifts(counts)
        logs = self._log_factors(counts, shifts[0])
        shift, spread = float(shifts[0]), float(shifts[1:].std())
        log_factor, log_spread = float(logs[0]), float(logs[1:].std())
        if abs(shift) <= CHANCE * spread and abs(log_factor) <= CHANCE * log_spread:
            return Adjustment()
        usual = PRIOR_SHIFT * float(np.median(self.half[_MIDDLE]))
        shift *= _kept(max(usual, _beyond(shift, spread)), spread)
        wider = max(PRIOR_WIDER, _beyond(log_factor, log_spread))
        log_factor *= _kept(wider if log_factor > 0 else PRIOR_NARROWER, log_spread)
        return Adjustment(shift, float(np.exp(log_factor)))

    def _shifts(self, counts: Array) -> Array:
        """Weighted median of the errors for each draw (m, n) of rows, shape (m,)."""
        weights = counts / self.half[_MIDDLE]
        return _quantiles(self.error - self.middle[_MIDDLE], weights, 0.5 * weights.sum(axis=1))

    def _log_factors(self, counts: Array, shift: float) -> Array:
        """Logarithm of the factor for each draw (m, n) of rows, shape (m,)."""
        total, logs = counts.sum(axis=1), []
        for level, half in self.half.items():
            needed = np.abs(self.error - self.middle[level] - shift) / half
            # room for one more composition of mean size
            factor = _quantiles(needed, counts, level * total * (1.0 + 1.0 / self.n_compositions))
            if np.isfinite(factor).all():
                logs.append(np.log(np.maximum(factor, _SMALLEST_FACTOR)))
        return np.asarray(np.mean(logs, axis=0))
