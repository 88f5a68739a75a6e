"""What a head folder must hold: checked once, when it is read, before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import parsed_json
from mace_bounds.backbones import Golden
from mace_bounds.calibration.kept_rows import ARRAYS, TEXTS, UNKNOWN
from mace_bounds.calibration.layer import SOURCE_CELL
from mace_bounds.calibration.material import ENVELOPE, Material
from mace_bounds.calibration.scale_kinds import KINDS, SINGLE, Shapes
from mace_bounds.errors import HeadError
from mace_bounds.head import SMALLEST, read_tensor, tensors_under
from mace_bounds.structures import TOTAL_ENERGY

N_ELEMENTS = 118
_MAY_BE_INFINITE = ("space_spread", "thresholds", "joint_thresholds", "spread", *UNKNOWN)
_LARGEST_LOG = 1e3  # no σ is so far from another
_DIVISORS = ("space_spread", "kernel_width")
_KINDS = dict.fromkeys(("members", "seen_pairs", "seen_elements"), "b") | dict.fromkeys(
    ("folds", "rows"), "i"
)
_KINDS |= dict.fromkeys(TEXTS, "u") | dict.fromkeys(("points", "error_ev_per_atom", *UNKNOWN, *SINGLE), "f4")

_SCALE: Shapes = {"seen_elements": ("elements",), "factor": (), "bounds": (2,)}
_LAYER: Shapes = {
    "levels": ("levels",),
    "scores": ("scores",),
    "folds": ("scores",),
    "weights": ("scores",),
    "members": ("scores", "cells+1"),
    "test_weights": ("cells+1",),
}
_NOVELTY: Shapes = {
    "thresholds": (2, 4),
    "joint_thresholds": (2, 2),
    "seen_pairs": ("elements", "elements"),
}
_LOCAL: Shapes = {
    "center": ("features",),
    "axes": ("features", "directions"),
    "clusters": ("clusters", "directions"),
}


@dataclass(frozen=True)
class HeadIdentity:
    """What a head belongs to.

    Attributes
    ----------
    model : str
        Name of the model whose energies are bounded.
    model_digest, model_head : str
        SHA-256 of the tensors of the frozen model that gives the features, and which of its heads.
    kind : str
        Kind of the features.
    columns : tuple of str
        Their names.
    composition : bool
        Whether atomic fractions join them.
    model_file_sha256 : str
        SHA-256 of the checkpoint that the features came from; empty where it was no checkpoint.
    quantity : str
        What its labels are, and so what it bounds.
    features_of : str
        Name of the model that gives the features, where it is another than ``model``; else empty.
    golden : Golden or None
        What the model of the features gives for a few small cells; None in older heads.
    """

    model: str
    model_digest: str
    model_head: str
    kind: str
    columns: tuple[str, ...]
    composition: bool
    model_file_sha256: str = ""
    quantity: str = TOTAL_ENERGY
    features_of: str = ""
    golden: Golden | None = None

    @property
    def backbone(self) -> str:
        """Name of the model that gives the features."""
        return self.features_of or self.model


@dataclass(frozen=True)
class _Centre:
    share: float
    shifts_ev_per_atom: list[float]


@dataclass(frozen=True)
class _Scale:
    kind: str
    scores: dict[str, float]
    temper: float = 1.0


@dataclass(frozen=True)
class _Fold:
    centre: _Centre
    scale: _Scale


@dataclass(frozen=True)
class _Layer:
    cells: list[str]
    signed: bool
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Rates:
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Novelty:
    n_features: int
    rates: _Rates


@dataclass(frozen=True)
class _Coverage:
    level: float
    coverage: float
    n: int


@dataclass(frozen=True)
class _Settings:
    levels: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _LeftOut:
    source: str
    n: int
    coverage: dict[str, float]
    median_width_mev_per_atom: float
    interval_score_mev_per_atom: float
    constant_score_mev_per_atom: float


@dataclass(frozen=True)
class _Study:
    guarantee: str = ""
    left_out: list[_LeftOut] = field(default_factory=list)
    why: str = ""


@dataclass(frozen=True)
class HeadProvenance:
    """Of what a head's maker has put down, the part that is read again; see :class:`HeadConfig`."""

    rows: dict[str, int] = field(default_factory=dict)
    levels: list[float] | None = None
    settings: _Settings = field(default_factory=_Settings)
    coverage: list[_Coverage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    published: bool = False
    includes_training: bool = False
    training_compositions_known: bool = True
    test_rows_in_training: int = 0
    sources_left_out: _Study = field(default_factory=_Study)


@dataclass(frozen=True)
class HeadConfig:
    """The types of ``config.json``."""

    digest: str
    identity: HeadIdentity
    pops: dict[str, Any]
    centre: _Centre
    scale: _Scale
    layer: _Layer
    folds: list[_Fold]
    leverage_limit: float
    energy_range_ev_per_atom: tuple[float, float]
    provenance: HeadProvenance
    novelty: _Novelty | None = None
    material: Material | None = None


def read_config(config: Mapping[str, Any] | str) -> HeadConfig:
    """Read a head's configuration; HeadError, with the place, if a value is missing or of another type."""
    text = config if isinstance(config, str) else json.dumps(config)
    try:
        return parsed_json(HeadConfig, text)
    except ValueError as error:
        raise HeadError(
            f"the head's config.json cannot be used ({error}); fit or download it again."
        ) from None


def check_tensors(tensors: Mapping[str, NDArray[Any]], config: HeadConfig) -> None:
    """Compare tensors, but for those of POPS, which check themselves, with what the configuration says.

    Raises
    ------
    HeadError
        If one is missing, of another shape or type, or not finite, or holds a value that it cannot have.
    """
    n = {"elements": N_ELEMENTS, "features": len(config.identity.columns)}
    n["columns"] = n["features"] + N_ELEMENTS
    n["inputs"] = n["columns"] if config.identity.composition else n["features"]
    folds = {f"fold{i}.": fold for i, fold in enumerate(config.folds)}
    for prefix, part in ({"": config} | folds).items():
        read_tensor(tensors, f"{prefix}pops.design.active", (n["inputs"],), "b")
        if part.scale.kind not in KINDS:
            raise HeadError(
                f"the head's scale is of the kind {part.scale.kind!r}, which this version does not know; fit the head "
                "again."
            )
        if not 0 < part.scale.temper <= 1:
            raise HeadError("the head's scale is tempered by no power from 0 to 1; fit or download it again.")
        bound = dict(n)
        _check(tensors, f"{prefix}scale", {**_SCALE, **KINDS[part.scale.kind].arrays}, bound)
        low, high = tensors[f"{prefix}scale.bounds"]
        divisors = [tensors[name] for name in (f"{prefix}scale.{n}" for n in _DIVISORS) if name in tensors]
        good = 0 < low <= high and tensors[f"{prefix}scale.factor"] >= 0
        if not good or any((array < SMALLEST).any() for array in divisors):
            raise HeadError(
                f"the limits of the head's {prefix}scale are no widths; fit or download it again."
            )
    _check_layer(tensors, config)
    if config.material is not None:
        _check_material(config.material, config, len(tensors["layer.levels"]))
    for name in ("fit_compositions", "calibration_compositions"):
        read_tensor(tensors, name, (None,), "i")
    if "training_compositions" in tensors:
        read_tensor(tensors, "training_compositions", (None,), "i")
    if not 0 < config.leverage_limit < np.inf:
        raise HeadError("the head's leverage_limit is not positive; fit or download it again.")
    low, high = config.energy_range_ev_per_atom
    if not -np.inf < low <= high < np.inf:
        raise HeadError("the head's energy_range_ev_per_atom is no range; fit or download it again.")
    if config.novelty is not None:
        _check_novelty(tensors_under(tensors, "novelty"), config.novelty, n)
    if kept := tensors_under(tensors, "kept_rows"):
        _check(kept, "", ARRAYS | {name: (f"{name} bytes",) for name in TEXTS}, dict(n))
        narrow, terms = (kept["spread"] < SMALLEST).any(), np.abs(kept["typical_terms"])
        if narrow or terms.sum() > _LARGEST_LOG or not len(kept["points"]):
            raise HeadError("the rows that the head keeps cannot be used; fit or download it again.")


def _check(tensors: Mapping[str, NDArray[Any]], prefix: str, shapes: Shapes, lengths: dict[str, int]) -> None:
    """Read every tensor; a word that stands for no length yet gets that of the first tensor that has it."""
    for name, shape in shapes.items():
        full = f"{prefix}.{name}" if prefix else name
        parts = [(str(n).partition("+")) for n in shape]
        wanted = tuple(
            int(word) if word.isdigit() else lengths[word] + int(more or 0) if word in lengths else None
            for word, _, more in parts
        )
        array = read_tensor(tensors, full, wanted, _KINDS.get(name, "f"), infinite=name in _MAY_BE_INFINITE)
        for (word, _, more), length in zip(parts, array.shape, strict=True):
            if not word.isdigit():
                lengths.setdefault(word, length - int(more or 0))


def _check_layer(tensors: Mapping[str, NDArray[Any]], config: HeadConfig) -> None:
    lengths = {"cells": len(config.layer.cells)}
    _check(tensors, "layer", _LAYER, lengths)
    folds, weights, members = (tensors[f"layer.{name}"] for name in ("folds", "weights", "members"))
    sources = config.layer.sources
    good = (
        lengths["scores"] > 0
        and len(sources) != 1
        and config.layer.cells[: len(sources)] == [SOURCE_CELL + name for name in sources]
        and folds.min() >= 0
        and folds.max() < max(len(config.folds), 1)
        and weights.min() >= 0
        and tensors["layer.test_weights"].min() >= 0
        and (weights @ members > 0).all()
    )
    if not good:
        raise HeadError("the head's left-out scores cannot be used; fit or download it again.")


def _check_material(material: Material, config: HeadConfig, n_levels: int) -> None:
    kept = {config.pops.get("posterior"), *config.pops.get("also", ())}
    elements = set(material.elements)
    good = elements and elements <= set(range(1, N_ELEMENTS + 1)) and {material.draws, ENVELOPE} <= kept
    left_out = [0.0, *material.left_out]
    good = good and len(left_out) - 1 in (0, n_levels) and bool(np.isfinite(left_out).all())
    good = good and sorted(left_out) == left_out
    if not good or not 0 < material.stretch < np.inf or not config.identity.composition:
        raise HeadError("what the head says of its chemistry cannot be used; fit or download it again.")


def _check_novelty(tensors: Mapping[str, NDArray[Any]], config: _Novelty, n: dict[str, int]) -> None:
    _check(tensors, "", _NOVELTY, dict(n))
    read_tensor(tensors, "compositions", (None,), "i")
    if config.n_features != n["features"] or min(tensors[name].min() for name in list(_NOVELTY)[:2]) < 0:
        raise HeadError("the head's thresholds of novelty cannot be used; fit or download it again.")
    _check_set(tensors, "structures", n["inputs"] + 1)
    sets = ["local_structures"]
    if tensors_under(tensors, "atoms") or tensors_under(tensors, "local_atoms"):
        _check_set(tensors, "atoms", n["features"] + 1)
        sets.append("local_atoms")
    for name in sets:
        lengths = dict(n)
        _check(tensors, name, _LOCAL, lengths)
        if not lengths["clusters"]:
            raise HeadError(f"the head's {name} has no clusters; fit or download it again.")
        for k in range(lengths["clusters"]):
            _check_set(tensors, f"{name}.set{k}", lengths["directions"] + 1)


def _check_set(tensors: Mapping[str, NDArray[Any]], prefix: str, columns: int) -> None:
    lengths = {"columns": columns}
    shapes: Shapes = {"rows": ("rank",), "projection": ("columns", "columns"), "inverse": ("rank", "rank")}
    _check(tensors, prefix, shapes, lengths)
    if not 0 < lengths["rank"] <= columns:
        raise HeadError(f"the head's {prefix} has no rows, or more than columns; fit or download it again.")
