"""Records to a feature store, shard by shard: stopped at any instant, resumed to the same bytes."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.errors import StoreError
from mace_bounds.features.engines import Shard, open_engine, run_shards
from mace_bounds.features.manifest import (
    Manifest,
    is_store,
    read_manifest,
    remove_temporaries,
    write_manifest,
)
from mace_bounds.features.plan import PLAN, PlanWriter
from mace_bounds.features.settings import ExtractSettings
from mace_bounds.features.shard import keys_hash, shard_info, shard_path
from mace_bounds.features.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mace_bounds.backbones import Backbone
    from mace_bounds.structures import Record

IN_THIS_PROCESS = ExtractSettings(workers=1)


def extract(
    records: Iterable[Record],
    folder: str | Path,
    model: Backbone,
    settings: ExtractSettings = IN_THIS_PROCESS,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Fill a feature store from records; a store that was begun with the same settings is finished.

    The bytes of the store do not depend on the engine, nor on how often the run was interrupted. A structure over
    which the model fails, or a worker process dies, becomes a row with that reason after it was tried alone.

    Parameters
    ----------
    records : iterable of Record
        Checked records in a reproducible order; those with a reason become rows with that reason. They are
        taken as they are needed: memory does not grow with their number.
    folder : path
        The store; made if absent.
    model : Backbone
        The network that gives the features (:func:`mace_bounds.load_model`).
    settings : ExtractSettings
        What is kept, and where it is computed: ``kind``, ``atoms``, ``symmetry``, ``shard_rows``, ``workers``,
        ``scheduler``, ``part``. What concerns reading and loading has been used by then. One process by default;
        a source of a single shard, and CUDA, take one process whatever is set. Scripts that ask for more must start
        under ``if __name__ == "__main__"``, as for every use of :mod:`multiprocessing`.
    progress : callable, optional
        Called with (records done, failed among them) after each shard.

    Returns
    -------
    FeatureStore
        The finished store; unfinished if only a part was asked for, which :func:`merge` joins with the others.

    Raises
    ------
    StoreError
        If the folder holds something else, a store of other settings, or shards of other records.
    EngineError
        If the workers cannot be started or reached, or die without a structure to blame.
    """
    folder = Path(folder).absolute()  # workers may run elsewhere
    manifest = _manifest(model, settings)
    open_folder(folder, manifest)
    run = _Run(folder, settings, progress)
    shards = run.unfinished(records)
    ahead = list(islice(shards, 2))
    if ahead:
        # a source of one shard is done before processes could have loaded the model
        several = settings.workers if run.n_shards > 1 else 1
        engine = open_engine(model, workers=several, scheduler=settings.scheduler)
        with closing(run_shards(engine, chain(ahead, shards))) as finished:
            for shard, n_failed in finished:
                run.count(len(shard.records), n_failed)
    run.finish(manifest)
    return FeatureStore(folder)


class _Run:
    """What a run learns while it streams through the source."""

    def __init__(
        self,
        folder: Path,
        settings: ExtractSettings,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._folder, self._settings, self._part = folder, settings, settings.part
        self._progress = progress
        self._ids = hashlib.sha256()
        self._plan = None
        if settings.part is not None and not read_manifest(folder).complete:
            self._plan = PlanWriter(folder, settings.part[1])
        self.n_shards = self._n_records = self._n_done = self._n_failed = 0

    def unfinished(self, records: Iterable[Record]) -> Iterator[Shard]:
        """The shards that are still to be filled; those that are there are compared with the source."""
        first, step = self._part or (1, 1)
        kept = self._settings
        stream = iter(records)
        while batch := list(islice(stream, kept.shard_rows)):
            index = self.n_shards
            self.n_shards, self._n_records = index + 1, self._n_records + len(batch)
            self._ids.update("".join(f"{record.id}\n" for record in batch).encode())
            if self._plan is not None:
                self._plan.add(index, batch)
            if index % step != first - 1:
                continue
            path = shard_path(self._folder, index)
            if path.exists():
                self._compare(path, batch)
            else:
                yield Shard(index, path, batch, kind=kept.kind, atoms=kept.atoms, symmetry=kept.symmetry)

    def count(self, n_records: int, n_failed: int) -> None:
        """Note a finished shard."""
        self._n_done += n_records
        self._n_failed += n_failed
        if self._progress is not None:
            self._progress(self._n_done, self._n_failed)

    def finish(self, manifest: Manifest) -> None:
        """Write what completes the store, or the part."""
        if shard_path(self._folder, self.n_shards).exists():
            raise StoreError(
                f"expected at least as many records as {self._folder} was made from, but the source has only "
                f"{self._n_records} now; choose a new folder for the store."
            )
        if not self._n_records:
            raise StoreError(
                "expected at least one record, but the source is empty; give it a file with structures."
            )
        if self._plan is not None:
            self._plan.finish()
        if self._part is None:
            complete(self._folder, manifest, self._n_records, self._n_failed, self._ids.hexdigest())

    def _compare(self, path: Path, batch: list[Record]) -> None:
        there = shard_info(path)
        if there.keys != keys_hash(batch):
            raise StoreError(
                f"expected the records that {path} was made from, but the source has changed since; "
                "choose a new folder for the store."
            )
        self.count(there.n_records, there.n_failed)


def complete(folder: Path, manifest: Manifest, n_records: int, n_failed: int, ids_sha256: str) -> None:
    """Write the manifest of a store whose shards are all there, and clear away what only its making needed."""
    write_manifest(folder, replace(manifest, n_records=n_records, n_failed=n_failed, ids_sha256=ids_sha256))
    (folder / PLAN).unlink(missing_ok=True)
    remove_temporaries(folder)


def open_folder(folder: Path, manifest: Manifest) -> None:
    """Make the folder of a store, or see that the one that is there was begun with the same settings."""
    if not is_store(folder):
        if folder.exists() and (not folder.is_dir() or _holds_something_else(folder)):
            raise StoreError(
                f"expected a new or empty folder, but {folder} holds something else; choose another."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, manifest)
    check_settings(folder, read_manifest(folder), manifest)


def check_settings(folder: Path, before: Manifest, now: Manifest) -> None:
    """Raise :class:`StoreError` if the settings of the store in ``folder`` are not those of ``now``."""
    there, here = before.settings(), now.settings()
    different = sorted(key for key in here if there.get(key) != here[key])
    if different:
        raise StoreError(
            f"expected the settings that {folder} was begun with, but {', '.join(different)} differ; "
            "use the same settings or choose a new folder."
        )


def _holds_something_else(folder: Path) -> bool:
    """Whether there is more than another part of the same run, begun at this instant, has put there."""
    return any(not path.name.endswith(".tmp") for path in folder.iterdir()) and not is_store(folder)


def _manifest(model: Backbone, settings: ExtractSettings) -> Manifest:
    from importlib.metadata import version

    readout = settings.kind == "readout"
    return Manifest(
        model=model.name,
        model_digest=model.digest,
        model_head=model.head,
        kind=settings.kind,
        columns=tuple(model.columns(settings.kind)),
        theta0_ev=tuple(float(t) for t in model.theta0_ev) if readout else (),
        dtype=model.dtype,
        shard_rows=settings.shard_rows,
        versions={name: version(name) for name in ("mace-bounds", "mace-torch", "torch")},
        atoms=settings.atoms,
        symmetry=settings.symmetry,
    )
