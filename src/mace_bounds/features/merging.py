"""Stores to stores: parts of a run (:func:`merge`), several sources (:func:`join`), energies of another model."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds._io import atomic, atomic_folder, locked
from mace_bounds.backbones import Backbone, training_compositions
from mace_bounds.errors import StoreError
from mace_bounds.features.extraction import PLAN, PlannedShard, read_n_parts, read_plan, same_plan
from mace_bounds.features.manifest import (
    OF_THE_FILE,
    Manifest,
    check_free,
    check_golden,
    check_settings,
    complete,
    is_store,
    open_folder,
    read_manifest,
    write_manifest,
)
from mace_bounds.features.shard import check_bytes, shard_ids, shard_info, shard_path, with_model_energies
from mace_bounds.features.store import FeatureStore
from mace_bounds.structures import read_compositions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMED = 5  # ids that a message names
_OF_EACH = ("shard_rows", "symmetry", "versions", *OF_THE_FILE)  # may differ between stores


def merge(folder: str | Path, parts: Sequence[str | Path] = ()) -> FeatureStore:
    """Make one feature store of the parts that ``extract(..., part=(i, n))`` left; the same bytes as in one run.

    Parameters
    ----------
    folder : path
        The store: a new folder, or the one that all parts were written into.
    parts : sequence of path
        The folders of the parts; none if they are all in ``folder``.

    Returns
    -------
    FeatureStore
        The finished store; folders of parts are left as they are.

    Raises
    ------
    StoreError
        If the parts are of other settings or another source, or if a record is missing, there twice, or of no
        place in the source: the message names them. Nothing is written then.
    """
    folder, places = Path(folder), [Path(part) for part in parts] or [Path(folder)]
    manifests = [read_manifest(place) for place in places]
    if places == [folder] and manifests[0].complete:
        with locked(folder):
            (folder / PLAN).unlink(missing_ok=True)  # where a run was killed at its very end
        return FeatureStore(folder)
    for place, manifest in zip(places, manifests, strict=True):
        check_settings(place, manifest, manifests[0])
    check_free(folder)
    plan, shards = _plan(places), _shards(places)
    n_records, n_failed, ids_sha256 = _compare(plan, shards)
    if folder not in places:
        _check_begun(folder, manifests[0], shards)
    with locked(folder):
        if folder not in places:
            open_folder(folder, manifests[0])
            for index, path in shards.items():
                with atomic(shard_path(folder, index)) as temporary:
                    shutil.copyfile(path, temporary)
        complete(folder, manifests[0], n_records, n_failed, ids_sha256)
        (folder / PLAN).unlink(missing_ok=True)
    return FeatureStore(folder)


def _check_begun(folder: Path, manifest: Manifest, shards: dict[int, Path]) -> None:
    """Refuse a folder with shards of other parts; those of the same are what a run that was killed has left."""
    if not is_store(folder):
        return
    check_settings(folder, read_manifest(folder), manifest)
    for index, path in _shards([folder]).items():
        if index not in shards or shard_info(path).keys != shard_info(shards[index]).keys:
            raise StoreError(
                f"{folder} is a store of other structures than these parts; choose a new folder."
            )


def _plan(places: list[Path]) -> Path:
    """The plan that the parts agree on."""
    plans = [place / PLAN for place in places if (place / PLAN).is_file()]
    if not plans:
        raise StoreError(
            f"no part in {', '.join(map(str, places))} is finished, as none has left its plan; run mace-bounds "
            "features with --shard there, once more where it was interrupted."
        )
    for other in plans[1:]:
        if not same_plan(plans[0], other):
            ours, theirs = (dict.fromkeys(i for s in read_plan(p) for i in s.ids) for p in (plans[0], other))
            missing, extra = (
                _Named(i for i in ours if i not in theirs),
                _Named(i for i in theirs if i not in ours),
            )
            raise StoreError(
                f"the source of {other.parent} has changed against {plans[0].parent}: missing {missing}, extra "
                f"{extra}, the others in another order or state; make all parts anew."
            )
    return plans[0]


def _shards(places: list[Path]) -> dict[int, Path]:
    """Every shard of the parts by its index."""
    found: dict[int, Path] = {}
    for place in places:
        for path in FeatureStore(place).shards():
            before = found.setdefault(int(path.stem.removeprefix("shard-")), path)
            if before != path:
                raise StoreError(
                    f"{_Named(shard_ids(path))} are in {before.parent} and in {place}; leave one of the two out."
                )
    return found


def _compare(plan: Path, shards: dict[int, Path]) -> tuple[int, int, str]:
    """Compare shards with the plan; returns the number of records, of those that failed, and the hash of ids."""
    hashed, n_records, n_failed, planned = hashlib.sha256(), 0, 0, set()
    missing, extra, wanting = _Named(), _Named(), []
    for shard in read_plan(plan):
        hashed.update("".join(f"{i}\n" for i in shard.ids).encode())
        planned.add(shard.index)
        n_records += len(shard.ids)
        if shard.index not in shards:
            missing.add(shard.ids)
            wanting.append(shard.index)
            continue
        info = shard_info(shards[shard.index])
        check_bytes(shards[shard.index])
        n_failed += info.n_failed
        if info.keys != shard.keys:
            lacking, others = _difference(shard, shards[shard.index])
            missing.add(lacking)
            extra.add(others)
    for index in sorted(set(shards) - planned):
        extra.add(shard_ids(shards[index]))
    if missing.n or extra.n:
        n_parts = read_n_parts(plan)
        again = ", ".join(f"--shard {i}/{n_parts}" for i in sorted({k % n_parts + 1 for k in wanting}))
        raise StoreError(
            f"the parts are not the source: missing are {missing} and extra are {extra}; "
            + (f"run mace-bounds features with {again} again." if wanting else "make these parts anew.")
        )
    return n_records, n_failed, hashed.hexdigest()


def _difference(shard: PlannedShard, path: Path) -> tuple[list[str], list[str]]:
    """Ids that a shard lacks, and those that it has against the plan."""
    there = shard_ids(path)
    wanted, found = set(shard.ids), set(there)
    lacking, others = [i for i in shard.ids if i not in found], [i for i in there if i not in wanted]
    if not lacking and not others:
        raise StoreError(
            f"{path} holds {_Named(there)} in another order or with other structures or labels than the plan; make "
            "this part anew."
        )
    return lacking, others


class _Named:
    """How many ids, and the first of them by name."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.n, self._first = 0, list[str]()
        self.add(ids)

    def add(self, ids: Iterable[str]) -> None:
        for name in ids:
            self.n += 1
            if self.n <= NAMED:
                self._first.append(name)

    def __str__(self) -> str:
        more = f" and {self.n - NAMED:,} more" if self.n > NAMED else ""
        return f"{self.n:,} ({', '.join(self._first)}{more})" if self.n else "none"


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
        raise StoreError(f"{target} exists already; choose another folder for the joined store.")
    for part in parts:
        _check_joins(part, parts[0])
    ids = [name for part in parts for shard in part.shards() for name in shard_ids(shard)]
    twice = [name for name, n in Counter(ids).items() if n > 1]
    if twice:
        raise StoreError(
            f"{len(twice):,} ids are in several sources ({', '.join(twice[:3])}, ...); leave one of these sources out, "
            "or give the structures other ids."
        )
    manifest = replace(
        parts[0].manifest,
        symmetry=all(part.manifest.symmetry for part in parts),
        n_records=sum(part.manifest.n_records for part in parts),
        n_failed=sum(part.manifest.n_failed for part in parts),
        ids_sha256=hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest(),
    )
    with atomic_folder(target) as made:
        for index, shard in enumerate(shard for part in parts for shard in part.shards()):
            _link(shard, shard_path(made, index))
        write_manifest(made, manifest)
    return FeatureStore(target)


def _check_joins(store: FeatureStore, first: FeatureStore) -> None:
    if not store.manifest.complete:
        raise StoreError(
            f"the run that fills {store.folder} was interrupted; run it again before its store is joined."
        )
    ours, theirs = _settings(store.manifest), _settings(first.manifest)
    different = sorted(key for key in ours if ours[key] != theirs.get(key))
    if different:
        raise StoreError(
            f"{', '.join(different)} of {store.folder} differ from {first.folder}, and one store is of one model and "
            "one kind of features; make one of them anew."
        )
    check_golden(first.folder, first.manifest, store.manifest)


def _settings(manifest: Manifest) -> dict[str, object]:
    return {key: value for key, value in manifest.settings().items() if key not in _OF_EACH}


def _link(shard: Path, target: Path) -> None:
    try:
        os.link(shard, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(shard, target)


NO_ENERGY = "no energy was given under this id"


def training_keys(
    manifest: Manifest, model: str | Path | Backbone | None, trained_on: str | None
) -> NDArray[np.uint64] | None:
    """Compositions in the training of the model whose energies a store holds; None where they are not known.

    Parameters
    ----------
    manifest : Manifest
        Of the store.
    model : str, Path or Backbone, optional
        Where those of the model of the features are looked up; they say nothing of another model's errors.
    trained_on : str, optional
        What the user says of the training; see :func:`mace_bounds.backbones.training_compositions`.
    """
    if manifest.energies_of:
        return None if trained_on is None else read_compositions(trained_on)
    return training_compositions(model or manifest.model, manifest.model_digest, trained_on)


def store_with_energies(
    store: FeatureStore, folder: str | Path, energies_ev: Mapping[str, float], energies_of: str
) -> FeatureStore:
    """Copy a finished store with energies of another model: heads fitted to the copy bound that model's energies.

    Parameters
    ----------
    store : FeatureStore
        Features of a model that runs here.
    folder : path
        Of the copy; features of single atoms are not copied.
    energies_ev : mapping of str to float
        Total energies of the cells by id, eV; a row without one gets a reason.
    energies_of : str
        Name of the model that gave them.

    Returns
    -------
    FeatureStore

    Raises
    ------
    StoreError
        If the store is unfinished, ``folder`` holds something else, or none of the ids has an energy.
    """
    folder, manifest = Path(folder), store.manifest
    if not manifest.complete:
        raise StoreError(
            f"the feature store {store.folder} is unfinished; run its mace-bounds features again."
        )
    made = replace(manifest, energies_of=energies_of, atoms=False)
    open_folder(folder, replace(made, n_records=0, n_failed=0, ids_sha256=""))
    n_failed = 0
    for index, shard in enumerate(store.shards()):
        with atomic(shard_path(folder, index)) as temporary:
            n_failed += with_model_energies(shard, temporary, energies_ev, NO_ENERGY)
    if n_failed == manifest.n_records:
        raise StoreError(f"none of the ids of {store.folder} has an energy; check the ids of both.")
    complete(folder, made, manifest.n_records, n_failed, manifest.ids_sha256)
    return FeatureStore(folder)
