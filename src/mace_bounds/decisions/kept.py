"""The file of a head folder that holds its joint errors; heads without it are known, and their errors independent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import (
    CalibratedHead,
    FitConfig,
    FitResult,
    head_inputs,
    outer_folds,
    residual_ev_per_atom,
    split_rows,
    usable_rows,
)
from mace_bounds.decisions.choosing import (
    UNKNOWN,
    DifferenceScores,
    JointModel,
    LeftOutErrors,
    Reliability,
    difference_groups,
    fit_joint,
    fit_strained,
)
from mace_bounds.decisions.groups import (
    KINDS,
    POLYMORPH,
    REACTION,
    Differences,
    Strained,
    polymorph_pairs,
    syntheses,
)
from mace_bounds.decisions.hull_prior import LIMITS_MEV, HullPrior, hull_prior, known_distances
from mace_bounds.decisions.joint import difference_std
from mace_bounds.decisions.likeness import likeness_from
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows
from mace_bounds.head import BESIDE, read_tensor, tensors_named, tensors_under
from mace_bounds.structures import TOTAL_ENERGY

(JOINT,) = BESIDE
HULL, _PRIOR = "hull", ("distances", "rivals", "brier", "base_rate_brier")
_BROKEN = "the file of joint errors in the head's folder cannot be read; fit or download the head again."


def joint_bytes(result: FitResult, config: FitConfig, rows: FeatureRows) -> dict[str, bytes]:
    """Choose the joint errors of a fitted head and write them as a file: its name and what is in it.

    Nothing where the left-out rows are too few to say how wide their errors are. Labels of all ``rows`` of the store
    make the hulls from which the distances of left-out crystals are known.
    """
    left_out = left_out_errors(result, config)
    if left_out is None:
        return {}
    model = fit_joint(left_out, result.head.pops, config.seed)
    if config.quantity == TOTAL_ENERGY:
        scored = rows.scored()
        names = scored.table["id"].tolist()
        left = result.rows.table["id"].to_numpy(str)[result.splits == _left_out_split(result)]
        wanted = np.isin(np.array(names, str), left)
        known = known_distances(scored, wanted, references=dict(config.references or ()))
        found = dict(zip(names, zip(*known, strict=True), strict=True))
        distances, rivals = np.array([found.get(name, (np.nan, False)) for name in left]).T
        errors = (left_out.error, left_out.std)
        prior = hull_prior(left_out.formulas, distances, rivals > 0, errors, config.seed)
        model = replace(model, prior=prior)
    return joint_file(model, result.head)


def left_out_errors(result: FitResult, config: FitConfig) -> LeftOutErrors | None:
    """Rows that the head of a fold, or the head itself, has not seen, with their errors and calibrated widths."""
    return _errors(result.head, config, result.rows.take(result.splits == _left_out_split(result)))


def _errors(head: CalibratedHead, config: FitConfig, rows: FeatureRows) -> LeftOutErrors | None:
    """Of labelled rows whose composition the head of their fold, or the head itself, has not seen."""
    cross = bool(head.folds)
    design, error = head_inputs(rows, composition=head.identity.composition), residual_ev_per_atom(rows)
    centre, sigma = np.zeros((2, len(error)))
    by = np.zeros(len(error), dtype=np.int64)
    if cross:
        by = outer_folds(rows.table[config.split_by].to_numpy(dtype=str), config)
        if by.max(initial=-1) + 1 != len(head.folds):  # too few compositions to tell which fold is whose
            return None
    for k, fold in enumerate(head.folds or (head.as_fold(),)):
        held = by == k
        centre[held], sigma[held] = fold.centre_and_sigma(design.take(held))
    # as the interval of a new row of its source and chemistry: the widths that differences are made of
    tiled = np.tile(sigma, (max(len(head.folds), 1), 1))
    lower, upper = head.conformal.bounds(
        np.zeros_like(tiled), tiled, head.groups(rows, design), head.levels[0]
    )
    if not np.isfinite(upper - lower).all():
        return None
    return LeftOutErrors(
        design,
        rows.table["formula"].to_numpy(dtype=str),
        rows.table["structure_hash"].to_numpy(dtype=str),
        error - centre,
        0.5 * (upper - lower),
        Strained.of(rows.table),
    )


def with_strained(head: CalibratedHead, config: FitConfig, rows: FeatureRows) -> dict[str, bytes]:
    """Add differences of one crystal at two volumes to the joint errors of a head that was fitted without them.

    Parameters
    ----------
    head : CalibratedHead
        Fitted with ``config``, with heads of folds; its bounds stay as they are.
    config : FitConfig
        What it was fitted with: which head has not seen a composition follows from it.
    rows : FeatureRows
        Crystals at several volumes, labelled, with their space groups. Those of compositions that the model's training
        or the head's test rows have do not count.

    Returns
    -------
    dict of str to bytes
        The file of joint errors, in which all else is as it was.
    """
    model = joint_model(head)
    usable, _ = usable_rows(rows, head.training_compositions)
    splits = split_rows(usable.table[config.split_by].to_numpy(dtype=str), config)
    errors = _errors(head, config, usable.take(splits == "fit"))
    scores, tried = ({}, []) if errors is None else fit_strained(errors, config.seed)
    others = [row for row in model.reliability if row.kind not in scores]
    model = replace(model, scores={**model.scores, **scores}, reliability=(*others, *tried))
    return joint_file(model, head)


def _left_out_split(result: FitResult) -> str:
    """The split whose rows a head of a fold, or the head itself, has not seen."""
    return "fit" if result.head.folds else "calibration"


@dataclass(frozen=True, eq=False)
class MeasuredGroup:
    """Differences among the test rows of a fit, and what simpler ways would have learnt from the others."""

    test: Differences
    independent: DifferenceScores  # by the root of the sum of squares of single widths
    constant: DifferenceScores  # by nothing: the sizes themselves, eV/atom


def measured_groups(result: FitResult, config: FitConfig) -> dict[str, MeasuredGroup]:
    """For studies: every kind of difference that both the left-out and the test rows of a fit have."""
    left_out = left_out_errors(result, config)
    rows = result.rows.take(result.splits == "test")
    if left_out is None or not len(rows.table):
        return {}
    known = difference_groups(left_out, config.seed)
    fractions = head_inputs(rows, composition=False).fractions
    table = (rows.table["formula"].tolist(), rows.table["structure_hash"].tolist())
    tested = {POLYMORPH: polymorph_pairs(*table), REACTION: syntheses(table[0], fractions, config.seed)}
    out = {}
    for kind in known.keys() & tested.keys():
        group = known[kind]
        size = np.abs(group.coefficients @ left_out.error)
        alone = difference_std(group.coefficients, left_out.std, np.zeros((len(left_out.std), 0)))
        independent = DifferenceScores.of(size / np.maximum(alone, 1e-12), group)
        out[kind] = MeasuredGroup(tested[kind], independent, DifferenceScores.of(size, group))
    return out


def joint_model(head: CalibratedHead) -> JointModel:
    """What a head knows of joint errors; independence where it was made without.

    Raises
    ------
    HeadError
        If the file is damaged, or belongs to another head.
    """
    if JOINT not in head.beside:
        return UNKNOWN
    return _from_bytes(head.beside[JOINT], head)


def joint_file(model: JointModel, head: CalibratedHead) -> dict[str, bytes]:
    """What a head knows of joint errors as a file of its folder: its name and what is in it."""
    from safetensors.numpy import save

    tensors = tensors_named("likeness", model.likeness.to_tensors())
    for kind, scores in model.scores.items():
        tensors |= tensors_named(kind, {"scores": scores.scores, "weights": scores.weights})
    compositions = {kind: scores.n_compositions for kind, scores in model.scores.items()}
    if model.prior is not None:
        numbers = {name: getattr(model.prior, name).astype(np.float64) for name in _PRIOR}
        tensors |= tensors_named(HULL, numbers)
        compositions[HULL] = model.prior.n_compositions
    about = {
        "likeness": model.likeness.name,
        "compositions": compositions,
        "joint": {kind: scores.joint for kind, scores in model.scores.items()},
        "reliability": [asdict(row) for row in model.reliability],
    }
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}
    arrays["about"] = np.frombuffer(text.encode(), dtype=np.uint8)
    arrays["head"] = np.frombuffer(_belongs(head), dtype=np.uint8)
    return {JOINT: bytes(save(arrays))}


def _from_bytes(data: bytes, head: CalibratedHead) -> JointModel:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, NDArray[Any]] = load(data)
        about = json.loads(tensors["about"].tobytes())
        belongs = tensors["head"].tobytes()
        likeness = likeness_from(str(about["likeness"]), tensors_under(tensors, "likeness"), head.pops)
        scores = {
            kind: replace(
                _scores(tensors_under(tensors, kind), about["compositions"][kind]),
                joint=bool(about.get("joint", {}).get(kind, True)),
            )
            for kind in KINDS
            if kind in about["compositions"]
        }
        prior = None
        if HULL in about["compositions"]:
            prior = _prior(tensors_under(tensors, HULL), about["compositions"][HULL])
        names = {field.name for field in fields(Reliability)}
        reliability = tuple(Reliability(**{k: row[k] for k in names}) for row in about["reliability"])
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise HeadError(_BROKEN) from None
    if belongs != _belongs(head):
        raise HeadError(
            "the file of joint errors in the head's folder belongs to another head; fit it again."
        )
    return JointModel(likeness, scores, reliability, prior)


def _scores(tensors: Mapping[str, NDArray[Any]], n_compositions: Any) -> DifferenceScores:
    scores = read_tensor(tensors, "scores", (None,))
    weights = read_tensor(tensors, "weights", scores.shape)
    plain = isinstance(n_compositions, int) and 0 < n_compositions <= len(scores)
    if not plain or (np.diff(scores) < 0).any() or (scores < 0).any() or not (weights > 0).all():
        raise HeadError(_BROKEN)
    return DifferenceScores(scores, weights, n_compositions)


def _prior(tensors: Mapping[str, NDArray[Any]], n_compositions: Any) -> HullPrior:
    distances = read_tensor(tensors, "distances", (None,))
    # the first heads did not tell crystals with rivals from others
    rivals = (
        read_tensor(tensors, "rivals", distances.shape) if "rivals" in tensors else np.zeros(len(distances))
    )
    briers = [read_tensor(tensors, name, (len(LIMITS_MEV),)) for name in _PRIOR[2:]]
    if not isinstance(n_compositions, int) or not len(distances):
        raise HeadError(_BROKEN)
    return HullPrior(distances, rivals > 0, n_compositions, *briers)


def _belongs(head: CalibratedHead) -> bytes:
    """Names the head that a file was made with: its left-out scores are nobody else's."""
    sha = hashlib.sha256(np.ascontiguousarray(head.conformal.scores).tobytes())
    sha.update(head.identity.model_digest.encode())
    return sha.digest()
