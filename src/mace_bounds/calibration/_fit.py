"""From labelled features to a calibrated head: split, cross-fit, scale, calibrate, measure."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration._calibrated import CalibratedHead, HeadIdentity, head_inputs, scale_inputs
from mace_bounds.calibration._conformal import LEVELS, ConformalTable, conformal_scores, mondrian_quantiles
from mace_bounds.calibration._scale_fit import select_scale
from mace_bounds.calibration._splits import assign_splits, composition_keys, compositions_in, group_folds
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.head import (
    PopsConfig,
    PopsFit,
    PopsHead,
    PopsPrediction,
    array_chunks,
    fit_pops,
    fit_robust,
    predict,
)
from mace_bounds.structures import suspect_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.calibration._scale import ScaleModel

CURVE_LEVELS = tuple(round(0.02 * k, 2) for k in range(1, 50))
"""Nominal coverages of calibration curves; quantiles at these are kept in the head."""

MINIMUM_FIT_ROWS, MINIMUM_CALIBRATION_ROWS = 20, 9
SPLITS = ("fit", "calibration", "test")
SEEN_IN_TRAINING = "composition in the model's training"


@dataclass(frozen=True)
class FitConfig:
    """How a head is fitted and calibrated.

    Attributes
    ----------
    fit_share, calibration_share : float
        Shares of the groups for POPS and scale, and for the conformal quantiles; the rest measures coverage.
    seed : int
        Of the splits and folds.
    split_by : {"formula", "chemical_system"}
        What never straddles two splits.
    composition : bool
        Whether atomic fractions join the feature columns.
    posterior : {"hypercube", "ensemble"}
        The POPS posterior.
    clip_percent : float
        Tail of the corrections outside the hypercube, per cent on each side.
    leverage_percentile : float
        Rows below it make no corrections.
    robust : bool
        Huber weights against heavy tails.
    n_folds : int
        Of the cross-fit.
    levels : tuple of float
        Nominal coverages.
    balance : bool
        Give every source the same total weight, so that the largest does not decide for all.
    by_chemistry : bool
        Quantiles of their own for chemistry classes with at least 200 calibration rows.
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
    by_chemistry: bool = False

    def pops(self) -> PopsConfig:
        """Return the settings of the POPS fit."""
        values = {name: getattr(self, name) for name in ("posterior", "clip_percent", "leverage_percentile")}
        return PopsConfig.from_dict(values)


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted head and what it was made from.

    Attributes
    ----------
    head : CalibratedHead
    rows : FeatureRows
        The labelled rows that took part.
    splits : ndarray of str, shape (n,)
        ``"fit"``, ``"calibration"`` or ``"test"`` for each of them.
    left_out : dict of str to int
        How many rows were left out, by reason.
    """

    head: CalibratedHead
    rows: FeatureRows
    splits: NDArray[np.str_]
    left_out: dict[str, int]


def residual_ev_per_atom(rows: FeatureRows) -> NDArray[np.float64]:
    """(E_DFT - E_MACE) / N of labelled rows, shape (n,), eV/atom."""
    table = rows.table
    difference = (table["energy_ev"] - table["energy_mace_ev"]) / table["n_atoms"]
    return np.asarray(difference.to_numpy(dtype=np.float64))


def usable_rows(rows: FeatureRows, backbone: NDArray[np.uint64] | None) -> tuple[FeatureRows, dict[str, int]]:
    """Keep what may fit and calibrate a head: labelled, plausible, and unseen by the model's training."""
    labelled = rows.labelled()
    left_out = {"no label or not scored": len(rows.table) - len(labelled.table)}
    suspect = np.array([suspect_label(r) for r in residual_ev_per_atom(labelled)], dtype=bool)
    left_out["suspect label"] = int(suspect.sum())
    seen = compositions_in(labelled.table["formula"].tolist(), backbone) & ~suspect
    left_out[SEEN_IN_TRAINING] = int(seen.sum())
    return labelled.take(~suspect & ~seen), {reason: n for reason, n in left_out.items() if n}


def fit_head(
    rows: FeatureRows,
    manifest: Manifest,
    config: FitConfig | None = None,
    *,
    backbone: NDArray[np.uint64] | None = None,
    provenance: dict[str, Any] | None = None,
) -> FitResult:
    """Fit and calibrate a head on labelled features.

    Parameters
    ----------
    rows : FeatureRows
        Rows of a feature store; those without label or features are left out.
    manifest : Manifest
        What the features were made with.
    config : FitConfig, optional
        Splits and settings.
    backbone : ndarray of uint64, optional
        Compositions seen in the model's training: rows of these are left out, because the model's errors on
        them are too small to stand for new crystals.
    provenance : dict, optional
        Plain values to keep in the head's configuration.

    Returns
    -------
    FitResult
        The head, and the rows with their splits, so that coverage can be measured on ``"test"``.

    Raises
    ------
    HeadError
        If there are too few rows to fit, or to calibrate any level.

    Notes
    -----
    Everything that the scale learns from is predicted by heads that have not seen the row's composition
    (cross-fitting), which is stricter than leave-one-out where crystals of one composition resemble each other.
    The refit mean is used only if it beats the model's own energy there, in mean absolute error and in the
    interval score.
    """
    config = config or FitConfig()
    kept, left_out = usable_rows(rows, backbone)
    groups = kept.table[config.split_by].to_numpy(dtype=str) if len(kept.table) else np.empty(0, dtype=str)
    shares = {"fit": config.fit_share, "calibration": config.calibration_share}
    shares["test"] = 1.0 - sum(shares.values())
    splits = assign_splits(groups, shares, config.seed)
    fit, calibration = kept.take(splits == "fit"), kept.take(splits == "calibration")
    if len(fit.table) < MINIMUM_FIT_ROWS or len(calibration.table) < MINIMUM_CALIBRATION_ROWS:
        why = "".join(f", {n} left out ({reason})" for reason, n in left_out.items())
        remedy = (
            ", or keep those of the model's training (--include-training)"
            if SEEN_IN_TRAINING in left_out
            else ""
        )
        raise HeadError(
            f"expected at least {MINIMUM_FIT_ROWS} labelled rows to fit and {MINIMUM_CALIBRATION_ROWS} to calibrate, "
            f"got {len(fit.table)} and {len(calibration.table)}{why}; give more labelled structures{remedy}."
        )
    pops, scale, refit, limit = _fit_pops_and_scale(fit, groups[splits == "fit"], config)
    identity = HeadIdentity(
        model=manifest.model,
        model_digest=manifest.model_digest,
        model_head=manifest.model_head,
        kind=manifest.kind,
        columns=manifest.columns,
        composition=config.composition,
    )
    uncalibrated = CalibratedHead(
        identity=identity,
        pops=pops,
        refit=refit,
        scale=scale,
        conformal=_no_quantiles(),
        curve=_no_quantiles(),
        leverage_limit=limit,
        fit_compositions=composition_keys(fit.table["formula"].tolist()),
        calibration_compositions=composition_keys(calibration.table["formula"].tolist()),
        provenance={
            **(provenance or {}),
            "settings": {**asdict(config), "levels": list(config.levels)},
            "rows": {name: int((splits == name).sum()) for name in SPLITS},
            "left_out": left_out,
            "data_sha256": fingerprint(kept),
        },
    )
    head = calibrate(uncalibrated, calibration, config)
    return FitResult(head, kept, splits, left_out)


def calibrate(head: CalibratedHead, rows: FeatureRows, config: FitConfig) -> CalibratedHead:
    """Set a head's conformal quantiles from labelled rows that it has not been fitted on."""
    said = head.intervals(rows)
    scores = conformal_scores(residual_ev_per_atom(rows) - said.centre, said.sigma)
    cells = said.cells if config.by_chemistry else None
    calibrated = partial(
        mondrian_quantiles,
        scores,
        cells,
        weights=row_weights(rows, config),
        clusters=rows.table[config.split_by].to_numpy(dtype=str),
    )
    table = calibrated(levels=config.levels)
    available = tuple(level for level in config.levels if np.isfinite(table.quantile(level)))
    if not available:
        raise HeadError(
            f"expected enough compositions to calibrate a level among {config.levels}, got {len(scores)} rows of "
            f"{len(set(rows.table[config.split_by]))}; give more labelled structures."
        )
    return replace(head, conformal=calibrated(levels=available), curve=calibrated(levels=CURVE_LEVELS))


def row_weights(rows: FeatureRows, config: FitConfig) -> NDArray[np.float64]:
    """Weights of mean 1, shape (n,): equal, or such that every source has the same total."""
    if not config.balance:
        return np.ones(len(rows.table))
    _, code, counts = np.unique(rows.table["source"].to_numpy(str), return_inverse=True, return_counts=True)
    return np.asarray(len(code) / (len(counts) * counts[code]))


def cross_fit(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    groups: NDArray[np.str_],
    config: FitConfig,
) -> PopsPrediction:
    """Predict each row by a POPS head fitted without the fold of its group.

    Parameters
    ----------
    x : ndarray, shape (n, P)
    y : ndarray, shape (n,)
        Residuals, eV/atom.
    weights : ndarray, shape (n,)
    groups : ndarray of str, shape (n,)
    config : FitConfig

    Returns
    -------
    PopsPrediction
        Arrays of shape (n,) in the order of the rows.
    """
    folds = group_folds(groups, config.n_folds, config.seed)
    out: dict[str, NDArray[Any]] = {}
    for fold in np.unique(folds):
        held = folds == fold
        said = predict(_fit_one(x[~held], y[~held], weights[~held], config).head, x[held])
        for name, values in said.__dict__.items():
            out.setdefault(name, np.zeros(len(y), dtype=values.dtype))[held] = values
    return PopsPrediction(**out)


def fingerprint(rows: FeatureRows) -> str:
    """SHA-256 over structure hashes and labels, whatever their order."""
    table = rows.table
    lines = sorted(f"{h}:{e!r}" for h, e in zip(table["structure_hash"], table["energy_ev"], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _fit_one(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64], config: FitConfig
) -> PopsFit:
    if config.robust:
        return fit_robust(x, y, weights, config.pops())
    return fit_pops(array_chunks(x, y, weights), config.pops())


def _fit_pops_and_scale(
    rows: FeatureRows, groups: NDArray[np.str_], config: FitConfig
) -> tuple[PopsHead, ScaleModel, bool, float]:
    """POPS on all rows; scale, choice of mean and leverage limit from the cross-fit."""
    x, fractions, n_atoms = head_inputs(rows, composition=config.composition)
    y, weights = residual_ev_per_atom(rows), row_weights(rows, config)
    left_out = cross_fit(x, y, weights, groups, config)
    inputs = scale_inputs(left_out, fractions, n_atoms)
    error = y - left_out.mean
    frozen = select_scale(inputs, y, groups, config.seed, weights)
    refit = select_scale(inputs, error, groups, config.seed, weights)
    earned = bool(weights @ np.abs(error) < weights @ np.abs(y)) and _score(refit) < _score(frozen)
    head = _fit_one(x, y, weights, config).head
    return head, refit if earned else frozen, earned, float(left_out.leverage.max())


def _score(scale: ScaleModel) -> float:
    return scale.scores.get(scale.kind, float("inf"))


def _no_quantiles() -> ConformalTable:
    empty = np.zeros((0,))
    return ConformalTable(empty, empty, 0, (), np.zeros((0, 0)), np.zeros(0, dtype=np.int64))
