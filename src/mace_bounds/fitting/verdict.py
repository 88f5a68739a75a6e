"""Whether a head is worth having: its intervals beside one interval of constant width, split by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import FitConfig, conformal_quantile
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.levels import TOLERANCE, percent
from mace_bounds.metrics import interval_score

if TYPE_CHECKING:
    from mace_bounds.fitting.measured import Measured

LEVEL = 0.95
_MOST = 10
"""A gain that only this many times the labels could tell from chance is none worth waiting for."""
_DIGITS = 4

Says = Literal["useful", "no better than a constant", "too few labels"]


@dataclass(frozen=True)
class SplitScores:
    """The two kinds of intervals on the test rows of one split; widths and scores in meV/atom."""

    level: float
    mae: float  # of the model itself
    width: float  # median of the head's intervals
    constant_width: float
    score: float  # mean interval score, lower is better
    constant_score: float
    gain_error: float  # standard error of constant_score - score, clustered by composition
    n_calibration: int  # compositions that fit and calibrate
    compositions: frozenset[str]  # that measure

    @property
    def gain(self) -> float:
        """By how much the head's score is better than the constant's."""
        return self.constant_score - self.score


def split_scores(rows: Measured, others: NDArray[np.float64], n_calibration: int) -> SplitScores:
    """Measure a head and a constant width on the same rows.

    Parameters
    ----------
    rows : Measured
        Test rows of the split, with the head's bounds; the highest of the head's levels up to 95 % is taken.
    others : ndarray, shape (n,)
        E_DFT - E_model of the rows that made the head, eV/atom. The constant interval is their median plus and minus
        the conformal quantile of the distances from it.
    n_calibration : int
        Different compositions among the others.
    """
    level = max((x for x in rows.levels if x <= LEVEL + TOLERANCE), default=rows.levels[0])
    low, high = rows.bounds_at(level)
    middle = float(np.median(others))
    half = conformal_quantile(np.abs(others - middle), level)
    own = interval_score(rows.error, low, high, level) * MEV_PER_EV
    ends = np.full(len(rows), middle - half), np.full(len(rows), middle + half)
    constant = interval_score(rows.error, *ends, level) * MEV_PER_EV
    gain = constant - own
    by_composition = np.bincount(rows.clusters, weights=gain - gain.mean())
    return SplitScores(
        level=level,
        mae=float(np.abs(rows.error).mean()) * MEV_PER_EV,
        width=float(np.median(high - low)) * MEV_PER_EV,
        constant_width=2 * half * MEV_PER_EV,
        score=float(own.mean()),
        constant_score=float(constant.mean()),
        gain_error=float(np.sqrt(np.sum(by_composition**2))) / len(rows),
        n_calibration=n_calibration,
        compositions=frozenset(rows.table["formula"]),
    )


@dataclass(frozen=True)
class Verdict:
    """Whether a head is worth having.

    Attributes
    ----------
    says : {"useful", "no better than a constant", "too few labels"}
        Useful only where the head's interval score is better than that of one constant width by more than the spread
        of the difference.
    level : float
        Level of the widths and scores: 95 %, or the highest that the head has.
    n_splits, n_compositions : int
        Splits, and different compositions that measured in any of them.
    model_mae_mev_per_atom : float
        Mean absolute error of the model itself on the measured structures.
    width_mev_per_atom, constant_width_mev_per_atom : float
        Median width of the head's intervals; the constant width.
    score_mev_per_atom, constant_score_mev_per_atom : float
        Mean interval scores; lower is better.
    width_spread_mev_per_atom, score_spread_mev_per_atom : float
        Their standard deviations over the splits; 0 for one split.
    gain_mev_per_atom, gain_spread_mev_per_atom : float
        Constant score less score, and what it has to exceed: the larger of its standard deviation over the splits and
        its standard error within them, clustered by composition.
    more_compositions : int
        About how many more labelled compositions it takes to tell; 0 where it can be told.
    """

    says: Says
    level: float
    n_splits: int
    n_compositions: int
    model_mae_mev_per_atom: float
    width_mev_per_atom: float
    width_spread_mev_per_atom: float
    constant_width_mev_per_atom: float
    score_mev_per_atom: float
    score_spread_mev_per_atom: float
    constant_score_mev_per_atom: float
    gain_mev_per_atom: float
    gain_spread_mev_per_atom: float
    more_compositions: int

    @classmethod
    def of(cls, splits: Sequence[SplitScores], config: FitConfig) -> Verdict:
        """Judge the splits of a fit; see :func:`missing_compositions` for what is too few."""

        def mean(name: str) -> float:
            return round(float(np.mean([getattr(split, name) for split in splits])), _DIGITS)

        def spread(name: str) -> float:
            values = [getattr(split, name) for split in splits]
            return round(float(np.std(values, ddof=1)), _DIGITS) if len(values) > 1 else 0.0

        gain, gain_spread = mean("gain"), max(spread("gain"), mean("gain_error"))
        more = missing_compositions(splits, gain, gain_spread, config)
        says: Says = "too few labels" if more else "no better than a constant"
        if not more and gain > gain_spread:
            says = "useful"
        return cls(
            says=says,
            level=splits[0].level,
            n_splits=len(splits),
            n_compositions=len(frozenset[str]().union(*(split.compositions for split in splits))),
            model_mae_mev_per_atom=mean("mae"),
            width_mev_per_atom=mean("width"),
            width_spread_mev_per_atom=spread("width"),
            constant_width_mev_per_atom=mean("constant_width"),
            score_mev_per_atom=mean("score"),
            score_spread_mev_per_atom=spread("score"),
            constant_score_mev_per_atom=mean("constant_score"),
            gain_mev_per_atom=gain,
            gain_spread_mev_per_atom=gain_spread,
            more_compositions=more,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``Verdict(**values)`` makes it again."""
        return asdict(self)

    @property
    def numbers(self) -> str:
        """What was measured, in two sentences."""

        def value(name: str) -> str:
            spread = getattr(self, f"{name}_spread_mev_per_atom")
            around = f" ± {spread:.0f}" if self.n_splits > 1 else ""
            return f"{getattr(self, f'{name}_mev_per_atom'):.0f}{around}"

        over = f", ± over {self.n_splits} splits" if self.n_splits > 1 else ""
        return (
            f"The model's own mean absolute error is {self.model_mae_mev_per_atom:.0f} meV/atom. At "
            f"{percent(self.level)} % the head's intervals have a median width of {value('width')} meV/atom and an "
            f"interval score of {value('score')} (lower is better{over}), against one constant width of "
            f"{self.constant_width_mev_per_atom:.0f} and {self.constant_score_mev_per_atom:.0f}: "
            f"{'better' if self.gain_mev_per_atom > 0 else 'worse'} by {abs(self.gain_mev_per_atom):.0f} ± "
            f"{self.gain_spread_mev_per_atom:.0f}."
        )

    @property
    def sentence(self) -> str:
        """The verdict."""
        if self.says == "useful":
            return "Verdict: useful, better than one constant width by more than the spread."
        if self.says == "no better than a constant":
            return (
                f"Verdict: no better than a constant, {self.constant_width_mev_per_atom:.0f} meV/atom wide for all "
                "structures."
            )
        few = (
            f"Verdict: too few labels to tell; about {self.more_compositions:,} more compositions are needed"
        )
        return few + ("." if self.n_splits > 1 else ", or more splits (--repeats 5).")


def missing_compositions(splits: Sequence[SplitScores], gain: float, spread: float, config: FitConfig) -> int:
    """About how many labelled compositions a verdict lacks; 0 where it can be told.

    Three numbers decide, and the largest is taken:

    - the 95 % level takes 19 compositions that calibrate, ⌈α n⌉ being at least one with α = 0.05 (twice as many for
      lower and upper bounds of their own);
    - 20 that measure, 1 / α, below which less than one structure is expected outside, so that the score is a width;
    - where the gain is positive and within its spread: spread and number go together as s ∝ 1 / √n, so that
      n ((s / gain)² - 1) more let the same gain be told from chance. Where that is more than ten times what is there,
      the head is no better.
    """
    alpha = 1 - LEVEL
    measuring = max(1 - config.fit_share - config.calibration_share, 0.01)
    calibrating = config.calibration_share if config.conformal == "split" else 1 - measuring
    measured = frozenset[str]().union(*(split.compositions for split in splits))
    n_all = splits[0].n_calibration + len(splits[0].compositions)
    level_takes = ceil(LEVEL / alpha - TOLERANCE) * (2 if config.signed else 1)
    missing = [(ceil(1 / alpha - TOLERANCE) - len(measured)) / measuring]
    if splits[0].level < LEVEL - TOLERANCE and LEVEL in config.levels:
        missing.append(max(level_takes / max(calibrating, 0.01) - n_all, 1))
    if 0 < gain <= spread:
        more = n_all * ((spread / gain) ** 2 - 1)
        missing.append(max(more, 1) if more <= (_MOST - 1) * n_all else 0)
    return max(0, ceil(max(missing)))
