"""How a head is fitted and calibrated."""

from __future__ import annotations

from dataclasses import dataclass

from mace_bounds.calibration.conformal import LEVELS
from mace_bounds.errors import HeadError
from mace_bounds.head import PopsConfig

CONFORMAL = ("cross", "split")
GROUPS: dict[str, tuple[str, ...]] = {
    "none": (),
    "chemistry": ("chemistry",),
    "elements": ("element",),
    "all": ("chemistry", "element", "size"),
}
"""Cells with quantiles of their own, by the name of the choice."""


@dataclass(frozen=True)
class FitConfig:
    """How a head is fitted and calibrated.

    Attributes
    ----------
    fit_share, calibration_share : float
        Shares of the groups for POPS and scale, and for the conformal quantiles; the rest measures coverage. With
        cross-conformal calibration both do both.
    seed : int
        Of the splits and folds.
    split_by : {"formula", "chemical_system"}
        What never straddles two splits.
    composition : bool
        Whether atomic fractions join the feature columns.
    posterior : {"hypercube", "ensemble", "ellipsoid"}
        The POPS posterior.
    clip_percent : float
        Tail of the corrections outside the hypercube, per cent on each side.
    leverage_percentile : float
        Rows below it make no corrections.
    robust : bool
        Huber weights against heavy tails.
    n_folds : int
        Of the cross-fit, and of cross-conformal calibration.
    levels : tuple of float
        Nominal coverages.
    balance : bool
        Give every source the same total weight, so that the largest does not decide for all.
    conformal : {"cross", "split"}
        Scores of folds of compositions, each left out by a head of its own (CV+: every row fits and calibrates; at
        least 1 - 2 (1 - level) is guaranteed, about the level is found), or of the calibration rows (at least the
        level is guaranteed). ``cross`` takes ``n_folds`` times as long to fit and to predict.
    signed : bool
        Lower and upper bounds from quantiles of their own; a level then needs twice the compositions.
    groups : {"none", "chemistry", "elements", "all"}
        What gets quantiles of its own from 200 rows on: nothing, chemistry classes, elements, or these and size bins.
        A row of several gets the widest, so that what is promised holds for each, and more than that overall.
    """

    fit_share: float = 0.6
    calibration_share: float = 0.25
    seed: int = 0
    split_by: str = "formula"
    composition: bool = True
    posterior: str = "hypercube"
    clip_percent: float = 0.5
    leverage_percentile: float = 50.0
    robust: bool = True
    n_folds: int = 5
    levels: tuple[float, ...] = LEVELS
    balance: bool = False
    conformal: str = "cross"
    signed: bool = False
    groups: str = "none"

    def __post_init__(self) -> None:
        for name, known in (("conformal", CONFORMAL), ("groups", tuple(GROUPS))):
            if getattr(self, name) not in known:
                raise HeadError(
                    f"expected {name} among {', '.join(known)}, got {getattr(self, name)}; choose one."
                )

    def pops(self) -> PopsConfig:
        """Return the settings of the POPS fit: the ellipsoid is fitted in any case, for the scale to see its width."""
        values = {name: getattr(self, name) for name in ("posterior", "clip_percent", "leverage_percentile")}
        return PopsConfig.from_dict({**values, "ellipsoid": True})
