"""Records to a feature store, shard by shard: stopped at any instant, resumed to the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mace_bounds._io import LOCK, atomic, locked
from mace_bounds.backbones import Backbone, golden_of
from mace_bounds.errors import StoreError
from mace_bounds.features.engines import Shard, open_engine, run_shards
from mace_bounds.features.manifest import Manifest, check_free, complete, open_folder, read_manifest
from mace_bounds.features.settings import ExtractSettings
from mace_bounds.features.shard import keys_hash, shard_info, shard_path
from mace_bounds.features.store import FeatureStore
from mace_bounds.structures import Record

if TYPE_CHECKING:
    import pyarrow as pa

PLAN = "plan.parquet"
_SHARDS_PER_GROUP = 64
_REMEDY = "delete that folder to make them again, or choose another one."
_N_PARTS = "mace_bounds.n_parts"


@dataclass(frozen=True)
class PlannedShard:
    """What a shard must hold."""

    index: int
    keys: str  # hash of its records (:func:`mace_bounds.features.shard.keys_hash`)
    ids: tuple[str, ...]  # their ids, in order


@contextmanager
def writing_plan(folder: Path, n_parts: int) -> Iterator[PlanWriter]:
    """Write the plan of a store in ``n_parts``, which is put into its place when the block ends well."""
    path = folder / PLAN
    with atomic(path) as temporary:
        with PlanWriter(temporary, n_parts) as plan:
            yield plan
        if path.exists() and not same_plan(path, temporary):
            raise StoreError(
                f"the source has changed since the other parts in {folder} were made; choose a new folder for all "
                "parts."
            )


class PlanWriter:
    """Write a plan shard by shard, in bounded memory."""

    def __init__(self, path: Path, n_parts: int) -> None:
        import pyarrow.parquet as pq

        schema = _schema().with_metadata({_N_PARTS: str(n_parts)})
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._rows: list[dict[str, object]] = []

    def add(self, index: int, records: Sequence[Record]) -> None:
        """Put down the next shard."""
        self._rows.append({"index": index, "keys": keys_hash(records), "ids": [r.id for r in records]})
        if len(self._rows) == _SHARDS_PER_GROUP:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_schema()))
        self._rows.clear()


def same_plan(one: Path, other: Path) -> bool:
    """Whether two plans are of the same records."""
    return all(a == b for a, b in zip_longest(read_plan(one), read_plan(other)))


def read_plan(path: Path) -> Iterator[PlannedShard]:
    """Read a plan shard by shard, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as plan:
            if not plan.schema_arrow.equals(_schema()) or not _n_parts(plan.schema_arrow):
                raise ValueError("another schema")
            for batch in plan.iter_batches(batch_size=_SHARDS_PER_GROUP):
                for row in batch.to_pylist():
                    yield PlannedShard(row["index"], row["keys"], tuple(row["ids"]))
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"the plan of a --shard run in {path} cannot be read; delete it and run one of the parts again."
        ) from error


def read_n_parts(path: Path) -> int:
    """Into how many parts the store of a plan, which has been read, was to be cut."""
    import pyarrow.parquet as pq

    return _n_parts(pq.read_schema(path))


def _n_parts(schema: pa.Schema) -> int:
    return int((schema.metadata or {}).get(_N_PARTS.encode(), b"0"))


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema({"index": pa.int64(), "keys": pa.string(), "ids": pa.list_(pa.string())})


def extract(
    records: Iterable[Record],
    folder: str | Path,
    model: Backbone,
    settings: ExtractSettings = ExtractSettings(),
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
    folder, part = Path(folder).absolute(), settings.part  # absolute, as workers may run elsewhere
    check_free(folder)
    with ExitStack() as stack:
        # jobs of an array fill one folder: each holds its own part
        stack.enter_context(locked(folder, LOCK if part is None else f"{LOCK}-{part[0]}-of-{part[1]}"))
        manifest = _manifest(model, settings)
        open_folder(folder, manifest)
        plan = None
        if part is not None and not read_manifest(folder).complete:
            plan = stack.enter_context(writing_plan(folder, part[1]))
        run = _Run(folder, settings, plan, progress)
        shards = run.unfinished(records)
        ahead = list(islice(shards, 2))
        if ahead:
            # a source of one shard is done before processes could have loaded the model
            several = settings.workers if run.n_shards > 1 else 1
            engine = open_engine(model, workers=several, scheduler=settings.scheduler)
            with closing(run_shards(engine, chain(ahead, shards))) as finished:
                for shard, n_failed in finished:
                    run.count(len(shard.records), n_failed)
        run.check_source()
        if part is None:
            complete(folder, manifest, run.n_records, run.n_failed, run.ids_sha256)
            (folder / PLAN).unlink(missing_ok=True)
    return FeatureStore(folder)


class _Run:
    """What a run learns while it streams through the source."""

    def __init__(
        self,
        folder: Path,
        settings: ExtractSettings,
        plan: PlanWriter | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._folder, self._settings, self._plan = folder, settings, plan
        self._progress = progress
        self._ids = hashlib.sha256()
        self.n_shards = self.n_records = self.n_failed = self._n_done = 0

    @property
    def ids_sha256(self) -> str:
        """Hash of the ids of all records so far."""
        return self._ids.hexdigest()

    def unfinished(self, records: Iterable[Record]) -> Iterator[Shard]:
        """The shards that are still to be filled; those that are there are compared with the source."""
        kept = self._settings
        first, step = kept.part or (1, 1)
        stream = iter(records)
        while batch := list(islice(stream, kept.shard_rows)):
            index = self.n_shards
            self.n_shards, self.n_records = index + 1, self.n_records + len(batch)
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
        self.n_failed += n_failed
        if self._progress is not None:
            self._progress(self._n_done, self.n_failed)

    def check_source(self) -> None:
        """Raise :class:`StoreError` if the source was empty, or has become shorter than what the folder holds."""
        if shard_path(self._folder, self.n_shards).exists():
            raise StoreError(
                f"{self._folder} holds features of more records than the source has, only {self.n_records} now; "
                + _REMEDY
            )
        if not self.n_records:
            raise StoreError("the source holds not one record; give a file with structures.")

    def _compare(self, path: Path, batch: list[Record]) -> None:
        there = shard_info(path)
        if there.keys != keys_hash(batch):
            raise StoreError(
                f"{self._folder} holds features of this source as it was before, and structures, labels or their order "
                f"have changed since ({path.name}); {_REMEDY}"
            )
        self.count(there.n_records, there.n_failed)


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
        model_file_sha256=getattr(model, "file_sha256", ""),
        golden=golden_of(model, settings.kind),
    )
