"""Bounds of labelled rows by heads that have not seen their compositions, when a source fits its own head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.bounds import detailed_table
from mace_bounds.calibration import CalibratedHead, fit_head, group_folds
from mace_bounds.errors import HeadError
from mace_bounds.fitting.kept_heads import clear_away, inputs_digest, kept_head
from mace_bounds.levels import Levels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import FitConfig
    from mace_bounds.features import FeatureRows, Manifest

N_FOLDS, FULL = 5, "full"
_OUTEST = 104_729  # these folds are other than those inside of the heads


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A head of all labelled rows, and one for each fold of compositions that leaves it out.

    Attributes
    ----------
    full : CalibratedHead
        Bounds rows without a label.
    heads : tuple of CalibratedHead
        The k-th has seen no composition of fold k, neither in fit, scale nor calibration.
    seed : int
        Of the folds.
    split_by : {"formula", "chemical_system"}
        What never straddles two folds.
    """

    full: CalibratedHead
    heads: tuple[CalibratedHead, ...]
    seed: int
    split_by: str

    def folds(self, rows: FeatureRows) -> NDArray[np.int64]:
        """Fold of each labelled row, shape (n,); -1 for rows without label, which the full head bounds."""
        groups = rows.table[self.split_by].fillna("").to_numpy(dtype=str)
        labelled = (rows.table["reason"].isna() & rows.table["energy_ev"].notna()).to_numpy()
        return np.where(labelled, group_folds(groups, len(self.heads), self.seed), -1)

    def detailed_table(
        self, rows: FeatureRows, level: float, training_keys: NDArray[np.uint64] | None
    ) -> pd.DataFrame:
        """:func:`mace_bounds.fitting.measured.detailed_table`, each row by the head that may speak of it."""
        import pandas as pd

        folds = self.folds(rows)
        parts = [
            detailed_table(
                rows.take(chosen), self.full if fold < 0 else self.heads[fold], level, training_keys
            )
            for fold in np.unique(folds)
            if len(chosen := np.flatnonzero(folds == fold))
        ]
        order = np.argsort(folds, kind="stable")
        joined = pd.concat(parts, ignore_index=True)
        return joined.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def cross_fitted(
    rows: FeatureRows,
    manifest: Manifest,
    config: FitConfig,
    *,
    n_folds: int = N_FOLDS,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CrossFit:
    """Fit a head to labelled rows so that each of them can be bounded without having been seen.

    Parameters
    ----------
    rows : FeatureRows
        Rows of a feature store; those without label take no part.
    manifest : Manifest
        What the features were made with.
    config : FitConfig
        Settings of every head; its shares are not used: all labelled rows fit and calibrate (CV+).
    n_folds : int
        Folds of compositions.
    folder : Path, optional
        Where each head is kept as it is made, in ``full`` and ``fold-1`` and so on, and taken from if it is there;
        ``provenance`` is then an audit's.
    provenance : dict, optional
        Plain values to keep in the heads.
    progress : callable, optional
        Called with (heads fitted, heads in all).

    Returns
    -------
    CrossFit
        All heads have the levels for which each has enough compositions.

    Raises
    ------
    HeadError
        If there are too few labelled rows.
    """
    config = replace(config, fit_share=1.0, calibration_share=0.0, conformal="cross")
    labelled = rows.labelled()
    groups = labelled.table[config.split_by].to_numpy(dtype=str)
    seed = config.seed + _OUTEST
    folds = group_folds(groups, n_folds, seed)

    def fit(fold: int) -> CalibratedHead:
        return fit_head(labelled.take(folds != fold), manifest, config, provenance=provenance).head

    keep = (
        None if folder is None else _Kept(folder, inputs_digest(labelled, manifest, config, about=provenance))
    )
    heads = []
    for fold in range(-1, n_folds):  # -1 is no fold: the head of all rows comes first, and fails first
        heads.append(fit(fold) if keep is None else keep.head(fold, n_folds, fit))
        if progress is not None:
            progress(fold + 2, n_folds + 1)
    common = [level for level in heads[0].levels if all(level in head.levels for head in heads)]
    if not common:
        raise HeadError(
            f"expected enough compositions to calibrate a level without a fold, got {len(labelled.table)} rows of "
            f"{len(set(groups))}; give more labelled structures."
        )
    full, *others = (_with_levels(head, common) for head in heads)
    return CrossFit(full, tuple(others), seed, config.split_by)


class _Kept:
    """The folder of the heads of one cross-fit."""

    def __init__(self, folder: Path, inputs_sha256: str) -> None:
        self._folder, self._inputs = folder, inputs_sha256
        clear_away(folder)

    def head(self, fold: int, n_folds: int, fit: Callable[[int], CalibratedHead]) -> CalibratedHead:
        """The head without a fold, or of all rows for -1."""
        name, labels = FULL, "all labels of its source"
        if fold >= 0:
            name = f"fold-{fold + 1}"
            labels = f"the labels of its source outside fold {fold + 1} of {n_folds} folds of compositions"
        made_of = {"inputs_sha256": self._inputs, "fold": f"{name} of {n_folds}"}
        return kept_head(self._folder / name, made_of, labels, lambda: fit(fold))


def _with_levels(head: CalibratedHead, levels: list[float]) -> CalibratedHead:
    return replace(head, conformal=replace(head.conformal, levels=Levels.of(levels)))
