"""Sources of labels left out in turn: how a head does where no label came from, and which scale does best there.

Rows of one source resemble each other in more than their features: functional settings, how structures were made, what
was published. So whoever scores crystals of his own is not exchangeable with the labels, and what holds for him is
measured as on a source that took no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration.centre import select_centre
from mace_bounds.calibration.conformal import conformal_quantile
from mace_bounds.calibration.cross_fitting import (
    cross_fit,
    fit_one,
    residual_ev_per_atom,
    rows_of,
    source_weights,
)
from mace_bounds.calibration.inputs import DesignRows, head_inputs, scale_inputs
from mace_bounds.calibration.layer import MINIMUM_SOURCE
from mace_bounds.calibration.scale import N_FOLDS, fit_scale, laplace_loss, left_out_sigma
from mace_bounds.calibration.scale_kinds import KINDS, kinds_for
from mace_bounds.calibration.splits import group_folds, hashed_order
from mace_bounds.calibration.trained import TrainedRows
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.head import predict
from mace_bounds.metrics import interval_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.calibration.config import FitConfig
    from mace_bounds.features import FeatureRows

    Array = NDArray[np.float64]

EVERY_SOURCE, POOLED = "every-source", "pooled"
MINIMUM_SOURCES = 3
"""Sources of 100 labelled rows below which leaving one out says nothing."""
TEMPERS = (1.0, 0.75, 0.5)
"""Powers γ of σ that are compared."""
SAFEST = 0.75
"""The power that others must beat: 4 to 10 % better than 1 on sources left out, 2 to 4 % worse inside."""
_TINY = 1e-300
_MOST_LEFT_OUT = 5  # sources that are left out, the largest; more would take long and say little more
_MOST_ROWS = 5_000  # of one source in these comparisons
_FEWEST_ROWS = 20  # that a head is fitted to, as in a fit
_LEVELS = (0.68, 0.90, 0.95)
_REFERENCE = 0.95


@dataclass(frozen=True)
class ScaleChoice:
    """A kind of scale, and the power to which it is taken."""

    kind: str
    temper: float = 1.0


@dataclass(frozen=True)
class LeftOutSource:
    """What heads fitted and calibrated without a source do on it."""

    source: str
    n: int
    n_compositions: int
    kind: str  # of the scale, chosen without the source
    temper: float
    coverage: dict[str, float]  # by level
    median_width_mev_per_atom: float  # at 95 %, or the highest level below it
    interval_score_mev_per_atom: float
    constant_score_mev_per_atom: float  # of one width for all, from the same rows


@dataclass(frozen=True)
class SourceStudy:
    """What is promised, the scale chosen for it, and how it does on sources left out."""

    guarantee: str
    choice: ScaleChoice | None  # None where kinds are compared on compositions left out alone
    left_out: tuple[LeftOutSource, ...]
    why: str = ""  # the promise is another than was asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a head's provenance."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Rows that a head was fitted to (in) and those of the sources left out (out), with its errors and widths there."""

    error_in: Array
    source_in: NDArray[np.str_]
    groups_in: NDArray[np.str_]
    own_in: Array  # errors of the model itself
    sigma_in: dict[str, Array]  # by kind, from fits without the row's fold
    error_out: Array
    source_out: NDArray[np.str_]
    groups_out: NDArray[np.str_]
    own_out: Array
    sigma_out: dict[str, Array]

    def only(self, source: str) -> _Trial:
        """The same with the rows of one of the sources left out."""
        of_it = self.source_out == source
        return replace(
            self,
            error_out=self.error_out[of_it],
            source_out=self.source_out[of_it],
            groups_out=self.groups_out[of_it],
            own_out=self.own_out[of_it],
            sigma_out={kind: sigma[of_it] for kind, sigma in self.sigma_out.items()},
        )

    def half_width(self, choice: ScaleChoice, level: float, guarantee: str) -> Array:
        """Half-widths of the rows left out: by the widest of the sources' quantiles, or the pooled one."""
        z = np.abs(self.error_in) / self.sigma_in[choice.kind] ** choice.temper
        q = conformal_quantile(z, level, None, _room(self.groups_in))
        if guarantee == EVERY_SOURCE:
            for source in large_sources(self.source_in):
                of_it = self.source_in == source
                own = conformal_quantile(z[of_it], level, None, _room(self.groups_in[of_it]))
                q = max(q, own if np.isfinite(own) else float(z[of_it].max()))
        return np.asarray(q * self.sigma_out[choice.kind] ** choice.temper)

    def reaches(self, config: FitConfig) -> bool:
        """Whether there are compositions enough for one of the levels."""
        ones = np.ones(len(self.error_in))
        return bool(np.isfinite(conformal_quantile(ones, min(config.levels), None, _room(self.groups_in))))

    def loss(self, choice: ScaleChoice) -> float:
        """Interval score of a scale on the rows left out, by the widest quantile of the sources, over one size for all.

        Weighted interval scores (Bracher et al. 2021).
        """
        return self._score(choice) / max(self._score(ScaleChoice("constant")), _TINY)

    def _score(self, choice: ScaleChoice) -> float:
        size = np.abs(self.error_out)
        most = 1e3 * size.max() + _TINY
        halves = [np.minimum(self.half_width(choice, x, EVERY_SOURCE), most) for x in _LEVELS]
        parts = [
            (1.0 - x) * half + np.maximum(size - half, 0.0) for x, half in zip(_LEVELS, halves, strict=True)
        ]
        return float(np.mean(parts))

    def measured(self, source: str, choice: ScaleChoice, guarantee: str, config: FitConfig) -> LeftOutSource:
        """Coverage and scores on the rows left out, at the levels that the others have compositions enough for."""
        size = np.abs(self.error_out)
        halves = {level: self.half_width(choice, level, guarantee) for level in config.levels}
        halves = {level: half for level, half in halves.items() if np.isfinite(half).all()}
        reference = max((x for x in halves if x <= _REFERENCE), default=min(halves))
        half = halves[reference]
        middle = float(np.median(self.own_in))
        flat = conformal_quantile(np.abs(self.own_in - middle), reference, None, _room(self.groups_in))
        ends = np.full(len(size), middle - flat), np.full(len(size), middle + flat)
        return LeftOutSource(
            source=source,
            n=len(size),
            n_compositions=len(np.unique(self.groups_out)),
            kind=choice.kind,
            temper=choice.temper,
            coverage={f"{level:g}": round(float(np.mean(size <= h)), 4) for level, h in halves.items()},
            median_width_mev_per_atom=_mev(2.0 * np.median(half)),
            interval_score_mev_per_atom=_mev(interval_score(self.error_out, -half, half, reference).mean()),
            constant_score_mev_per_atom=_mev(interval_score(self.own_out, *ends, reference).mean()),
        )


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Labelled rows as heads see them."""

    design: DesignRows
    y: Array
    groups: NDArray[np.str_]
    sources: NDArray[np.str_]
    trained: TrainedRows

    def can_leave(self, left: tuple[str, ...], config: FitConfig) -> bool:
        """Whether sources have compositions that the others have not, and these enough outside of every fold."""
        inside = ~np.isin(self.sources, left)
        groups = self.groups[inside]
        if np.isin(self.groups[~inside], groups).all():
            return False
        folds = (group_folds(groups, n, config.seed) for n in (config.n_folds, N_FOLDS))
        return all(len(groups) - np.bincount(fold).max(initial=0) >= _FEWEST_ROWS for fold in folds)

    def without(self, left: tuple[str, ...], kinds: tuple[str, ...], config: FitConfig) -> _Trial:
        """Fit to all rows but those of sources; of these, rows whose composition is among the others are set aside."""
        inside = ~np.isin(self.sources, left)
        outside = ~inside & ~np.isin(self.groups, self.groups[inside])
        x, y, groups, sources = (
            self.design.x[inside],
            self.y[inside],
            self.groups[inside],
            self.sources[inside],
        )
        part, w = self.design.take(inside), source_weights(sources, config)
        trained = self.trained.without(left)
        every = cross_fit(
            x, y, w, groups, config, (trained.design.x, trained.groups) if len(trained) else None
        )
        crossed = rows_of(every, slice(len(y)))
        centre, expected = select_centre(y, crossed.mean, part.fractions, groups, config.seed, w)
        said = predict(fit_one(x, y, w, config).head, self.design.x[outside])
        of_training = trained.errors(rows_of(every, slice(len(y), None)), centre)
        seen, error = replace(scale_inputs(crossed, part), trained=of_training), y - expected
        new = scale_inputs(said, self.design.take(outside))
        asked = {kind: KINDS[kind].strengths[:1] for kind in kinds}
        folds = group_folds(groups, N_FOLDS, config.seed)
        inner = left_out_sigma(asked, seen, error, groups, w, config.seed, folds)
        return _Trial(
            error_in=error,
            source_in=sources,
            groups_in=groups,
            own_in=y,
            sigma_in={kind: sigma for (kind, _), sigma in inner.items()},
            error_out=self.y[outside] - centre.residual(said.mean, new.fractions),
            source_out=self.sources[outside],
            groups_out=self.groups[outside],
            own_out=self.y[outside],
            sigma_out={
                kind: fit_scale(
                    kind, seen, error, groups, config.seed, w, strength=KINDS[kind].strengths[0]
                ).sigma(new)
                for kind in kinds
            },
        )


def large_sources(sources: NDArray[np.str_]) -> tuple[str, ...]:
    """Sources of at least 100 of the rows (n,), the largest first."""
    names, counts = np.unique(sources, return_counts=True)
    order = np.lexsort((names, -counts))
    return tuple(str(names[k]) for k in order if counts[k] >= MINIMUM_SOURCE and names[k])


def study_sources(
    rows: FeatureRows, config: FitConfig, trained: TrainedRows, *, measure: bool = True
) -> SourceStudy:
    """Leave the sources of labels out in turn, and choose the scale that does best on them.

    Parameters
    ----------
    rows : FeatureRows
        Labelled rows that fit a head.
    config : FitConfig
        ``guarantee`` says what is promised.
    trained : TrainedRows
        Of the model's own training; rows of a source go with it.
    measure : bool
        Whether to say how bounds do on the sources left out, which takes a fit more for each pair of them.

    Returns
    -------
    SourceStudy
        Without ``choice`` where the promise is pooled: that kind is chosen on compositions left out.

    Notes
    -----
    For ``every-source`` kind and power γ of the scale are chosen by :func:`best_choice`, with the interval score (68,
    90 and 95 %) on the sources left out under the quantile of the worst of the others. What is reported for a source is
    nested: kind and γ are chosen by leaving out the others in turn, without it. Scores of the rows that calibrate come
    from a head and a scale that have not seen their compositions, as in a fit, but from one layer of folds (a fit has
    one per fold).
    """
    y, groups = residual_ev_per_atom(rows), rows.table[config.split_by].to_numpy(dtype=str)
    sources = rows.table["source"].fillna("").to_numpy(dtype=str)
    large = large_sources(sources)
    if len(large) < MINIMUM_SOURCES:
        said = f"{len(large)} of {MINIMUM_SOURCES} sources with {MINIMUM_SOURCE} labelled rows or more"
        return SourceStudy(POOLED, None, (), said if config.guarantee == EVERY_SOURCE else "")
    if config.guarantee == POOLED and not measure:
        return SourceStudy(POOLED, None, ())
    chosen = _sample(sources, groups, y, config.seed)
    labelled = _Labelled(
        head_inputs(rows, composition=config.composition).take(chosen),
        y[chosen],
        groups[chosen],
        sources[chosen],
        trained,
    )
    left = large[:_MOST_LEFT_OUT]
    smallest = len(labelled.y) - int(np.isin(labelled.sources, left[:2]).sum())
    of_training = np.sort([int((trained.sources == source).sum()) for source in left])[::-1]
    fewest = len(trained) - int(of_training[:2].sum())
    kinds = ("constant",) if config.scale == "constant" else kinds_for(smallest, fewest)
    left = tuple(source for source in left if labelled.can_leave((source,), config))
    if len(left) < 2:  # all of a few compositions: nothing can be told
        return SourceStudy(config.guarantee, None, ())
    trials = {source: labelled.without((source,), kinds, config) for source in left}
    if config.guarantee == POOLED:
        measured = (
            trial.measured(source, best_inside([trial], kinds), POOLED, config)
            for source, trial in trials.items()
            if trial.reaches(config)
        )
        return SourceStudy(POOLED, None, tuple(measured))
    pairs: dict[frozenset[str], _Trial] = {}
    out = []
    for source, trial in trials.items() if measure else ():
        inner = []
        for other in trials:
            pair = frozenset((source, other))
            if other == source or not labelled.can_leave(tuple(pair), config):
                continue
            if pair not in pairs:
                pairs[pair] = labelled.without(tuple(pair), kinds, config)
            inner.append(pairs[pair].only(other))
        if inner and trial.reaches(config):
            out.append(trial.measured(source, best_choice(inner, kinds), EVERY_SOURCE, config))
    return SourceStudy(EVERY_SOURCE, best_choice(list(trials.values()), kinds), tuple(out))


def best_choice(trials: Sequence[_Trial], kinds: tuple[str, ...]) -> ScaleChoice:
    """Kind and power of the scale, by what it does on sources left out.

    The kind that is best inside (:func:`best_inside`), to the power that is the safest where a source is new; another
    candidate only if its :meth:`_Trial.loss` is better by more than the standard error of the difference over the
    sources: three or four of them cannot tell candidates apart that are closer.
    """
    kind = best_inside(trials, kinds).kind
    first = ScaleChoice(kind, 1.0 if kind == "constant" else SAFEST)
    others = [
        ScaleChoice(kind, temper)
        for kind in kinds
        for temper in (TEMPERS if kind != "constant" else TEMPERS[:1])
    ]
    if len(trials) < 2:
        return first
    own, best, largest = np.array([trial.loss(first) for trial in trials]), first, 0.0
    for other in others:
        gain = own - np.array([trial.loss(other) for trial in trials])
        error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
        if gain.mean() > max(error, largest):
            best, largest = other, float(gain.mean())
    return best


def best_inside(trials: Sequence[_Trial], kinds: tuple[str, ...]) -> ScaleChoice:
    """The kind that explains the errors of compositions left out best, as :func:`select_scale` chooses."""
    surprise = [
        sum(
            float(laplace_loss(trial.error_in, trial.sigma_in[kind], np.ones(len(trial.error_in))).mean())
            for trial in trials
        )
        for kind in kinds
    ]
    return ScaleChoice(kinds[int(np.argmin(surprise))])


def _sample(sources: NDArray[np.str_], groups: NDArray[np.str_], y: Array, seed: int) -> NDArray[np.int64]:
    """Places of the rows that are used: of large sources as many as are enough, compositions by their hash."""
    order = hashed_order(groups, f"sources:{seed}", y)
    kept = [order[sources[order] == source][:_MOST_ROWS] for source in np.unique(sources)]
    return np.sort(np.concatenate(kept))


def _room(groups: NDArray[np.str_]) -> float:
    """Rows of a composition, for one of which room is kept (:func:`conformal_layer`)."""
    return len(groups) / max(len(np.unique(groups)), 1)


def _mev(value: float) -> float:
    return round(float(value) * MEV_PER_EV, 3)
