"""Features of records in memory, and what every engine does with a shard: compute, blame what fails alone, write."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.backbones import Backbone, FeatureBlock, FeatureKind
from mace_bounds.errors import EngineError
from mace_bounds.features.rows import FeatureRows
from mace_bounds.features.shard import ATOMS, FEATURES, Arrays, few_rows, memory_rows, write_shard
from mace_bounds.structures import Crystal, Record, space_group

if TYPE_CHECKING:
    Rows = tuple[list[str | None], Arrays]


def extract_batch(
    records: Sequence[Record], model: Backbone, kind: FeatureKind = "readout", *, atoms: bool = False
) -> tuple[list[str | None], Arrays]:
    """Features of records in memory.

    Returns ``reasons``: why a record has no features; None where it has; ``arrays``: ``features`` (n_good,
    n_features), ``energy_model_ev`` and ``fixed_energy_ev`` (n_good,); with ``atoms`` also ``atom_features``
    (n_atoms, n_features).
    """
    reasons = [_reason(record, frozenset(model.atomic_numbers)) for record in records]
    good = [r.crystal for r, reason in zip(records, reasons, strict=True) if reason is None and r.crystal]
    return reasons, _arrays(good, reasons, model.extract(good, kind, atoms=atoms))


def _arrays(good: Sequence[Crystal], reasons: list[str | None], block: FeatureBlock) -> Arrays:
    """Arrays of the finite rows of a block; the others get their reasons."""
    energies = {"energy_model_ev": block.energy_ev, "fixed_energy_ev": block.fixed_energy_ev}
    finite = np.isfinite(block.energy_ev) & np.isfinite(block.features).all(axis=1)
    if not finite.all():
        own = block.reasons or (None,) * len(good)
        places = [i for i, reason in enumerate(reasons) if reason is None]
        for k in np.flatnonzero(~finite):
            reasons[places[k]] = own[k] or "the model gives NaN or infinity; check the geometry"
    arrays: Arrays = {FEATURES: block.features[finite], **{k: v[finite] for k, v in energies.items()}}
    if block.atoms is not None:
        sizes = [len(crystal.numbers) for crystal in good]
        arrays[ATOMS] = block.atoms[np.repeat(finite, sizes)]
    return arrays


def _reason(record: Record, elements: frozenset[int]) -> str | None:
    """Why a record cannot go through the model; its geometry has been checked where it was read."""
    if record.reason is not None or record.crystal is None:
        return record.reason or "the record has no structure; check the source"
    unknown = sorted(set(record.crystal.counts) - elements)
    if unknown:
        return f"the model does not know Z = {', '.join(map(str, unknown))}; choose another model"
    return None


def extract_rows(
    records: Sequence[Record], model: Backbone, kind: FeatureKind = "readout", *, atoms: bool = False
) -> FeatureRows:
    """Features of records in memory, as a store would give them back in float64 (rows with reasons included).

    A record on which the model fails gets that as its reason (:func:`compute`).
    """
    reasons, arrays = compute(records, model, kind, atoms=atoms)
    return memory_rows(records, reasons, arrays)


def block_rows(records: Sequence[Record], block: FeatureBlock) -> FeatureRows:
    """:func:`extract_rows` of a few records without a reason, whose features are there."""
    reasons: list[str | None] = [None] * len(records)
    arrays = _arrays([record.crystal for record in records if record.crystal], reasons, block)
    return few_rows(records, arrays) if not any(reasons) else memory_rows(records, reasons, arrays)


def failed_rows(records: Sequence[Record]) -> FeatureRows:
    """Rows of records that all have a reason, for which no model is needed."""
    return memory_rows(records, [record.reason for record in records], {FEATURES: np.empty((0, 0))})


CRASHED = "the worker process died twice on this structure alone; check its geometry and size"


@dataclass(frozen=True, eq=False)
class Shard:
    """Records on their way to one file of the store."""

    index: int  # its place in the store
    path: Path  # where it is written
    records: list[Record]  # all its rows
    # positions of the records that kill the process that runs them: they get a reason unseen
    crashing_rows: tuple[int, ...] = ()
    kind: FeatureKind = "readout"  # {"readout", "descriptors"}: which features
    # atoms, symmetry: whether the features of single atoms are kept, and the space groups of labelled
    # structures
    atoms: bool = False
    symmetry: bool = False


@dataclass(frozen=True, eq=False)
class Task:
    """One thing for a worker to do: fill the file of a shard, or only try the records of ``span``."""

    shard: Shard
    span: tuple[int, int] | None = None


def perform(task: Task, model: Backbone) -> int:
    """Do a task; returns the number of rows with a reason instead of features."""
    shard = task.shard
    records = list(shard.records)
    for k in shard.crashing_rows:
        records[k] = replace(records[k], crystal=None, reason=CRASHED)
    if task.span is not None:
        records = records[slice(*task.span)]
    reasons, arrays = compute(records, model, shard.kind, atoms=shard.atoms)
    groups = space_groups(records) if shard.symmetry else None
    if task.span is None:
        write_shard(shard.path, shard.records, reasons, arrays, model.dtype, groups)
    return sum(reason is not None for reason in reasons)


def space_groups(records: Sequence[Record]) -> list[str | None]:
    """Space groups of the records that have a structure and a label; None for the others."""
    return [
        None if record.crystal is None or record.energy_ev is None else space_group(record.crystal)
        for record in records
    ]


def compute(records: Sequence[Record], model: Backbone, kind: FeatureKind, *, atoms: bool) -> Rows:
    """Features of records; where the model fails on them together, those on which it fails alone get a reason.

    The others are then computed together, as if the failures had come with their reasons: the rows do not
    depend on how the failures were found. If the model fails on a small cell too, no structure is to blame, and what it
    raised is raised.
    """
    try:
        return extract_batch(records, model, kind, atoms=atoms)
    except Exception as error:
        alone = [extract_one(record, model, kind, atoms=atoms) for record in records]
        if not any(isinstance(outcome, str) for outcome in alone):
            return _joined([outcome for outcome in alone if not isinstance(outcome, str)])
        if isinstance(extract_one(_small_cell(model), model, kind, atoms=atoms), str):
            raise error from None
    blamed = [
        replace(record, crystal=None, reason=outcome) if isinstance(outcome, str) else record
        for record, outcome in zip(records, alone, strict=True)
    ]
    return compute(blamed, model, kind, atoms=atoms)


def extract_one(record: Record, model: Backbone, kind: FeatureKind, *, atoms: bool) -> Rows | str:
    """Rows of one record, or why there are none."""
    try:
        return extract_batch([record], model, kind, atoms=atoms)
    except Exception as error:
        return f"the model failed on this structure alone ({one_line(error)}); check its geometry"


def one_line(error: Exception) -> str:
    """The exception in one line of moderate length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _small_cell(model: Backbone) -> Record:
    """Two atoms on which every model that could be loaded passes."""
    numbers = np.array([model.atomic_numbers[0], model.atomic_numbers[-1]])
    cell = np.array([[3.4, 0.1, 0.0], [0.0, 3.3, 0.2], [0.1, 0.0, 3.6]])
    return Record("", "", Crystal(numbers, np.array([[0.0, 0.0, 0.0], [1.7, 1.4, 1.6]]), cell))


def _joined(parts: list[Rows]) -> Rows:
    reasons = [reason for part, _ in parts for reason in part]
    return reasons, {key: np.concatenate([arrays[key] for _, arrays in parts]) for key in parts[0][1]}


def pack_model(model: Backbone) -> bytes:
    """The model as bytes for other processes: the same numbers there."""
    try:
        return pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise EngineError(
            f"the model {model.name} cannot be sent to other processes, as it cannot be pickled ({one_line(error)}); "
            "use one worker."
        ) from error


def unpack_model(data: bytes) -> Backbone:
    """Undo :func:`pack_model`; only for bytes that this package has sent itself."""
    model: Backbone = pickle.loads(data)
    return model
