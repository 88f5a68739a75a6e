"""Parts of a store to the store: strict, so that the result is that of a run in one piece or there is none."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.errors import StoreError
from mace_bounds.features.extraction import check_settings, complete, open_folder
from mace_bounds.features.manifest import read_manifest, temporary_path
from mace_bounds.features.plan import PLAN, PlannedShard, read_n_parts, read_plan, same_plan
from mace_bounds.features.shard import shard_info, shard_path
from mace_bounds.features.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMED = 5  # ids that a message names


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
        return FeatureStore(folder)
    for place in places[1:]:
        check_settings(place, read_manifest(place), manifests[0])
    plan, shards = _plan(places), _shards(places)
    n_records, n_failed, ids_sha256 = _compare(plan, shards)
    if folder not in places:
        open_folder(folder, manifests[0])
        for index, path in shards.items():
            _copy(path, shard_path(folder, index))
    complete(folder, manifests[0], n_records, n_failed, ids_sha256)
    return FeatureStore(folder)


def _plan(places: list[Path]) -> Path:
    """The plan that the parts agree on."""
    plans = [place / PLAN for place in places if (place / PLAN).is_file()]
    if not plans:
        raise StoreError(
            f"expected at least one finished part in {', '.join(map(str, places))}, but none has left its plan; "
            "run mace-bounds features with --shard there, once more where it was interrupted."
        )
    for other in plans[1:]:
        if not same_plan(plans[0], other):
            ours, theirs = (dict.fromkeys(i for s in read_plan(p) for i in s.ids) for p in (plans[0], other))
            missing, extra = (
                _Named(i for i in ours if i not in theirs),
                _Named(i for i in theirs if i not in ours),
            )
            raise StoreError(
                f"expected parts of one source, but that of {other.parent} has changed against {plans[0].parent}: "
                f"missing {missing}, extra {extra}, the others in another order or state; make all parts anew."
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
                    f"expected every record once, but {_Named(_ids(path))} are in {before.parent} and in {place}; "
                    "leave one of the two folders out."
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
        n_failed += info.n_failed
        if info.keys != shard.keys:
            lacking, others = _difference(shard, shards[shard.index])
            missing.add(lacking)
            extra.add(others)
    for index in sorted(set(shards) - planned):
        extra.add(_ids(shards[index]))
    if missing.n or extra.n:
        n_parts = read_n_parts(plan)
        again = ", ".join(f"--shard {i}/{n_parts}" for i in sorted({k % n_parts + 1 for k in wanting}))
        raise StoreError(
            f"expected every record of the source once, but missing are {missing} and extra are {extra}; "
            + (f"run mace-bounds features with {again} again." if wanting else "make these parts anew.")
        )
    return n_records, n_failed, hashed.hexdigest()


def _difference(shard: PlannedShard, path: Path) -> tuple[list[str], list[str]]:
    """Ids that a shard lacks, and those that it has against the plan."""
    there = _ids(path)
    lacking, others = ([i for i in a if i not in set(b)] for a, b in ((shard.ids, there), (there, shard.ids)))
    if not lacking and not others:
        raise StoreError(
            f"expected the source that the plan was made from, but {path} holds {_Named(there)} in another order or "
            "with other structures or labels; make this part anew."
        )
    return lacking, others


def _ids(shard: Path) -> list[str]:
    import pyarrow.parquet as pq

    ids: list[str] = pq.read_table(shard, columns=["id"]).column("id").to_pylist()
    return ids


def _copy(source: Path, target: Path) -> None:
    """Copy a shard under a temporary name, then rename."""
    temporary = temporary_path(target)
    shutil.copyfile(source, temporary)
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(target)


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
