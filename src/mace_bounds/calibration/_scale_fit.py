"""Fitting σ(x) to leave-one-out residuals, and choosing its kind by nested group folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.calibration._conformal import weighted_conformal_quantile
from mace_bounds.calibration._scale import (
    CEILING_SHARE,
    FLOOR_SHARE,
    KINDS,
    ScaleModel,
    kind_columns,
    link,
)
from mace_bounds.calibration._scale_inputs import ScaleInputs
from mace_bounds.calibration._scale_solvers import gamma_nnls, grouped_ridge
from mace_bounds.calibration._splits import group_folds
from mace_bounds.errors import HeadError

VARIANCE_MINIMUM = 10_000
"""Fewest rows for which the ``variance`` kind, with one coefficient per element, is tried."""
LOG_RIDGE_MINIMUM = 50
"""Fewest rows for which the ``log_ridge`` kind is tried."""

_ONE_SIGMA = 0.6826894921370859
_SCORE_LEVELS = (0.68, 0.90, 0.95)
_REPEAT_UP_TO = 5000  # rows; beyond, one draw of the folds is steady enough
_LOG_SOFTENING = 0.1  # of the median |residual|: below it, log|r| is the luck of a draw, not a size
_CLIP_QUANTILE = 0.995  # squared residuals above this quantile are cut before a variance is fitted
_ELEMENT_PRIOR_ROWS = 20.0  # an element is worth this many rows of the average element

Groups = Sequence[str] | NDArray[np.str_]
_Coefficients = tuple[NDArray[np.float64], NDArray[np.float64]]


def fit_scale(
    kind: str,
    inputs: ScaleInputs,
    loo_residual: ArrayLike,
    groups: Groups,
    seed: int,
    weights: ArrayLike | None = None,
) -> ScaleModel:
    """Fit one kind of scale to the size of leave-one-out residuals.

    Parameters
    ----------
    kind : {"constant", "pops", "log_ridge", "variance"}
        See :class:`ScaleModel`.
    inputs : ScaleInputs
        Quantities of the n training rows.
    loo_residual : array_like, shape (n,)
        Leave-one-out residuals about the centre of the interval, eV/atom.
    groups : sequence of str, shape (n,)
        Composition of each row: folds inside the fit never split one.
    seed : int
        Seed of those folds.
    weights : array_like, shape (n,), optional
        Row weights, not negative; rows of weight zero are dropped.

    Returns
    -------
    ScaleModel
        With ``factor`` such that 68.3 % of the (weighted) training residuals lie within ±σ.

    Raises
    ------
    HeadError
        If lengths differ, or there is no finite residual other than zero.
    """
    inputs, r, labels, w = _checked(inputs, loo_residual, groups, weights)
    floors = inputs.floors()
    columns = kind_columns(kind, inputs, floors)
    low, high = _clamps(kind, columns[:, 1:])
    coefficients, elements = _FITTERS[kind](columns, inputs.fractions, r, w, labels, seed)
    size = link(kind, columns @ coefficients + inputs.fractions @ elements)
    size = np.maximum(size, FLOOR_SHARE * np.average(size, weights=w))
    factor = _weighted_quantile(np.abs(r) / size, w, _ONE_SIGMA)
    factor = factor if factor > 0 else float(np.sqrt(np.average((r / size) ** 2, weights=w)))
    sigma = factor * size
    return ScaleModel(
        kind=kind,
        coefficients=coefficients,
        element_coefficients=elements,
        seen_elements=np.asarray((inputs.fractions > 0).any(axis=0), dtype=np.bool_),
        floors=floors,
        low=low,
        high=high,
        factor=np.array(factor),
        bounds=np.array([FLOOR_SHARE * np.average(sigma, weights=w), CEILING_SHARE * sigma.max()]),
    )


def select_scale(
    inputs: ScaleInputs,
    loo_residual: ArrayLike,
    groups: Groups,
    seed: int,
    weights: ArrayLike | None = None,
    *,
    kinds: Sequence[str] | None = None,
    n_folds: int = 5,
) -> ScaleModel:
    """Fit the kind of scale that makes the best intervals for compositions it has not seen.

    Parameters
    ----------
    inputs, loo_residual, groups, seed, weights
        As in :func:`fit_scale`.
    kinds : sequence of str, optional
        Kinds to compare; by default all that the number of rows allows. The constant always takes part.
    n_folds : int
        Number of folds by group.

    Returns
    -------
    ScaleModel
        The best kind fitted to all rows, ``scores`` holding the comparison. A kind that does not beat the
        constant is never chosen; with fewer groups than two per fold the constant is returned at once.

    Notes
    -----
    Every row gets a σ from a fit without its fold, and the conformal scalars of a fold come from the other
    folds. Kinds are compared by the weighted interval score at 68, 90 and 95 % (Bracher et al., PLoS Comput.
    Biol. 17, e1008618 (2021)): the 95 % score alone rests on so few rows that it often chose the worse kind.
    Up to 5,000 rows the folds are drawn three times.
    """
    inputs, r, labels, w = _checked(inputs, loo_residual, groups, weights)
    if kinds is None:
        needed = {"constant": 0, "pops": 0, "log_ridge": LOG_RIDGE_MINIMUM, "variance": VARIANCE_MINIMUM}
        kinds = [kind for kind in KINDS if len(r) >= needed[kind]]
    tried = ["constant", *(kind for kind in kinds if kind != "constant")]
    if len(tried) == 1 or np.unique(labels).size < 2 * n_folds:
        return fit_scale("constant", inputs, r, labels, seed, w)
    repeats = 3 if len(r) <= _REPEAT_UP_TO else 1
    draws = [group_folds(labels, n_folds, seed + 1000 * k) for k in range(repeats)]
    scores = {
        kind: float(np.mean([_unseen_score(kind, inputs, r, labels, w, folds, seed) for folds in draws]))
        for kind in tried
    }
    best = min(tried, key=lambda kind: scores[kind])  # ties go to the earlier, simpler kind
    return replace(fit_scale(best, inputs, r, labels, seed, w), scores=scores)


def _unseen_score(
    kind: str,
    inputs: ScaleInputs,
    r: NDArray[np.float64],
    labels: NDArray[np.str_],
    w: NDArray[np.float64],
    folds: NDArray[np.int64],
    seed: int,
) -> float:
    """Weighted interval score of a kind, eV/atom, every row judged by fits and scalars without its fold."""
    sigma = np.empty(len(r))
    for fold in np.unique(folds):
        test = folds == fold
        if not np.any(r[~test] != 0):
            return float("inf")
        model = fit_scale(kind, inputs.take(~test), r[~test], labels[~test], seed, w[~test])
        sigma[test] = model.sigma(inputs.take(test))
    ratio, loss = np.abs(r) / sigma, np.zeros(len(r))
    for fold in np.unique(folds):
        test = folds == fold
        for level in _SCORE_LEVELS:
            q = weighted_conformal_quantile(ratio[~test], w[~test], level)
            half = min(q, float(ratio[~test].max())) * sigma[test]
            loss[test] += (1.0 - level) * half + np.maximum(np.abs(r[test]) - half, 0.0)
    return float(np.average(loss, weights=w)) / len(_SCORE_LEVELS)


def _fit_constant(
    columns: NDArray[np.float64],
    fractions: NDArray[np.float64],
    r: NDArray[np.float64],
    w: NDArray[np.float64],
    groups: Groups,
    seed: int,
) -> _Coefficients:
    del columns, r, w, groups, seed
    return np.ones(1), np.zeros(fractions.shape[1])


def _fit_pops(
    columns: NDArray[np.float64],
    fractions: NDArray[np.float64],
    r: NDArray[np.float64],
    w: NDArray[np.float64],
    groups: Groups,
    seed: int,
) -> _Coefficients:
    del groups, seed
    size = np.minimum(np.abs(r), _weighted_quantile(np.abs(r), w, _CLIP_QUANTILE))
    return gamma_nnls(columns, size, w), np.zeros(fractions.shape[1])


def _fit_log_ridge(
    columns: NDArray[np.float64],
    fractions: NDArray[np.float64],
    r: NDArray[np.float64],
    w: NDArray[np.float64],
    groups: Groups,
    seed: int,
) -> _Coefficients:
    softening = _LOG_SOFTENING * _weighted_quantile(np.abs(r), w, 0.5) + 1e-300
    target = 0.5 * np.log(r**2 + softening**2)
    spread = columns[:, 1:].std(axis=0)
    unit = np.where(spread > 1e-12, spread, np.inf)  # a column that does not vary gets no coefficient
    design = np.column_stack([columns[:, 1:] / unit, fractions])
    intercept, slopes = grouped_ridge(design, target, w, group_folds(groups, 5, seed + 1))
    k = columns.shape[1] - 1
    return np.concatenate([[intercept], slopes[:k] / unit]), slopes[k:]


def _fit_variance(
    columns: NDArray[np.float64],
    fractions: NDArray[np.float64],
    r: NDArray[np.float64],
    w: NDArray[np.float64],
    groups: Groups,
    seed: int,
) -> _Coefficients:
    del groups, seed
    target = np.minimum(r**2, _weighted_quantile(r**2, w, _CLIP_QUANTILE))
    n_elements = fractions.shape[1]
    mean = np.average(columns, axis=0, weights=w)
    prior = np.column_stack([np.tile(mean, (n_elements, 1)), np.eye(n_elements)])
    theta = gamma_nnls(
        np.vstack([np.column_stack([columns, fractions]), prior]),
        np.concatenate([target, np.full(n_elements, np.average(target, weights=w))]),
        np.concatenate([w, np.full(n_elements, _ELEMENT_PRIOR_ROWS)]),
    )
    return theta[: columns.shape[1]], theta[columns.shape[1] :]


_FITTERS: dict[str, Callable[..., _Coefficients]] = {
    "constant": _fit_constant,
    "pops": _fit_pops,
    "log_ridge": _fit_log_ridge,
    "variance": _fit_variance,
}


def _clamps(kind: str, columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Training range of each column, a factor of two wider on both sides."""
    if columns.shape[1] == 0:
        return np.empty(0), np.empty(0)
    low, high = columns.min(axis=0), columns.max(axis=0)
    if kind == "log_ridge":
        return low - np.log(2.0), high + np.log(2.0)
    return 0.5 * low, 2.0 * high


def _weighted_quantile(values: NDArray[np.float64], w: NDArray[np.float64], level: float) -> float:
    """Smallest value whose cumulated weight reaches ``level`` of the total."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(w[order])
    position = int(np.searchsorted(cumulated, level * cumulated[-1]))
    return float(values[order[min(position, values.size - 1)]])


def _checked(
    inputs: ScaleInputs, residual: ArrayLike, groups: Groups, weights: ArrayLike | None
) -> tuple[ScaleInputs, NDArray[np.float64], NDArray[np.str_], NDArray[np.float64]]:
    """Inputs, residuals, groups and weights (mean 1) of the rows that have a weight, or a HeadError."""
    r = np.asarray(residual, dtype=np.float64)
    w = np.ones(len(inputs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (r.shape == w.shape == (len(inputs),) and len(groups) == len(inputs)):
        raise HeadError(
            f"Expected one residual, weight and group per row, got {r.size}, {w.size} and {len(groups)} for "
            f"{len(inputs)} rows; align them."
        )
    if not np.all(np.isfinite(r)) or not np.all(w >= 0) or not np.any(r[w > 0] != 0):
        raise HeadError(
            "Expected finite residuals, not all zero, with weights not negative, got others; drop bad rows."
        )
    kept = w > 0
    labels = np.array([str(group) for group in groups], dtype=np.str_)
    return inputs.take(kept), r[kept], labels[kept], w[kept] / w[kept].mean()
