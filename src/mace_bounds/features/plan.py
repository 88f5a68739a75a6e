"""The plan of a store that is filled in parts: the ids of every shard of the source, also of those of other parts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from mace_bounds.errors import StoreError
from mace_bounds.features.manifest import temporary_path
from mace_bounds.features.shard import keys_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from mace_bounds.structures import Record

PLAN = "plan.parquet"
_SHARDS_PER_GROUP = 64
_N_PARTS = "mace_bounds.n_parts"


@dataclass(frozen=True)
class PlannedShard:
    """What a shard must hold.

    Attributes
    ----------
    index : int
    keys : str
        Hash of its records (:func:`mace_bounds.features.shard.keys_hash`).
    ids : tuple of str
        Their ids, in order.
    """

    index: int
    keys: str
    ids: tuple[str, ...]


class PlanWriter:
    """Write the plan of a store in ``n_parts`` shard by shard; :meth:`finish` puts it there whole."""

    def __init__(self, folder: Path, n_parts: int) -> None:
        import pyarrow.parquet as pq

        self._path, self._temporary = folder / PLAN, temporary_path(folder / PLAN)
        schema = _schema().with_metadata({_N_PARTS: str(n_parts)})
        self._writer = pq.ParquetWriter(self._temporary, schema, compression="zstd")
        self._rows: list[dict[str, object]] = []

    def add(self, index: int, records: Sequence[Record]) -> None:
        """Put down the next shard."""
        self._rows.append({"index": index, "keys": keys_hash(records), "ids": [r.id for r in records]})
        if len(self._rows) == _SHARDS_PER_GROUP:
            self._flush()

    def finish(self) -> None:
        """Put the plan in its place.

        Raises
        ------
        StoreError
            If another part has put a plan of other records there.
        """
        self._flush()
        self._writer.close()
        if self._path.exists() and not same_plan(self._path, self._temporary):
            raise StoreError(
                f"expected the source that the other parts in {self._path.parent} were made from, but it has changed "
                "since; choose a new folder for all parts."
            )
        self._temporary.replace(self._path)

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_schema()))
        self._rows.clear()


def same_plan(one: Path, other: Path) -> bool:
    """Whether two plans are of the same records."""
    return all(a == b for a, b in zip_longest(read_plan(one), read_plan(other)))


def read_plan(path: Path) -> Iterator[PlannedShard]:
    """Read a plan shard by shard, in order.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as plan:
            for batch in plan.iter_batches(batch_size=_SHARDS_PER_GROUP):
                for row in batch.to_pylist():
                    yield PlannedShard(row["index"], row["keys"], tuple(row["ids"]))
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"expected the plan of a --shard run in {path}, but it cannot be read; "
            "delete it and run one of the parts again."
        ) from error


def read_n_parts(path: Path) -> int:
    """Into how many parts the store of a plan was to be cut."""
    import pyarrow.parquet as pq

    return int(pq.read_schema(path).metadata[_N_PARTS.encode()])


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema({"index": pa.int64(), "keys": pa.string(), "ids": pa.list_(pa.string())})
