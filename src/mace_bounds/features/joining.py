"""The stores of several sources as one store, for what works on one: links to the shards that are there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.errors import StoreError
from mace_bounds.features.manifest import Manifest, temporary_path, write_manifest
from mace_bounds.features.shard import shard_path
from mace_bounds.features.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Sequence

_OF_EACH = ("shard_rows", "symmetry", "versions")  # may differ between stores


def join(folder: str | Path, stores: Sequence[str | Path]) -> FeatureStore:
    """Make one feature store of the finished stores of several sources.

    Parameters
    ----------
    folder : path
        A new folder. Shards are linked into it where the file system can, else copied.
    stores : sequence of path
        The stores, made with one model and the same kind of features; they are left as they are.

    Returns
    -------
    FeatureStore
        Their rows, store after store.

    Raises
    ------
    StoreError
        If a store is unfinished or of other settings, an id is there twice, or the folder is not new.
    """
    target, parts = Path(folder), [FeatureStore(store) for store in stores]
    if target.exists():
        raise StoreError(f"expected a new folder for the joined store, but {target} exists; choose another.")
    for part in parts:
        _check(part, parts[0])
    ids = [one for part in parts for one in _ids(part)]
    twice = [one for one, n in Counter(ids).items() if n > 1]
    if twice:
        raise StoreError(
            f"expected every id in one source, but {len(twice):,} are in several ({', '.join(twice[:3])}, ...); leave "
            "one of these sources out, or give the structures other ids."
        )
    made = temporary_path(target)
    made.mkdir(parents=True)
    for index, shard in enumerate(shard for part in parts for shard in part.shards()):
        _link(shard, shard_path(made, index))
    write_manifest(
        made,
        replace(
            parts[0].manifest,
            symmetry=all(part.manifest.symmetry for part in parts),
            n_records=sum(part.manifest.n_records for part in parts),
            n_failed=sum(part.manifest.n_failed for part in parts),
            ids_sha256=hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest(),
        ),
    )
    made.rename(target)
    return FeatureStore(target)


def _check(store: FeatureStore, first: FeatureStore) -> None:
    if not store.manifest.complete:
        raise StoreError(
            f"expected finished feature stores, but the run that fills {store.folder} was interrupted; run it again."
        )
    ours, theirs = _settings(store.manifest), _settings(first.manifest)
    different = sorted(key for key in ours if ours[key] != theirs.get(key))
    if different:
        raise StoreError(
            f"expected stores of one model and one kind of features, but {', '.join(different)} of {store.folder} "
            f"differ from {first.folder}; make one of them anew."
        )


def _settings(manifest: Manifest) -> dict[str, object]:
    return {key: value for key, value in manifest.settings().items() if key not in _OF_EACH}


def _ids(store: FeatureStore) -> list[str]:
    import pyarrow.parquet as pq

    return [
        str(one) for shard in store.shards() for one in pq.read_table(shard, columns=["id"])["id"].to_pylist()
    ]


def _link(shard: Path, target: Path) -> None:
    try:
        os.link(shard, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(shard, target)
