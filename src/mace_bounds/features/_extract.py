"""Records to a feature store, shard by shard: stopped at any instant, resumed to the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.errors import StoreError
from mace_bounds.features._store import (
    FEATURES,
    FeatureRows,
    FeatureStore,
    Manifest,
    hash_ids,
    is_store,
    memory_rows,
    read_manifest,
    record_key,
    shard_keys_hash,
    shard_path,
    write_manifest,
    write_shard,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from mace_bounds.features._model import FeatureKind, FrozenModel
    from mace_bounds.structures import Record

SHARD_ROWS = 256


def extract(
    records: Iterable[Record],
    folder: str | Path,
    model: FrozenModel,
    *,
    kind: FeatureKind = "readout",
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Fill a feature store from records; a store that was begun with the same settings is finished.

    Parameters
    ----------
    records : iterable of Record
        Checked records in a reproducible order; those with a reason become rows with that reason.
    folder : path
        The store; made if absent.
    model : FrozenModel
        The network that gives the features.
    kind : {"readout", "descriptors"}
        Which features.
    shard_rows : int
        Records per shard.
    progress : callable, optional
        Called with (records done, failed among them) after each shard.

    Returns
    -------
    FeatureStore
        The finished store.

    Raises
    ------
    StoreError
        If the folder holds something else, a store of other settings, or shards of other records.
    """
    folder = Path(folder)
    manifest = _manifest(model, kind, shard_rows)
    _open_folder(folder, manifest)
    ids, done, failed = hashlib.sha256(), 0, 0
    stream = iter(records)
    index = 0
    while batch := list(islice(stream, shard_rows)):
        path = shard_path(folder, index)
        if path.exists():
            if shard_keys_hash(path) != hash_ids([record_key(r) for r in batch]):
                raise StoreError(
                    f"expected the records that {path} was made from, but the source has changed since; "
                    "choose a new folder for the store."
                )
            failed += _count_failed(path)
        else:
            failed += _fill(path, batch, model, kind)
        for record in batch:
            ids.update(record.id.encode() + b"\n")
        done, index = done + len(batch), index + 1
        if progress is not None:
            progress(done, failed)
    if shard_path(folder, index).exists():
        raise StoreError(
            f"expected at least as many records as {folder} was made from, but the source has only {done} now; "
            "choose a new folder for the store."
        )
    if done == 0:
        raise StoreError(
            "expected at least one record, but the source is empty; give it a file with structures."
        )
    write_manifest(folder, replace(manifest, n_records=done, n_failed=failed, ids_sha256=ids.hexdigest()))
    return FeatureStore(folder)


def extract_batch(
    records: Sequence[Record], model: FrozenModel, kind: FeatureKind = "readout"
) -> tuple[list[str | None], dict[str, NDArray[np.float64]]]:
    """Features of records in memory.

    Returns
    -------
    reasons : list of str or None
        Why a record has no features; None where it has.
    arrays : dict
        ``features`` (n_good, n_features), ``energy_mace_ev`` and ``fixed_energy_ev`` (n_good,).
    """
    reasons = [_reason(record, frozenset(model.atomic_numbers)) for record in records]
    good = [r.crystal for r, reason in zip(records, reasons, strict=True) if reason is None and r.crystal]
    block = model.extract(good, kind)
    energies = {"energy_mace_ev": block.energy_ev, "fixed_energy_ev": block.fixed_energy_ev}
    finite = np.isfinite(block.energy_ev) & np.isfinite(block.features).all(axis=1)
    if not finite.all():
        places = [i for i, reason in enumerate(reasons) if reason is None]
        for place in np.array(places)[~finite]:
            reasons[place] = (
                "expected a finite energy, got NaN or infinity from the model; check the geometry"
            )
    return reasons, {FEATURES: block.features[finite], **{k: v[finite] for k, v in energies.items()}}


def _reason(record: Record, elements: frozenset[int]) -> str | None:
    """Why a record cannot go through the model; its geometry has been checked where it was read."""
    if record.reason is not None or record.crystal is None:
        return record.reason or "expected a structure, got a record without one; check the source"
    unknown = sorted(set(record.crystal.counts) - elements)
    if unknown:
        return f"expected elements that the model knows, got Z = {', '.join(map(str, unknown))}; choose another model"
    return None


def extract_rows(records: Sequence[Record], model: FrozenModel, kind: FeatureKind = "readout") -> FeatureRows:
    """Features of records in memory, as a store would give them back in float64 (rows with reasons included)."""
    reasons, arrays = extract_batch(records, model, kind)
    return memory_rows(records, reasons, arrays)


def _fill(path: Path, batch: Sequence[Record], model: FrozenModel, kind: FeatureKind) -> int:
    reasons, arrays = extract_batch(batch, model, kind)
    write_shard(path, batch, reasons, arrays, model.dtype)
    return sum(reason is not None for reason in reasons)


def _count_failed(path: Path) -> int:
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["reason"]).column("reason")
    return int(len(column) - column.null_count)


def _open_folder(folder: Path, manifest: Manifest) -> None:
    if is_store(folder):
        before, now = read_manifest(folder).settings(), manifest.settings()
        different = sorted(key for key in now if before.get(key) != now[key])
        if different:
            raise StoreError(
                f"expected the settings that {folder} was begun with, but {', '.join(different)} differ; "
                "use the same settings or choose a new folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(
            f"expected a new or empty folder, but {folder} holds something else; choose another."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)


def _manifest(model: FrozenModel, kind: FeatureKind, shard_rows: int) -> Manifest:
    from importlib.metadata import version

    return Manifest(
        model=model.name,
        model_digest=model.digest,
        model_head=model.head,
        kind=kind,
        columns=tuple(model.columns(kind)),
        theta0_ev=tuple(float(t) for t in model.theta0_ev) if kind == "readout" else (),
        dtype=model.dtype,
        shard_rows=shard_rows,
        versions={name: version(name) for name in ("mace-bounds", "mace-torch", "torch")},
    )
