"""The plan of a store that is filled in parts: the ids of every shard of the source, also of those of other parts."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Self

from mace_bounds._io import atomic
from mace_bounds.errors import StoreError
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


@contextmanager
def writing_plan(folder: Path, n_parts: int) -> Iterator[PlanWriter]:
    """Write the plan of a store in ``n_parts``, which is put into its place when the block ends well.

    Raises
    ------
    StoreError
        If another part has put a plan of other records there.
    """
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
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
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
            f"the plan of a --shard run in {path} cannot be read; delete it and run one of the parts again."
        ) from error


def read_n_parts(path: Path) -> int:
    """Into how many parts the store of a plan was to be cut."""
    import pyarrow.parquet as pq

    return int(pq.read_schema(path).metadata[_N_PARTS.encode()])


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema({"index": pa.int64(), "keys": pa.string(), "ids": pa.list_(pa.string())})
