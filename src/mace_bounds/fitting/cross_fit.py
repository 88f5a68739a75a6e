"""Cross-fitting: every labelled row is bounded by a head that has not seen its composition."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds import detailed_table
from mace_bounds.calibration import CalibratedHead, FitConfig, fit_head, group_folds, load_head
from mace_bounds.errors import HeadError, LabelError
from mace_bounds.features import (
    FeatureRows,
    FeatureStore,
    Manifest,
    Refused,
    checked_labels,
    refused_labels,
    without_refused,
)
from mace_bounds.fitting.card import unmeasured_card
from mace_bounds.fitting.predictions import PredictionTable, check_predictions, with_predictions
from mace_bounds.fitting.run import CardNotes, about_data
from mace_bounds.levels import Levels
from mace_bounds.structures import read_compositions

if TYPE_CHECKING:
    import pandas as pd

    Fit = Callable[[int], CalibratedHead]

N_FOLDS, FULL = 5, "full"
_SEED_OFFSET = 104_729
"""These folds must be other folds than those inside of the heads, which come from the same seed."""

_DECIDING = (
    "id",
    "formula",
    "chemical_system",
    "source",
    "n_atoms",
    "structure_hash",
    "energy_ev",
    "energy_model_ev",
)
"""Columns of the rows that a head depends on."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A head of all labelled rows, and one for each fold of compositions that leaves the fold out.

    Attributes
    ----------
    full : CalibratedHead
        Bounds rows without a label.
    heads : tuple of CalibratedHead
        The k-th has seen no composition of fold k, neither in fit, scale nor calibration.
    seed : int
        Of the folds.
    split_by : {"formula", "chemical_system"}
        Rows with the same value are in one fold.
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
        self, rows: FeatureRows, level: float, training_keys: NDArray[np.uint64] | None = None
    ) -> pd.DataFrame:
        """:func:`mace_bounds.bounds.detailed_table`, each row by the head that has not seen it.

        Parameters
        ----------
        rows : FeatureRows
            Of the store that the heads were fitted to, all or some.
        level : float
            One of ``full.levels``.
        training_keys : ndarray of uint64, optional
            Compositions of the model's training, where known.

        Returns
        -------
        DataFrame
            In the order of the rows.
        """
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
    """Fit heads to labelled rows so that each row can be bounded without having been seen.

    Parameters
    ----------
    rows : FeatureRows
        Rows of a feature store; those without label take no part.
    manifest : Manifest
        What the features were made with.
    config : FitConfig
        Settings of every head. No row is kept apart to measure coverage, as the outer folds do that: with
        ``conformal="cross"`` all rows fit and calibrate, with ``"split"`` the two shares are scaled to sum to 1.
    n_folds : int
        Folds of compositions.
    folder : Path, optional
        Where each head is kept as it is made, in ``full``, ``fold-1`` and so on, and taken from if it is there;
        ``provenance`` is then that of :func:`cross_fit_store`.
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
    config = _without_test_split(config)
    labelled = rows.labelled()
    groups = labelled.table[config.split_by].to_numpy(dtype=str)
    seed = config.seed + _SEED_OFFSET
    folds = group_folds(groups, n_folds, seed)

    keys = None if config.trained_on is None else read_compositions(config.trained_on)

    def fitted(fold: int) -> CalibratedHead:
        part, whole = labelled.take(folds != fold), fold < 0
        head = fit_head(part, manifest, config, provenance=provenance, measure_sources=whole).head
        return replace(head, training_compositions=keys)

    fit: Fit = fitted
    if folder is not None:
        fit = _cached(fitted, folder, inputs_digest(labelled, manifest, config, about=provenance), n_folds)
    heads = []
    for fold in range(-1, n_folds):  # -1 is no fold: the head of all rows comes first, and fails first
        heads.append(fit(fold))
        if progress is not None:
            progress(fold + 2, n_folds + 1)
    common = Levels(tuple(x for x in heads[0].levels if all(x in head.levels for head in heads)))
    if not len(common):
        raise HeadError(
            f"{len(labelled.table)} labelled rows of {len(set(groups))} compositions are too few to calibrate any "
            "level without one of the folds; give more labelled structures."
        )
    full, *others = (replace(h, conformal=replace(h.conformal, levels=common)) for h in heads)
    return CrossFit(full, tuple(others), seed, config.split_by)


def _without_test_split(config: FitConfig) -> FitConfig:
    """The same settings with shares that leave no row apart."""
    if config.conformal == "cross":
        return replace(config, fit_share=1.0, calibration_share=0.0)
    share = config.fit_share / (config.fit_share + config.calibration_share)
    return replace(config, fit_share=share, calibration_share=1.0 - share)


@dataclass(frozen=True, eq=False)
class CrossFittedHeads:
    """Heads fitted to a source's own labels, and the rows that they bound.

    Attributes
    ----------
    heads : CrossFit
    store : FeatureStore
    energies : Series or None
        Published energies by id.
    training_keys : ndarray of uint64 or None
        Compositions from the training of the model whose energies are bounded, where known.
    about : dict
        What a summary says of the published energies; empty without any.
    refused : dict
        Sources whose labels are refused (:func:`mace_bounds.features.refused_labels`).
    """

    heads: CrossFit
    store: FeatureStore
    energies: pd.Series[float] | None
    training_keys: NDArray[np.uint64] | None
    about: dict[str, Any]
    refused: Refused

    def cross_fitted_rows(self) -> Iterator[FeatureRows]:
        """Rows of the store, shard by shard, with the energies that are bounded."""
        for every in self.store.rows():
            rows = without_refused(every, self.refused)
            yield rows if self.energies is None else with_predictions(rows, self.energies)

    def tables(self, level: float) -> Iterator[pd.DataFrame]:
        """Detailed bounds, shard by shard."""
        for rows in self.cross_fitted_rows():
            yield self.heads.detailed_table(rows, level, self.training_keys)


def cross_fit_store(
    store: FeatureStore,
    config: FitConfig,
    *,
    published: PredictionTable | None = None,
    training_keys: NDArray[np.uint64] | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CrossFittedHeads:
    """Cross-fit heads to the labels of a finished store, whatever backbone made it.

    Parameters
    ----------
    store : FeatureStore
    config : FitConfig
    published : PredictionTable, optional
        Bound these energies instead of the backbone's.
    training_keys : ndarray of uint64, optional
        Compositions of the backbone's training; they say nothing about another model's energies, for which
        ``config.trained_on`` does.
    folder : Path, optional
        Where the heads are kept; see :func:`cross_fitted`.
    progress : callable, optional
        Called with (heads fitted, heads in all).

    Returns
    -------
    CrossFittedHeads

    Raises
    ------
    LabelError
        If the source has no labels, or the table of predictions does not fit.
    HeadError
        If there are too few labelled rows.
    """
    every, manifest = store.read(), store.manifest
    refused, rows = refused_labels(every.table), checked_labels(every)
    energies, about = None, dict[str, Any]()
    if published is not None and (energies := published.energies()) is not None:
        rows, column = with_predictions(rows, energies), str(published.energy_column)
        about = {
            "file": str(published.predictions),
            "column": column,
            "features": manifest.model,
            **check_predictions(rows, column),
        }
        manifest = replace(manifest, energies_of=column)
    if manifest.energies_of:
        training_keys = None if config.trained_on is None else read_compositions(config.trained_on)
    if not len(rows.labelled().table):
        raise LabelError(
            "the source has no labels to fit heads to; name the key of its energies (--energy-key), or use a head."
        )
    provenance = {
        **about_data(rows),
        **asdict(CardNotes()),
        "training_compositions_known": training_keys is not None,
        "training_sha256": None
        if training_keys is None
        else hashlib.sha256(training_keys.tobytes()).hexdigest(),
        "includes_training": bool(manifest.energies_of) or training_keys is not None,
        "published": bool(manifest.energies_of),
        "outer_folds": N_FOLDS,
    }
    heads = cross_fitted(rows, manifest, config, folder=folder, provenance=provenance, progress=progress)
    return CrossFittedHeads(heads, store, energies, training_keys, about, refused)


def _cached(fit: Fit, folder: Path, inputs_sha256: str, n_folds: int) -> Fit:
    """``fit`` that keeps its heads in a folder, so that a run that was interrupted does not fit them again."""

    def cached(fold: int) -> CalibratedHead:
        name, labels = FULL, "all labels of its source"
        if fold >= 0:
            name = f"fold-{fold + 1}"
            labels = f"the labels of its source outside fold {fold + 1} of {n_folds} folds of compositions"
        made_of = {"inputs_sha256": inputs_sha256, "fold": f"{name} of {n_folds}"}
        return cached_head(folder / name, made_of, labels, lambda: fit(fold))

    return cached


def cached_head(
    folder: Path, made_of: dict[str, str], labels: str, fit: Callable[[], CalibratedHead]
) -> CalibratedHead:
    """The head in a folder if it was made of the same, else fitted and put there.

    Parameters
    ----------
    folder : Path
        Of this one head.
    made_of : dict of str to str
        What tells it from any other head, among it the :func:`inputs_digest`; kept in its provenance.
    labels : str
        Which labels it is fitted to, for its card.
    fit : callable
        Makes the head.

    Returns
    -------
    CalibratedHead
        As read from the folder in either case, so that it does not matter which.
    """
    try:
        head = load_head(folder)
        if all(head.provenance.get(name) == value for name, value in made_of.items()):
            return head
    except HeadError:  # none there, or damaged
        pass
    head = fit()
    head = replace(head, provenance={**head.provenance, "levels": list(head.levels), **made_of})
    head.save(folder, unmeasured_card(folder.name, head, labels), overwrite=True)
    return load_head(folder)


def inputs_digest(rows: FeatureRows, manifest: Manifest, config: FitConfig, **others: Any) -> str:
    """SHA-256 of what decides on a head, to the last bit: rows, model, settings, and other plain values."""
    sha = hashlib.sha256(np.ascontiguousarray(rows.features).tobytes())
    sha.update(rows.table[list(_DECIDING)].to_csv(index=False).encode())
    about = {"manifest": manifest.settings(), "config": asdict(config), **others}
    sha.update(json.dumps(about, sort_keys=True).encode())
    return sha.hexdigest()
