"""A few labels of one's own, and a head that is there: the head shifted and scaled, and what was gained."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones import Backbone
from mace_bounds.bounds import Energies, load_head, read_card
from mace_bounds.calibration import (
    Adjustment,
    CalibratedHead,
    KeptRows,
    NewLabels,
    energy_over_fixed,
    fingerprint,
    fit_adjustment,
    head_inputs,
    left_out_adjustments,
    residual_ev_per_atom,
)
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, FeatureStore, checked_labels, label_summary
from mace_bounds.fitting.card import gain_sentence, recalibrated_card
from mace_bounds.fitting.measured import overall
from mace_bounds.fitting.own_labels import CalibrateConfig, new_to_the_head, read_labels
from mace_bounds.fitting.run import CardNotes
from mace_bounds.head import check_head_target
from mace_bounds.levels import TOLERANCE, Levels
from mace_bounds.metrics import coverage_table, interval_score
from mace_bounds.structures import Source, composition_keys, compositions_in
from mace_bounds.versions import versions

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
LABELS = "labels"
"""Name of the rows in the tables of coverage."""

_OF_THE_OLD_BOUNDS = ("metrics", "verdict", "sources_left_out", "flagged")

Says = Literal["better", "wider", "no better than before"]


@dataclass(frozen=True)
class Gain:
    """What labels have gained, measured on each by a head that was changed without its composition.

    Attributes
    ----------
    says : {"better", "wider", "no better than before"}
        Better only where the interval score at ``level`` falls by more than its standard error; wider where that cannot
        be told, and the old bounds held too rarely.
    level : float
        95 %, or the highest level of the head.
    gain_mev_per_atom, error_mev_per_atom : float
        By how much the score falls, and the standard error of that, clustered by composition.
    """

    says: Says
    level: float
    gain_mev_per_atom: float
    error_mev_per_atom: float


@dataclass(frozen=True, eq=False)
class CalibrateReport:
    """A head after labels of one's own, and what they gained.

    Attributes
    ----------
    head : CalibratedHead
        The new head.
    change : Adjustment
        What was changed: nothing where all that the labels show is within chance, so that the old bounds are kept.
    before, after : DataFrame
        Coverage of the labels at every level (:func:`mace_bounds.metrics.coverage_table`) by the old head, and by heads
        changed without the composition of the label.
    gain : Gain
    left_out : dict of str to int
        Rows left out, by reason.
    labels : dict
        Labels taken and refused (:func:`mace_bounds.features.label_summary`).
    folder : Path or None
        Where it was written.
    """

    head: CalibratedHead
    change: Adjustment
    before: pd.DataFrame
    after: pd.DataFrame
    gain: Gain
    left_out: dict[str, int]
    labels: dict[str, Any]
    folder: Path | None = None

    def save(
        self, folder: str | Path, notes: CardNotes = CardNotes(), *, overwrite: bool = False
    ) -> CalibrateReport:
        """Write the head and its card into a folder.

        Parameters
        ----------
        folder : path
            Of this head alone.
        notes : CardNotes
            Of the labels; kept in the head's provenance and printed on its card.
        overwrite : bool
            Replace a head that is already there.

        Raises
        ------
        HeadError
            If the folder may not be written.
        """
        about = dict(self.head.provenance)
        about["recalibrated"] = {**about["recalibrated"], **_told(notes)}
        head = replace(self.head, provenance=about)
        written = head.save(folder, recalibrated_card(Path(folder).name, head), overwrite=overwrite)
        head = replace(head, name=written.resolve().name, digest=read_card(written).digest)
        return replace(self, head=head, folder=written)

    @property
    def sentence(self) -> str:
        """What was gained."""
        return gain_sentence(self.head.provenance["recalibrated"])

    def __repr__(self) -> str:
        where = str(self.folder) if self.folder else None
        return f"CalibrateReport({self.head!r}, {self.gain.says}, folder={where!r})"


def _told(notes: CardNotes) -> dict[str, str]:
    return {name: value for name, value in asdict(notes).items() if value}


def calibrate(
    head: str | Path | CalibratedHead,
    labels: Source | FeatureStore,
    folder: str | Path | None = None,
    config: CalibrateConfig = CalibrateConfig(),
    *,
    model: str | Path | Backbone | None = None,
    energies: Energies | None = None,
) -> CalibrateReport:
    """Shift and scale a head by 20 to 60 labels of one's own, and measure what that gains.

    Parameters
    ----------
    head : str, path or CalibratedHead
        The name of an installed head, a head folder, or a loaded head.
    labels : path, str, object, iterable or FeatureStore
        Labelled structures, or a finished feature store.
    folder : path, optional
        Where the new head goes; None only returns it, and :meth:`CalibrateReport.save` writes it.
    config : CalibrateConfig
        How labels are read.
    model : str, path or Backbone, optional
        As in :class:`mace_bounds.BoundsPredictor`; for a feature store, where the compositions of the model's training
        are looked up.
    energies : array, mapping, callable or ASE calculator, optional
        For a head of published energies and structures, in place of a table; see
        :meth:`mace_bounds.BoundsPredictor.predict`.

    Returns
    -------
    CalibrateReport

    Raises
    ------
    HeadError
        If the head does not fit the model or the store, there are too few labels that are new to it, or ``folder`` may
        not be written.
    LabelError
        If the labels are the model's own energies, or another quantity than the head bounds.
    """
    if folder is not None:
        check_head_target(folder)
    old = head if isinstance(head, CalibratedHead) else load_head(head)
    rows, keys = read_labels(old, labels, config, model, energies)
    report = recalibrated(old, rows, keys, config)
    return report if folder is None else report.save(folder)


def calibrated_before(folder: Path, report: CalibrateReport, notes: CardNotes) -> CalibrateReport | None:
    """The report with the head of a folder, if it is what :meth:`CalibrateReport.save` would write; else None."""
    with suppress(HeadError):
        head = load_head(folder)
        made = {**report.head.provenance["recalibrated"], **_told(notes)}
        if head.provenance.get("recalibrated") == made:
            return replace(report, head=head, folder=folder)
    return None


def recalibrated(
    old: CalibratedHead, rows: FeatureRows, keys: NDArray[np.uint64] | None, config: CalibrateConfig
) -> CalibrateReport:
    """:func:`calibrate` for rows of features, the compositions of the model's training being known or None."""
    rows = checked_labels(rows, config.known.quantity, old.identity.quantity)
    used, left_out = new_to_the_head(old, rows, keys, config)
    formulas = used.table["formula"].to_numpy(dtype=str)
    new = NewLabels.of(old.intervals(used), residual_ev_per_atom(used), formulas)
    change = fit_adjustment(new, old.conformal)
    shift, factor = left_out_adjustments(new, old.conformal)
    before, after = (_Measured.of(new, old, *tried) for tried in ((0.0, 1.0), (shift, factor)))
    gain = before.against(after, change)
    head = replace(
        change.apply(old),
        energy_range_ev_per_atom=_range(old, used),
        calibration_compositions=np.union1d(
            old.calibration_compositions, composition_keys(formulas.tolist())
        ),
        training_compositions=keys,
    )
    if head.kept_rows is not None and config.known.kept_rows:
        head = replace(head, kept_rows=_with_labels(head.kept_rows, used, new, old, (shift, factor), config))
    labels = label_summary(rows.scored().table)
    about = {
        **{name: value for name, value in old.provenance.items() if name not in _OF_THE_OLD_BOUNDS},
        "levels": list(old.levels),
        "coverage": overall(after.coverage, LABELS),
        "coverage_over_splits": [],
        "rows": {**_parent_rows(old), "test": len(formulas)},
        "includes_training": bool(old.provenance.get("includes_training"))
        or (config.include_training and keys is not None),
        "test_rows_in_training": int(compositions_in(formulas.tolist(), keys).sum()),
        "training_compositions_known": keys is not None,
        "n_training_compositions": 0 if keys is None else len(keys),
        "recalibrated": {
            "parent": {"name": old.name, "digest": old.digest},
            "labels": labels,
            "sources": {str(k): int(v) for k, v in used.table["source"].value_counts().head(20).items()},
            "n_labels": len(formulas),
            "n_compositions": new.n_compositions,
            "left_out": left_out,
            "data_sha256": fingerprint(used),
            "change": asdict(change),
            "gain": asdict(gain),
            "before": overall(before.coverage, LABELS),
            "after": overall(after.coverage, LABELS),
            "versions": versions(),
        },
    }
    return CalibrateReport(
        replace(head, provenance=about, name="in memory", digest=""),
        change,
        before.coverage,
        after.coverage,
        gain,
        left_out,
        labels,
    )


def _with_labels(
    kept: KeptRows,
    rows: FeatureRows,
    new: NewLabels,
    old: CalibratedHead,
    left_out: tuple[NDArray[np.float64], NDArray[np.float64]],
    config: CalibrateConfig,
) -> KeptRows:
    """The rows that a head keeps and the labels, with what heads that were changed without them say of them."""
    shift, factor = left_out
    centre, sigma = new.fold_centre + shift, new.fold_sigma * factor
    covered = old.conformal.min_covering_level(centre, sigma, new.groups, new.error)
    few = np.arange(len(new.error)) < config.known.kept_rows
    return kept.and_rows(
        [rows.table[name].to_numpy(dtype=str)[few].tolist() for name in ("id", "formula")],
        head_inputs(rows, composition=old.identity.composition).features[few],
        {
            "error_ev_per_atom": new.error[few],
            "sigma_ev_per_atom": sigma.mean(axis=0)[few],
            "covered_above_level": covered[few],
        },
    )


def _parent_rows(old: CalibratedHead) -> dict[str, int]:
    return {name: int(n) for name, n in old.provenance.get("rows", {}).items() if name != "test"}


def _range(old: CalibratedHead, rows: FeatureRows) -> tuple[float, float]:
    energies = energy_over_fixed(rows)
    low, high = old.energy_range_ev_per_atom
    return min(low, float(energies.min())), max(high, float(energies.max()))


@dataclass(frozen=True, eq=False)
class _Measured:
    """Labels beside bounds, eV/atom."""

    new: NewLabels
    levels: Levels
    lower: NDArray[np.float64]  # shape (n, n_levels)
    upper: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        new: NewLabels,
        head: CalibratedHead,
        shift: NDArray[np.float64] | float,
        factor: NDArray[np.float64] | float,
    ) -> _Measured:
        pairs = [new.bounds(head.conformal, level, shift, factor) for level in head.levels]
        lower, upper = (np.column_stack(side) for side in zip(*pairs, strict=True))
        return cls(new, head.levels, lower, upper)

    @property
    def coverage(self) -> pd.DataFrame:
        table = coverage_table(
            self.new.error, self.lower, self.upper, self.levels.values, clusters=self.new.compositions
        )
        table.insert(0, "rows", LABELS)
        return table

    def against(self, after: _Measured, change: Adjustment) -> Gain:
        level = max((x for x in self.levels if x <= LEVEL + TOLERANCE), default=self.levels[0])
        k = self.levels.index(level)
        scores = [
            interval_score(self.new.error, part.lower[:, k], part.upper[:, k], level)
            for part in (self, after)
        ]
        gain = (scores[0] - scores[1]) * MEV_PER_EV
        by_composition = np.bincount(self.new.compositions, weights=gain - gain.mean())
        error = float(np.sqrt(np.sum(by_composition**2))) / len(gain)
        mean = float(gain.mean())
        says: Says = "wider" if change.factor > 1 else "no better than before"
        if change.changes and mean > error:
            says = "better"
        return Gain(says, level, round(mean, 4), round(error, 4))
