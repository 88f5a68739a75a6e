"""σ(x), the expected size of a residual: the model that a head ships, its fit to left-out residuals, its choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.calibration.conformal import conformal_quantile
from mace_bounds.calibration.inputs import ScaleInputs
from mace_bounds.calibration.scale_kinds import KINDS, SINGLE, TrainingRows, kinds_for, rows_for, size_of
from mace_bounds.calibration.splits import group_folds, hashed_order
from mace_bounds.errors import HeadError
from mace_bounds.head import weighted_quantile

MAX_ROWS = 20_000
"""Above it, a scale is fitted to this many rows of compositions drawn by their hash."""
N_FOLDS = 5
"""Folds by group on which kinds and strengths are compared."""
FLOOR_SHARE = 1e-3
"""σ never falls below this share of its mean over the training rows."""
CEILING_SHARE = 3.0
"""σ never exceeds this multiple of its largest value over the training rows."""

_ONE_SIGMA = 0.6826894921370859  # share of a Gaussian within one standard deviation
_SCORE_LEVELS = (0.68, 0.90, 0.95)
_REPEAT_UP_TO = 2000  # rows; beyond, one draw of the folds is steady enough
_NEXT_DRAW = 1000  # added to the seed for the second draw of the folds
_COMMON = ("seen_elements", "factor", "bounds")


Groups = Sequence[str] | NDArray[np.str_]
_Candidate = tuple[str, float]
_FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ScaleModel:
    """A fitted σ(x), eV/atom.

    ``factor`` makes 68.3 % of the training rows lie within ±σ, as a standard deviation would for Gaussian
    residuals. Outside the training range the columns are clamped (a factor of two beyond it), so that
    neither a huge leverage nor a tiny support can make σ explode or vanish; elements never seen count as an
    average element, at the largest distance.
    """

    # A name in :data:`KINDS`: ``"constant"``; ``"pops"``: c0 + c1·support; ``"log_ridge"``: log-linear in log
    # widths, log distance to the training rows and atomic fractions; ``"kernel"``: the same with the model's
    # features and Gaussian kernels around training rows; ``"training_kernel"``: that, fitted to rows of the model's
    # own training as well, with the errors of the nearest rows
    kind: str
    parameters: dict[str, NDArray[np.float64]]  # arrays of the kind
    seen_elements: NDArray[np.bool_]  # shape (n_elements,): elements present in the training rows
    factor: NDArray[np.float64]  # shape (): Normalisation
    bounds: NDArray[np.float64]  # shape (2,): floor and ceiling of σ, eV/atom
    # weighted interval score (68, 90, 95 %) on unseen groups of each kind that was tried, eV/atom; empty if
    # none were compared
    scores: dict[str, float] = field(default_factory=dict)
    temper: float = 1.0  # γ: sizes are taken to this power, which shrinks them towards one size for all

    def __repr__(self) -> str:
        return f"ScaleModel({self.kind}, {1e3 * self.bounds[0]:.3g} to {1e3 * self.bounds[1]:.3g} meV/atom)"

    def describe(self) -> str:
        """Kind and power."""
        return self.kind + (f", to the power {self.temper:g}" if self.temper < 1 else "")

    def sigma(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Return σ of each row, shape (n,), eV/atom; finite and positive for every valid input."""
        self._check(inputs)
        size = size_of(self.kind, self.parameters, inputs) ** self.temper
        clipped: NDArray[np.float64] = np.clip(float(self.factor) * size, self.bounds[0], self.bounds[1])
        return clipped

    def terms(self, inputs: ScaleInputs) -> dict[str, NDArray[np.float64]]:
        """What log σ is the sum of, by name, shape (n,) each; the first is what all rows share.

        ``"limits of the scale"`` is what floor and ceiling change.
        """
        self._check(inputs)
        shared = np.full(len(inputs), np.log(max(float(self.factor), 1e-300)))
        own = KINDS[self.kind].terms(self.parameters, inputs)
        terms = {"shared": shared, **{name: self.temper * term for name, term in own.items()}}
        free = sum(terms.values(), np.zeros(len(inputs)))
        return {**terms, "limits of the scale": np.log(self.sigma(inputs)) - free}

    def tempered(
        self, temper: float, inputs: ScaleInputs, residual: ArrayLike, weights: ArrayLike | None = None
    ) -> ScaleModel:
        """The same with log σ shrunk towards a constant by ``temper``, normalised on its training rows again."""
        size, w = np.abs(np.asarray(residual, dtype=np.float64)), np.ones(len(inputs))
        w = w if weights is None else np.asarray(weights, dtype=np.float64)
        return _normalised(replace(self, temper=temper), inputs, size, w)

    def unseen(self, inputs: ScaleInputs) -> NDArray[np.bool_]:
        """Return which rows hold an element that no training row had, shape (n,): flag these."""
        return np.asarray((inputs.fractions[:, ~self.seen_elements] > 0).any(axis=1), dtype=np.bool_)

    def _check(self, inputs: ScaleInputs) -> None:
        n_elements = len(self.seen_elements)
        if inputs.fractions.shape[1] != n_elements:
            raise HeadError(
                f"the scale was fitted with {n_elements} elements, and the fractions have "
                f"{inputs.fractions.shape[1]}; use those of the head's model."
            )
        centre = self.parameters.get("space_centre")
        if centre is not None and inputs.columns.shape[1] != len(centre):
            raise HeadError(
                f"the scale was fitted with {len(centre) - n_elements} features per row, and there are "
                f"{inputs.columns.shape[1] - n_elements}; give those of the head's model."
            )

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for safetensors; the kind and the scores go to :meth:`to_config`."""
        own = {k: v.astype(np.float32) if k in SINGLE else v for k, v in self.parameters.items()}
        return {**own, **{name: np.asarray(getattr(self, name)) for name in _COMMON}}

    def to_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return {"kind": self.kind, "scores": dict(self.scores), "temper": self.temper}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], config: Mapping[str, object]
    ) -> ScaleModel:
        """Rebuild a model from :meth:`to_tensors` and :meth:`to_config`."""
        kind, scores = str(config.get("kind")), config.get("scores", {})
        needed = (*_COMMON, *KINDS[kind].arrays) if kind in KINDS else _COMMON
        missing = [name for name in needed if name not in tensors]
        if missing or kind not in KINDS or not isinstance(scores, Mapping):
            raise HeadError(
                f"the head's scale of kind {kind} cannot be used (missing: {', '.join(missing) or 'nothing'}); fit the "
                "head again."
            )
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in tensors.items()}
        return cls(
            kind=kind,
            parameters={name: values for name, values in arrays.items() if name not in _COMMON},
            seen_elements=arrays["seen_elements"].astype(np.bool_),
            factor=arrays["factor"],
            bounds=arrays["bounds"],
            scores={str(name): float(value) for name, value in scores.items()},
            temper=float(str(config.get("temper", 1.0))),
        )


def fit_scale(
    kind: str,
    inputs: ScaleInputs,
    residual: ArrayLike,
    groups: Groups,
    seed: int,
    weights: ArrayLike | None = None,
    *,
    strength: float | None = None,
) -> ScaleModel:
    """Fit one kind of scale to the size of left-out residuals.

    Parameters
    ----------
    kind : str
        One of the kinds of :class:`ScaleModel`.
    inputs : ScaleInputs
        Quantities of the n training rows.
    residual : array_like, shape (n,)
        Left-out residuals about the centre of the interval, eV/atom: from heads that have not seen the row's group.
    groups : sequence of str, shape (n,)
        Composition of each row.
    seed : int
        Seed of every draw: folds, landmarks, the rows kept above 20,000.
    weights : array_like, shape (n,), optional
        Row weights, not negative; rows of weight zero are dropped.
    strength : float, optional
        Strength of the ridge or prior; chosen by folds over groups if not given.

    Returns
    -------
    ScaleModel
        With ``factor`` such that 68.3 % of the (weighted) training residuals lie within ±σ.

    Raises
    ------
    HeadError
        If lengths differ, or there is no finite residual other than zero.
    """
    inputs, r, labels, w = _checked(inputs, residual, groups, weights, seed)
    if kind not in KINDS:
        raise HeadError(f"the kind of scale {kind!r} is none of {', '.join(KINDS)}; choose one of these.")
    if strength is None:
        rows = _Rows(inputs, r, labels, w, seed)
        strength = rows.strength(kind) if np.unique(labels).size > 1 else KINDS[kind].strengths[0]
    return _fit_one(kind, strength, inputs, r, labels, w, seed)


def select_scale(
    inputs: ScaleInputs,
    residual: ArrayLike,
    groups: Groups,
    seed: int,
    weights: ArrayLike | None = None,
) -> ScaleModel:
    """Fit the kind of scale that makes the best intervals for compositions it has not seen.

    Parameters
    ----------
    inputs, residual, groups, seed, weights
        As in :func:`fit_scale`.

    Returns
    -------
    ScaleModel
        The best kind fitted to all rows, ``scores`` holding the interval scores of all. A kind that does not beat the
        constant is never chosen; with fewer groups than two per fold the constant is returned at once.

    Notes
    -----
    Every row gets a σ from a fit without its fold. Kinds are compared, each at its safest strength, by the likelihood
    of Laplace noise, which all rows decide: an interval score rests on so few rows that it often chose the worse kind.
    The winner gives up its safest strength only for one whose weighted interval score at 68, 90 and 95 % (Bracher et
    al., PLoS Comput. Biol. 17, e1008618 (2021)) is better by a standard error, the conformal scalars of a fold coming
    from the other folds. Up to 2,000 rows the folds are drawn twice.
    """
    inputs, r, labels, w = _checked(inputs, residual, groups, weights, seed)
    tried = kinds_for(len(r), inputs.n_trained)
    if len(tried) == 1 or np.unique(labels).size < 2 * N_FOLDS:
        return _fit_one("constant", 1.0, inputs, r, labels, w, seed)
    rows = _Rows(inputs, r, labels, w, seed)
    losses = rows.losses({kind: KINDS[kind].strengths[:1] for kind in tried})
    scores = {kind: float(np.average(loss.interval, weights=w)) for (kind, _), loss in losses.items()}
    surprise = {kind: float(np.average(loss.surprise, weights=w)) for (kind, _), loss in losses.items()}
    best = min(tried, key=lambda kind: surprise[kind])  # ties go to the constant, then to the simpler kind
    model = _fit_one(best, rows.strength(best), inputs, r, labels, w, seed)
    return replace(model, scores=scores)


@dataclass(frozen=True)
class _Loss:
    """What a candidate costs on every row, shape (n,): interval score, eV/atom, and -log likelihood."""

    interval: _FloatArray
    surprise: _FloatArray


@dataclass(frozen=True)
class _Rows:
    """Checked rows, on which candidates are compared."""

    inputs: ScaleInputs
    r: _FloatArray
    labels: NDArray[np.str_]
    w: _FloatArray
    seed: int

    def losses(self, strengths: Mapping[str, Sequence[float]]) -> dict[_Candidate, _Loss]:
        """Losses of every kind and strength from fits without the row's fold, a mean over drawings of the folds."""
        drawn: dict[_Candidate, list[_Loss]] = {}
        for k in range(2 if len(self.r) <= _REPEAT_UP_TO else 1):
            folds = group_folds(self.labels, N_FOLDS, self.seed + _NEXT_DRAW * k)
            sigmas = left_out_sigma(strengths, self.inputs, self.r, self.labels, self.w, self.seed, folds)
            for candidate, sigma in sigmas.items():
                loss = _Loss(interval_loss(self.r, sigma, self.w, folds), laplace_loss(self.r, sigma, self.w))
                drawn.setdefault(candidate, []).append(loss)
        return {
            candidate: _Loss(
                np.asarray(np.mean([x.interval for x in repeats], axis=0)),
                np.asarray(np.mean([x.surprise for x in repeats], axis=0)),
            )
            for candidate, repeats in drawn.items()
        }

    def strength(self, kind: str) -> float:
        """Return the safest strength of a kind that no other beats by a standard error."""
        best, *others = KINDS[kind].strengths
        if not others:
            return best
        losses = self.losses({kind: KINDS[kind].strengths})
        for other in others:
            gain = self.w * (losses[kind, best].interval - losses[kind, other].interval)
            best = other if gain.sum() > group_standard_error(gain, self.labels) else best
        return best


def group_standard_error(values: _FloatArray, labels: NDArray[np.str_]) -> float:
    """Standard error of the sum of ``values``, groups being independent and their members not."""
    _, code = np.unique(labels, return_inverse=True)
    sums = np.bincount(code, values)
    return float(np.sqrt(((sums - sums.mean()) ** 2).sum()))


def left_out_sigma(
    strengths: Mapping[str, Sequence[float]],
    inputs: ScaleInputs,
    r: _FloatArray,
    labels: NDArray[np.str_],
    w: _FloatArray,
    seed: int,
    folds: NDArray[np.int64],
) -> dict[_Candidate, _FloatArray]:
    """σ of every row, for each kind and strength, from a fit without the row's fold."""
    out: dict[_Candidate, _FloatArray] = {}
    for fold in np.unique(folds):
        test = folds == fold
        rows = _training(inputs.take(~test), r[~test], labels[~test], w[~test], seed)
        held = inputs.take(test)
        usable = bool(np.any(rows.size > 0))
        for kind, asked in strengths.items():
            fits = KINDS[kind].fit(rows_for(kind, rows, labels[~test], seed), asked) if usable else []
            for k, strength in enumerate(asked):
                sigma = out.setdefault((kind, strength), np.ones(len(r)))
                if usable:
                    sigma[test] = _model(kind, fits[k], rows).sigma(held)
    return out


def laplace_loss(r: _FloatArray, sigma: _FloatArray, w: _FloatArray) -> _FloatArray:
    """-log likelihood of Laplace noise of the size q·σ for each row, shape (n,), q the most likely factor."""
    ratio = np.abs(r) / sigma
    level = float(np.average(ratio, weights=w))
    return np.asarray(np.log(sigma) + np.log(level) + ratio / level)


def interval_loss(
    r: _FloatArray, sigma: _FloatArray, w: _FloatArray, folds: NDArray[np.int64]
) -> _FloatArray:
    """Mean over levels of (1 - level)·half-width + excess for each row, shape (n,), eV/atom.

    The conformal scalar of a row comes from the other folds.
    """
    ratio, loss = np.abs(r) / sigma, np.zeros(len(r))
    for fold in np.unique(folds):
        test = folds == fold
        for level in _SCORE_LEVELS:
            q = conformal_quantile(ratio[~test], level, w[~test])
            half = min(q, float(ratio[~test].max())) * sigma[test]
            loss[test] += (1.0 - level) * half + np.maximum(np.abs(r[test]) - half, 0.0)
    return loss / len(_SCORE_LEVELS)


def _fit_one(
    kind: str,
    strength: float,
    inputs: ScaleInputs,
    r: _FloatArray,
    labels: NDArray[np.str_],
    w: _FloatArray,
    seed: int,
) -> ScaleModel:
    rows = _training(inputs, r, labels, w, seed)
    return _model(kind, KINDS[kind].fit(rows_for(kind, rows, labels, seed), [strength])[0], rows)


def _training(
    inputs: ScaleInputs, r: _FloatArray, labels: NDArray[np.str_], w: _FloatArray, seed: int
) -> TrainingRows:
    return TrainingRows(inputs, np.abs(r), w / w.mean(), hashed_order(labels, f"landmark:{seed}", r))


def _model(kind: str, arrays: dict[str, _FloatArray], rows: TrainingRows) -> ScaleModel:
    """Normalise a fitted size and set floor and ceiling."""
    one = np.ones(())
    model = ScaleModel(kind, arrays, rows.inputs.elements, one, np.array([one, one]))
    return _normalised(model, rows.inputs, rows.size, rows.w)


def _normalised(
    model: ScaleModel, inputs: ScaleInputs, residual_size: _FloatArray, w: _FloatArray
) -> ScaleModel:
    size = size_of(model.kind, model.parameters, inputs) ** model.temper
    size = np.maximum(size, FLOOR_SHARE * np.average(size, weights=w))
    factor = weighted_quantile(residual_size / size, w, _ONE_SIGMA * w.sum())
    factor = factor if factor > 0 else float(np.sqrt(np.average((residual_size / size) ** 2, weights=w)))
    sigma = factor * size
    bounds = np.array([FLOOR_SHARE * np.average(sigma, weights=w), CEILING_SHARE * sigma.max()])
    return replace(model, factor=np.array(factor), bounds=bounds)


def _checked(
    inputs: ScaleInputs, residual: ArrayLike, groups: Groups, weights: ArrayLike | None, seed: int
) -> tuple[ScaleInputs, _FloatArray, NDArray[np.str_], _FloatArray]:
    """Inputs, residuals, groups and weights (mean 1) of the rows that have a weight, at most MAX_ROWS."""
    r = np.asarray(residual, dtype=np.float64)
    w = np.ones(len(inputs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (r.shape == w.shape == (len(inputs),) and len(groups) == len(inputs)):
        raise HeadError(
            f"there are {r.size} residuals, {w.size} weights and {len(groups)} groups for {len(inputs)} rows; align "
            "them."
        )
    if not np.all(np.isfinite(r)) or not np.all(w >= 0) or not np.any(r[w > 0] != 0):
        raise HeadError(
            "residuals must be finite and not all zero, and weights not negative; drop the rows that are not."
        )
    labels = np.array([str(group) for group in groups], dtype=np.str_)
    kept = np.flatnonzero(w > 0)
    if kept.size > MAX_ROWS:
        kept = np.sort(kept[hashed_order(labels[kept], f"subsample:{seed}", r[kept])[:MAX_ROWS]])
    return inputs.take(kept), r[kept], labels[kept], w[kept] / w[kept].mean()
