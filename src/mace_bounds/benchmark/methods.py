"""The methods of a comparison: everything gets the same rows, and gives a centre and a width σ for each."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mace_bounds.benchmark.baselines import BASELINES, Baseline, BaselineRows, ModelSpread, Widths
from mace_bounds.benchmark.config import PRODUCT, PRODUCT_SPLIT, REFERENCE, SCALE_PREFIX, SPREAD
from mace_bounds.calibration import (
    KINDS,
    DesignRows,
    TrainedRows,
    cross_fit,
    fit_head,
    fit_scale,
    head_inputs,
    residual_ev_per_atom,
    row_weights,
    scale_inputs,
    select_centre,
)
from mace_bounds.errors import HeadError
from mace_bounds.head import POSTERIORS, fit_robust, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mace_bounds.benchmark.splits import Split
    from mace_bounds.calibration import CalibratedHead, FitConfig, Intervals, ScaleInputs
    from mace_bounds.features import FeatureRows, Manifest
    from mace_bounds.head import PopsHead, PopsPrediction

    Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]

T = TypeVar("T")

POPS = "pops_"
"""Before the name of a posterior: its std as it is, before any scale is fitted to it."""
POPS_SUPPORT = "pops_support"
"""Half of the support of the head's own posterior, likewise."""


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one side of a split, as the head sees them and as baselines do."""

    rows: FeatureRows
    plain: BaselineRows


@dataclass(frozen=True, eq=False)
class SplitData:
    """What the methods of one split share."""

    split: Split
    # fit, calibration, test: ``plain.y`` is NaN in the test rows; ``plain.centre`` is the product's, in the
    # fit rows that of heads which have not seen the row's composition
    fit: Part
    calibration: Part
    test: Part
    # the product with the conformal layer that all methods get: fitted on the fit rows alone
    head: CalibratedHead
    # its intervals of the test rows; their flags are those by which the test rows are grouped
    intervals: Intervals
    # what the scales see of the fit rows, from heads that have not seen the composition
    left_out: ScaleInputs
    # fits the product as it ships: settings as given, on the fit and the calibration rows
    shipped: Callable[[], CalibratedHead]
    # head_seconds, pops_seconds, cross_seconds: what the head's fit, its POPS fit alone, and the cross-fit
    # took
    head_seconds: float
    pops_seconds: float
    cross_seconds: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """Centres and widths of a method for the calibration and the test rows, and what they cost."""

    # calibration, test: centres and widths, eV/atom
    calibration: Widths
    test: Widths
    # fit_seconds, predict_seconds: processor time to fit, and to predict the calibration and test rows
    fit_seconds: float
    predict_seconds: float
    n_bytes: int  # what must be kept to predict
    # lower and upper bounds of the test rows at a level, from a conformal layer of the method's own
    bounds: Callable[[float], Bounds] | None = None


def common_config(config: FitConfig) -> FitConfig:
    """Settings of the product with the conformal layer that all methods get: split, symmetric, no groups."""
    return replace(config, conformal="split", signed=False, groups="none", guarantee="pooled")


def method_names(config: FitConfig) -> tuple[str, ...]:
    """Names of every method that can run here, the product first; with split conformal it is there once."""
    scales = [
        SCALE_PREFIX + name for name, kind in KINDS.items() if name != REFERENCE and not kind.of_training
    ]
    product = (PRODUCT,) if config == common_config(config) else (PRODUCT, PRODUCT_SPLIT)
    pops = [POPS + name for name in POSTERIORS]
    return (*product, *pops, POPS_SUPPORT, *scales, *BASELINES)


def chosen_methods(
    names: Sequence[str] | None, config: FitConfig, *, others: bool = False
) -> tuple[str, ...]:
    """The named methods in the order of :func:`method_names`, the constant always among them.

    Where energies of ``others``, other models, are given, their spread is one more.
    """
    known = (*method_names(config), *([SPREAD] if others else []))
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise HeadError(f"there is no method {', '.join(unknown)}; choose from {', '.join(known)}.")
    return tuple(name for name in known if not names or name in names or name == REFERENCE)


def prepare(
    rows: FeatureRows,
    manifest: Manifest,
    split: Split,
    others: NDArray[np.float64] | None = None,
    trained: TrainedRows | None = None,
) -> SplitData:
    """Fit the product on a split, and bring its rows into the form that every method takes.

    ``others`` (n, k): energies of other models less those of the store's model, eV/atom, for each of the rows;
    ``trained``: rows of the model's own training, for the product alone.
    """
    used = rows.take(split.fit | split.calibration)

    def product(config: FitConfig) -> CalibratedHead:
        return fit_head(used, manifest, config, measure_sources=False, trained=trained).head

    head, head_seconds = timed(lambda: product(common_config(split.config)))
    fit, calibration, test = (rows.take(mask) for mask in (split.fit, split.calibration, split.test))
    given = [None if others is None else others[mask] for mask in (split.fit, split.calibration, split.test)]
    plain = _plain(fit, head, split, given[0])
    config = split.config
    left_out, cross_seconds = timed(lambda: cross_fit(plain.x, plain.y, plain.weights, plain.groups, config))
    _, centre = select_centre(
        plain.y, left_out.mean, plain.fractions, plain.groups, config.seed, plain.weights
    )
    _, pops_seconds = timed(lambda: fit_robust(plain.x, plain.y, plain.weights, config.pops()))
    return SplitData(
        split=split,
        fit=Part(fit, replace(plain, centre=centre)),
        calibration=Part(calibration, _plain(calibration, head, split, given[1])),
        test=Part(test, _without_labels(_plain(test, head, split, given[2]))),
        head=head,
        intervals=head.intervals(test),
        left_out=scale_inputs(left_out, _design(plain, config)),
        shipped=lambda: product(split.config),
        head_seconds=head_seconds,
        pops_seconds=pops_seconds,
        cross_seconds=cross_seconds,
    )


def run_method(name: str, data: SplitData) -> Outcome:
    """Fit one method, and predict centres and widths of the calibration and the test rows."""
    if name == PRODUCT_SPLIT or (name == PRODUCT and data.split.config == common_config(data.split.config)):
        return _product_split(data)
    if name == PRODUCT:
        return _product(data)
    if name == POPS_SUPPORT:
        return _pops_width(data, data.head.pops, data.pops_seconds, _half_support)
    if name.startswith(POPS):
        return _posterior(name.removeprefix(POPS), data)
    if name.startswith(SCALE_PREFIX):
        return _scale(name.removeprefix(SCALE_PREFIX), data)
    return _baseline(name, data)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and the processor time it took: other processes do not enter."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def _plain(
    rows: FeatureRows, head: CalibratedHead, split: Split, others: NDArray[np.float64] | None
) -> BaselineRows:
    design = head_inputs(rows, composition=split.config.composition)
    return BaselineRows(
        x=design.x,
        y=residual_ev_per_atom(rows),
        centre=head.intervals(rows).centre,
        groups=rows.table[split.config.split_by].to_numpy(dtype=str),
        weights=row_weights(rows, split.config),
        fractions=design.fractions,
        names=head.identity.columns,
        others=others,
    )


def _design(rows: BaselineRows, config: FitConfig) -> DesignRows:
    return DesignRows(rows.x, rows.fractions, config.composition)


def _without_labels(rows: BaselineRows) -> BaselineRows:
    return replace(rows, y=np.full(len(rows.y), np.nan))


def _outcome(predict_part: Callable[[Part], Widths], data: SplitData, seconds: float, size: int) -> Outcome:
    (calibration, test), spent = timed(lambda: (predict_part(data.calibration), predict_part(data.test)))
    return Outcome(calibration, test, seconds, spent, size)


def _product(data: SplitData) -> Outcome:
    head, seconds = timed(data.shipped)
    intervals, spent = timed(lambda: head.intervals(data.test.rows))
    widths = Widths(intervals.centre, intervals.sigma)
    parts = [(head.pops, head.scale), *((fold.pops, fold.scale) for fold in head.folds)]
    size = sum(_size(part.to_tensors()) for pair in parts for part in pair)
    return Outcome(
        calibration=widths,
        test=widths,
        fit_seconds=seconds,
        predict_seconds=spent,
        n_bytes=size + _size(head.conformal.to_tensors()),
        bounds=lambda level: head.conformal.bounds(
            intervals.fold_centre, intervals.fold_sigma, intervals.groups, level
        ),
    )


def _product_split(data: SplitData) -> Outcome:
    def widths(part: Part) -> Widths:
        intervals = data.head.intervals(part.rows)
        return Widths(intervals.centre, intervals.sigma)

    size = _size(data.head.pops.to_tensors()) + _size(data.head.scale.to_tensors())
    return _outcome(widths, data, data.head_seconds, size)


def _pops_width(
    data: SplitData, head: PopsHead, seconds: float, width: Callable[[PopsPrediction], NDArray[np.float64]]
) -> Outcome:
    def widths(part: Part) -> Widths:
        sigma = width(predict(head, part.plain.x))
        return Widths(part.plain.centre, np.maximum(sigma, np.finfo(np.float64).tiny))

    return _outcome(widths, data, seconds, _size(head.to_tensors()))


def _posterior(name: str, data: SplitData) -> Outcome:
    rows, config = data.fit.plain, replace(data.split.config.pops(), posterior=name, also=())
    fit, seconds = timed(lambda: fit_robust(rows.x, rows.y, rows.weights, config))
    return _pops_width(data, fit.head, seconds, _total_std)


def _scale(kind: str, data: SplitData) -> Outcome:
    head, rows = data.head.pops, data.fit.plain
    error = rows.y - rows.centre
    seed = data.split.config.seed
    scale, spent = timed(lambda: fit_scale(kind, data.left_out, error, rows.groups, seed, rows.weights))

    def widths(part: Part) -> Widths:
        plain = part.plain
        inputs = scale_inputs(predict(head, plain.x), _design(plain, data.split.config))
        return Widths(plain.centre, scale.sigma(inputs))

    size = _size(head.to_tensors()) + _size(scale.to_tensors())
    return _outcome(widths, data, data.pops_seconds + data.cross_seconds + spent, size)


def _baseline(name: str, data: SplitData) -> Outcome:
    baseline: Baseline = ModelSpread() if name == SPREAD else BASELINES[name]
    fitted, seconds = timed(lambda: baseline.fit(data.fit.plain, data.split.config.seed))
    return _outcome(
        lambda part: fitted.predict(_without_labels(part.plain)), data, seconds, int(fitted.n_bytes())
    )


def _size(tensors: dict[str, NDArray[np.generic]]) -> int:
    return int(sum(array.nbytes for array in tensors.values()))


def _half_support(prediction: PopsPrediction) -> NDArray[np.float64]:
    return 0.5 * (prediction.support_upper - prediction.support_lower)


def _total_std(prediction: PopsPrediction) -> NDArray[np.float64]:
    return np.asarray(np.hypot(prediction.misspecification_std, prediction.epistemic_std))
