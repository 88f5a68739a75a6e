"""How a head is fitted and calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mace_bounds.errors import HeadError
from mace_bounds.head import POSTERIORS, PopsConfig
from mace_bounds.levels import LEVELS
from mace_bounds.settings import check_settings, setting
from mace_bounds.structures import TOTAL_ENERGY, parse_quantity, read_element_energies

GROUPS: dict[str, tuple[str, ...]] = {
    "none": (),
    "chemistry": ("chemistry",),
    "elements": ("element",),
    "all": ("chemistry", "element"),
}
"""Cells with quantiles of their own, by the name of the choice."""


@dataclass(frozen=True)
class FitConfig:
    """How a head is fitted and calibrated; the command line makes its options from the fields.

    Attributes
    ----------
    seed : int
        Of the splits and folds.
    fit_share, calibration_share : float
        Shares of the groups for POPS and scale, and for the conformal quantiles; the rest measures coverage. With
        cross-conformal calibration both do both.
    split_by : {"formula", "chemical_system"}
        Structures with the same value stay in one split.
    posterior : str
        The POPS posterior, a name in :data:`mace_bounds.head.POSTERIORS`.
    clip_percent : float
        Percentile clipped from each end of the POPS corrections.
    leverage_percentile : float
        Rows below it make no corrections.
    ellipsoid : bool
        Whether the POPS ellipsoid is fitted beside the posterior, for the scale to see its width: most of the time of
        a fit, for intervals that are 2 % sharper.
    composition : bool
        Whether atomic fractions join the feature columns.
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
    scale : {"best", "constant"}
        The kind of width that is best for compositions left out, or one width for all.
    groups : {"none", "chemistry", "elements", "all"}
        What gets quantiles of its own from 200 rows on: nothing, chemistry classes, elements, or both. (No size of the
        cell: the same crystal has the same bounds in all its cells.)
        A row of several gets the widest, so that what is promised holds for each, and more than that overall.
    guarantee : {"every-source", "pooled"}
        What is promised. ``every-source``: coverage in every source of labels by itself, and for a structure from
        elsewhere the widest of these bounds, with the scale that does best on sources left out; it takes
        three sources of 100 labelled rows, and without these it is ``pooled``: coverage over all that resembles the
        labels taken together, in the shares in which they come.
    quantity : str
        What the labels are. A head keeps it, bounds nothing else, and is refused for labels of another quantity.
    trained_on : str or None
        What the model was trained on, where it does not say so itself: formulas or structures
        (:func:`mace_bounds.structures.read_compositions`). Rows of these compositions are left out of the fit, and
        tables tell what is unseen. A head keeps the compositions.
    references : tuple of (str, float) or None
        Energies of elements, eV/atom, without corrections, beside those among the labels: with them more crystals have
        a hull, from which the head learns how probable it is to be stable.
    kept_rows : int
        Labelled rows of which the head keeps id, formula, features and error, so that ``explain`` can name the nearest
        ones; of more than these a sample. With 0 a head gives away nothing of its data but sums.
    """

    seed: int = setting(0, "Random seed for splits and folds.", minimum=0, maximum=2**32 - 1)
    fit_share: float = setting(
        0.6, "Fraction of groups that fit the head.", minimum=0.0, maximum=1.0, option="--fit-share"
    )
    calibration_share: float = setting(
        0.25,
        "Fraction of groups used for calibration (with --conformal cross they also fit).",
        minimum=0.0,
        maximum=1.0,
    )
    split_by: Literal["formula", "chemical_system"] = setting(
        "formula", "Keep all structures with the same value in one split."
    )
    posterior: str = setting("hypercube", "The POPS posterior.", choices=POSTERIORS)
    clip_percent: float = setting(
        0.5, "Percentile clipped from each end of the POPS corrections.", minimum=0.0, maximum=49.0
    )
    leverage_percentile: float = setting(
        50.0, "Rows of smaller leverage than this percentile make no corrections.", minimum=0.0, maximum=99.0
    )
    ellipsoid: bool = setting(
        True,
        "Fit the POPS ellipsoid too, for the scale to see its width: a bit sharper; most of the time of a POPS fit.",
    )
    composition: bool = setting(True, "Join atomic fractions to the features.")
    robust: bool = setting(True, "Down-weight outliers (Huber).")
    n_folds: int = setting(5, "Folds of compositions in cross-fitting.", minimum=2, maximum=50)
    levels: tuple[float, ...] = setting(LEVELS, "Nominal coverages.", option=False)
    balance: bool = setting(False, "Give every source the same total weight, whatever its size.")
    conformal: Literal["cross", "split"] = setting(
        "cross",
        "Calibrate by rows that folds leave out (every row fits and calibrates), or by rows set apart.",
    )
    signed: bool = setting(
        False, "Calibrate the lower and upper bounds separately; needs twice as many rows."
    )
    scale: Literal["best", "constant"] = setting(
        "best", "Widths of the kind that is best for compositions left out, or one width for all."
    )
    groups: Literal["none", "chemistry", "elements", "all"] = setting(
        "none", "Calibrate each group with at least 200 rows separately; bounds get wider."
    )
    guarantee: Literal["every-source", "pooled"] = setting(
        "every-source",
        "Promise coverage in each source of labels, with the widest of these bounds for structures from elsewhere "
        "(needs 3 sources of 100 rows or more), or over all sources together.",
    )
    kept_rows: int = setting(
        3000,
        "Labelled rows (id, formula, error) that the head keeps for explain.",
        minimum=0,
        maximum=100_000,
    )
    quantity: str = setting(
        TOTAL_ENERGY,
        "What the labels are, in words; a head is used for labels of its own quantity only.",
        metavar="TEXT",
        parser=parse_quantity,
    )
    trained_on: str | None = setting(
        None,
        "What the model was trained on: formulas (.txt, one a line; .csv with a column formula) or structures.",
        metavar="FILE",
        shown="what the model says",
    )
    references: tuple[tuple[str, float], ...] | None = setting(
        None,
        "JSON of energies of elements, eV/atom, uncorrected PBE(+U): complete the hulls that P(stable) is learnt from.",
        metavar="FILE",
        parser=read_element_energies,
        shown="lowest labels",
    )

    def __post_init__(self) -> None:
        check_settings(self, HeadError)
        try:
            object.__setattr__(self, "quantity", parse_quantity(self.quantity))
        except ValueError as error:
            raise HeadError(str(error)) from None

    def pops(self) -> PopsConfig:
        """Return the settings of the POPS fit."""
        values = {name: getattr(self, name) for name in ("posterior", "clip_percent", "leverage_percentile")}
        return PopsConfig(**values, also=("ellipsoid",) if self.ellipsoid else ())
