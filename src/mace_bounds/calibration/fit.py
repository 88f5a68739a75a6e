"""From labelled features to a calibrated head: split, cross-fit, scale, calibrate, measure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration.calibrated import CalibratedHead, FoldHead
from mace_bounds.calibration.centre import Centre, select_centre
from mace_bounds.calibration.config import GROUPS, FitConfig
from mace_bounds.calibration.conformal import LeftOutScores
from mace_bounds.calibration.cross_fitting import (
    cross_fit,
    fit_one,
    residual_ev_per_atom,
    row_weights,
    rows_of,
)
from mace_bounds.calibration.inputs import energy_over_fixed, head_inputs, scale_inputs
from mace_bounds.calibration.kept_rows import KeptRows
from mace_bounds.calibration.layer import ConformalLayer, conformal_groups, conformal_layer, source_groups
from mace_bounds.calibration.novelty_fit import measured_novelty
from mace_bounds.calibration.scale import fit_scale, select_scale
from mace_bounds.calibration.scale_kinds import KINDS, kinds_for
from mace_bounds.calibration.schema import HeadIdentity
from mace_bounds.calibration.sources import EVERY_SOURCE, SourceStudy, large_sources, study_sources
from mace_bounds.calibration.splits import assign_splits, group_folds
from mace_bounds.calibration.trained import TrainedRows
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.head import (
    PopsHead,
    kept_warnings,
    predict,
)
from mace_bounds.metrics import Membership, chemistry_classes
from mace_bounds.structures import composition_keys, compositions_in, suspect_label
from mace_bounds.threads import one_blas_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.calibration.scale import ScaleModel

MINIMUM_FIT_ROWS, MINIMUM_CALIBRATION_ROWS = 20, 9
_OUTER = 7919  # added to the seed: folds of the conformal scores are other than those of the cross-fit inside
SPLITS = ("fit", "calibration", "test")
SEEN_IN_TRAINING = "composition in the model's training"


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted head and what it was made from."""

    head: CalibratedHead
    rows: FeatureRows  # the labelled rows that took part
    # shape (n,): ``"fit"``, ``"calibration"`` or ``"test"`` for each of them; no ``"calibration"`` with
    # cross-conformal scores
    splits: NDArray[np.str_]
    left_out: dict[str, int]  # how many rows were left out, by reason


def usable_rows(
    rows: FeatureRows, training_keys: NDArray[np.uint64] | None
) -> tuple[FeatureRows, dict[str, int]]:
    """Keep what may fit and calibrate a head: labelled, plausible, and unseen by the model's training."""
    labelled = rows.labelled()
    refused = int((rows.table["reason"].isna() & rows.table["label_reason"].notna()).sum())
    left_out = {
        "no label or not scored": len(rows.table) - len(labelled.table) - refused,
        "label refused": refused,
    }
    suspect = np.array([suspect_label(r) for r in residual_ev_per_atom(labelled)], dtype=bool)
    left_out["suspect label"] = int(suspect.sum())
    seen = compositions_in(labelled.table["formula"].tolist(), training_keys) & ~suspect
    left_out[SEEN_IN_TRAINING] = int(seen.sum())
    return labelled.take(~suspect & ~seen), {reason: n for reason, n in left_out.items() if n}


@one_blas_thread
def fit_head(
    rows: FeatureRows,
    manifest: Manifest,
    config: FitConfig | None = None,
    *,
    training_keys: NDArray[np.uint64] | None = None,
    provenance: dict[str, Any] | None = None,
    measure_sources: bool = True,
    trained: TrainedRows | None = None,
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
    training_keys : ndarray of uint64, optional
        Compositions seen in the model's training: rows of these are left out, because the model's errors on
        them are too small to stand for new crystals.
    provenance : dict, optional
        Plain values to keep in the head's configuration.
    measure_sources : bool
        Whether to measure how bounds do on sources left out, for the card (:func:`study_sources`).
    trained : TrainedRows, optional
        Rows of the model's own training, from which the scale may learn where errors are large; those among ``rows``
        that ``training_keys`` leave out if not given.

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
    A share of the refit mean, or of shifts per element, is added to the model's own energy only if it is better
    there by three standard errors of the mean absolute error, and in the interval score.
    """
    config = config or FitConfig()
    kept, left_out = usable_rows(rows, training_keys)
    trained = TrainedRows.of(rows, training_keys, config) if trained is None else trained
    # In one order whatever they came in: optimisers make more of round-off than it is.
    kept = kept.take(np.argsort(kept.table["id"].to_numpy(dtype=str), kind="stable"))
    groups = kept.table[config.split_by].to_numpy(dtype=str) if len(kept.table) else np.empty(0, dtype=str)
    splits, cross = split_rows(groups, config), config.conformal == "cross"
    fit, calibration = kept.take(splits == "fit"), kept.take(splits == "calibration")
    _check_enough(len(fit.table), None if cross else len(calibration.table), left_out, config)
    with kept_warnings() as stopped_early:
        study = study_sources(fit, config, trained, measure=measure_sources)
        parts = _Parts(config, study, trained)
        pops, scale, centre, limit = parts.fit(fit, groups[splits == "fit"])
        if cross:
            layer, folds = cross_layer(fit, parts)
        else:
            layer, folds = split_layer(FoldHead(pops, centre, scale), calibration, config, study), ()
    energies = energy_over_fixed(kept)[splits != "test"]
    head = CalibratedHead(
        identity=_identity(manifest, config),
        pops=pops,
        centre=centre,
        scale=scale,
        conformal=layer,
        folds=folds,
        leverage_limit=limit,
        energy_range_ev_per_atom=(float(energies.min()), float(energies.max())),
        fit_compositions=composition_keys(fit.table["formula"].tolist()),
        calibration_compositions=composition_keys(calibration.table["formula"].tolist()),
        provenance={
            **({"published": True} if manifest.energies_of else {}),
            **(provenance or {}),
            "settings": {
                **asdict(replace(config, trained_on=None, references=None)),
                "levels": list(config.levels),
            },
            "rows": {name: int((splits == name).sum()) for name in SPLITS},
            "left_out": left_out,
            "data_sha256": fingerprint(kept),
            "warnings": stopped_early,
            "sources_left_out": study.to_dict(),
        },
        novelty=measured_novelty(kept, splits == "fit", composition=config.composition, seed=config.seed),
    )
    if config.kept_rows:
        head = replace(head, kept_rows=kept_rows(head, kept, splits, config))
    return FitResult(head, kept, splits, left_out)


def _check_enough(
    n_fit: int, n_calibration: int | None, left_out: Mapping[str, int], config: FitConfig
) -> None:
    """HeadError if there are too few rows; ``n_calibration`` is None where the rows of the fit calibrate too."""
    cross = n_calibration is None
    if n_fit >= MINIMUM_FIT_ROWS and (n_calibration is None or n_calibration >= MINIMUM_CALIBRATION_ROWS):
        return
    why = "".join(f", {n} left out ({reason})" for reason, n in left_out.items())
    remedy = (
        ", or keep those of the model's training (--include-training)" if SEEN_IN_TRAINING in left_out else ""
    )
    of, needed = f"{n_fit} labelled rows to fit", str(MINIMUM_FIT_ROWS)
    share = config.fit_share + config.calibration_share * cross
    in_all = MINIMUM_FIT_ROWS / max(share, 1e-9)
    if not cross:
        of += f" and {n_calibration} to calibrate"
        needed += f" and {MINIMUM_CALIBRATION_ROWS}"
        in_all = max(in_all, MINIMUM_CALIBRATION_ROWS / max(config.calibration_share, 1e-9))
    raise HeadError(
        f"there are {of}, as some measure coverage{why}; {needed} are needed, which takes about "
        f"{math.ceil(in_all)} in all: give more labelled ones{remedy}."
    )


def _identity(manifest: Manifest, config: FitConfig) -> HeadIdentity:
    """Which features and energies a head takes."""
    return HeadIdentity(
        model=manifest.energies_of or manifest.model,
        model_digest=manifest.model_digest,
        model_head=manifest.model_head,
        kind=manifest.kind,
        columns=manifest.columns,
        composition=config.composition,
        model_file_sha256=manifest.model_file_sha256,
        quantity=config.quantity,
        features_of=manifest.model if manifest.energies_of else "",
        golden=manifest.golden,
    )


def split_rows(groups: NDArray[np.str_], config: FitConfig) -> NDArray[np.str_]:
    """Which part of a fit rows of these groups belong to, shape (n,): one of :data:`SPLITS`."""
    shares = {"fit": config.fit_share, "calibration": config.calibration_share}
    shares["test"] = 1.0 - sum(shares.values())
    splits = assign_splits(groups, shares, config.seed)
    if config.conformal == "cross":
        splits[splits == "calibration"] = "fit"
    return splits


def split_layer(head: FoldHead, rows: FeatureRows, config: FitConfig, study: SourceStudy) -> ConformalLayer:
    """Scores of labelled rows that a head has not been fitted on (split conformal)."""
    centre, sigma = head.centre_and_sigma(head_inputs(rows, composition=config.composition))
    scores = (residual_ev_per_atom(rows) - centre) / sigma
    return _layer(rows, scores, np.zeros(len(scores), dtype=np.int64), config, study)


def cross_layer(rows: FeatureRows, parts: _Parts) -> tuple[ConformalLayer, tuple[FoldHead, ...]]:
    """Scores of all rows, each by a head that has not seen its fold of compositions, and these heads (CV+)."""
    config = parts.config
    groups = rows.table[config.split_by].to_numpy(dtype=str)
    y, n_rows = residual_ev_per_atom(rows), len(rows.table)
    folds = outer_folds(groups, config)
    fewest = n_rows - int(np.bincount(folds).max(initial=0))
    if fewest < MINIMUM_FIT_ROWS:
        raise HeadError(
            f"only {fewest} of {n_rows} rows are outside a fold of compositions, and {MINIMUM_FIT_ROWS} are needed; "
            "give more labelled structures."
        )
    scores, heads = np.zeros(n_rows), []
    for fold in np.unique(folds):
        held = folds == fold
        pops, scale, centre, _ = parts.fit(rows.take(~held), groups[~held])
        heads.append(FoldHead(pops, centre, scale))
        expected, sigma = heads[-1].centre_and_sigma(
            head_inputs(rows.take(held), composition=config.composition)
        )
        scores[held] = (y[held] - expected) / sigma
    return _layer(rows, scores, folds, config, parts.study), tuple(heads)


def outer_folds(groups: NDArray[np.str_], config: FitConfig) -> NDArray[np.int64]:
    """Which of the heads of the folds has not seen a row, shape (n,)."""
    return np.unique(group_folds(groups, config.n_folds, config.seed + _OUTER), return_inverse=True)[1]


def kept_rows(
    head: CalibratedHead, rows: FeatureRows, splits: NDArray[np.str_], config: FitConfig
) -> KeptRows:
    """What a head keeps of its rows (n): their errors, and the σ and bounds of heads that have not seen them."""
    design, error = head_inputs(rows, composition=config.composition), residual_ev_per_atom(rows)
    sigma, covered = np.full((2, len(error)), np.nan)
    fit = splits == "fit"
    if not fit.all():
        said = head.intervals(rows.take(~fit))
        sigma[~fit], covered[~fit] = said.sigma, head.min_covering_level(said, error[~fit])
    if head.folds:
        by = np.full(len(error), -1)
        by[fit] = outer_folds(rows.table[config.split_by].to_numpy(dtype=str)[fit], config)
        groups = head.groups(rows, design)
        for k, fold in enumerate(head.folds):
            held = by == k
            centre, sigma[held] = fold.centre_and_sigma(design.take(held))
            covered[held] = head.conformal.min_covering_level(
                np.tile(centre, (len(head.folds), 1)),
                np.tile(sigma[held], (len(head.folds), 1)),
                Membership(groups.names, groups.matrix[held]),
                error[held],
            )
    new = ~fit if (~fit).sum() >= MINIMUM_FIT_ROWS else np.ones(len(error), dtype=bool)
    typical = design.take(new)
    terms = head.scale.terms(scale_inputs(predict(head.pops, typical.x), typical))
    return KeptRows.of(
        (rows.table["id"].tolist(), rows.table["formula"].tolist()),
        design.features,
        {"error_ev_per_atom": error, "sigma_ev_per_atom": sigma, "covered_above_level": covered},
        np.array([term.mean() for term in terms.values()]),
        config.kept_rows,
        rows.table["structure_hash"].tolist(),
    )


def _layer(
    rows: FeatureRows,
    scores: NDArray[np.float64],
    folds: NDArray[np.int64],
    config: FitConfig,
    study: SourceStudy,
) -> ConformalLayer:
    design = head_inputs(rows, composition=False)
    chemistry = chemistry_classes(rows.table["elements"].tolist())
    sources = rows.table["source"].fillna("").to_numpy(dtype=str)
    known = large_sources(sources) if study.guarantee == EVERY_SOURCE else ()
    by_source = source_groups(sources.tolist(), known)
    by_source.matrix[~np.isin(sources, known)] = False  # small ones, which make no promise
    used = scores if config.signed else np.abs(scores)
    layer = conformal_layer(
        LeftOutScores(used, folds, config.signed, row_weights(rows, config)),
        conformal_groups(chemistry, design.fractions, GROUPS[config.groups], by_source),
        config.levels,
        clusters=rows.table[config.split_by].to_numpy(dtype=str),
    )
    if not len(layer.levels):
        raise HeadError(
            f"{len(scores)} rows of {len(set(rows.table[config.split_by]))} compositions are too few to calibrate any "
            f"level among {config.levels}; give more labelled structures."
        )
    return layer


def fingerprint(rows: FeatureRows) -> str:
    """SHA-256 over structure hashes and labels, whatever their order."""
    table = rows.table
    lines = sorted(f"{h}:{e!r}" for h, e in zip(table["structure_hash"], table["energy_ev"], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Parts:
    """What the heads of all rows and of the folds have in common."""

    config: FitConfig
    study: SourceStudy
    trained: TrainedRows

    def fit(self, rows: FeatureRows, groups: NDArray[np.str_]) -> tuple[PopsHead, ScaleModel, Centre, float]:
        """POPS on all rows; centre, scale and leverage limit from the cross-fit."""
        config, study, trained = self.config, self.study, self.trained
        design = head_inputs(rows, composition=config.composition)
        y, weights = residual_ev_per_atom(rows), row_weights(rows, config)
        also = (trained.design.x, trained.groups) if len(trained) else None
        crossed = cross_fit(design.x, y, weights, groups, config, also)
        left_out = rows_of(crossed, slice(len(y)))
        centre, expected = select_centre(y, left_out.mean, design.fractions, groups, config.seed, weights)
        of_training = trained.errors(rows_of(crossed, slice(len(y), None)), centre)
        inputs, error = replace(scale_inputs(left_out, design), trained=of_training), y - expected
        choice = study.choice
        if choice is not None and choice.kind in kinds_for(len(y), len(trained)):
            strength = KINDS[choice.kind].strengths[0]
            scale = fit_scale(choice.kind, inputs, error, groups, config.seed, weights, strength=strength)
            scale = scale.tempered(choice.temper, inputs, error, weights) if choice.temper < 1 else scale
        elif config.scale == "constant":
            scale = fit_scale("constant", inputs, error, groups, config.seed, weights)
        else:
            scale = select_scale(inputs, error, groups, config.seed, weights)
        head = fit_one(design.x, y, weights, config).head
        return head, scale, centre, float(left_out.leverage.max())
