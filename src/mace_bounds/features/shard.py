"""One shard of a feature store: an immutable Parquet file, and the same rows in memory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import atomic
from mace_bounds.errors import StoreError
from mace_bounds.features.rows import AtomRows, FeatureRows
from mace_bounds.structures import Record

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SEAL = "mace_bounds.seal"
# as Thrift writes a text of 128
_SEALED = re.compile(rb"mace_bounds\.seal\x18\x80\x01([0-9a-f]{64})([0-9a-f]{64})")
_MAX_FOOTER_BYTES = 64 << 20
_AGAIN = "delete it and run the same command again"
FEATURES, ATOMS = "features", "atom_features"
HULL = "hull_distance_ev_per_atom"
_NUMBERS = ("n_atoms", "energy_ev", "energy_model_ev", "fixed_energy_ev", "volume_a3", HULL)
Arrays: TypeAlias = dict[str, NDArray[Any]]


def shard_path(folder: Path, index: int) -> Path:
    """Path of the shard with this index."""
    return folder / f"shard-{index:06d}.parquet"


def record_key(record: Record) -> str:
    """What identifies a record's row: its id, structure, label, state and, where known, hull distance."""
    digest = record.crystal.digest if record.crystal is not None else ""
    label = "" if record.energy_ev is None else repr(float(record.energy_ev))
    hull = record.hull_distance_ev_per_atom
    distance = "" if hull is None else f"\x1f{float(hull)!r}"
    return f"{record.id}\x1f{digest}\x1f{label}\x1f{record.label_kind}\x1f{record.reason}{distance}"


def keys_hash(records: Sequence[Record]) -> str:
    """Hash of the records of a shard: ids, structures, labels and states, in order."""
    return hashlib.sha256("\n".join(record_key(r) for r in records).encode()).hexdigest()


@dataclass(frozen=True)
class ShardInfo:
    """What the footer of a shard tells.

    Attributes
    ----------
    keys : str
        :func:`keys_hash` of the records it was made from.
    n_records, n_failed : int
        Its rows, and those with a reason instead of features.
    """

    keys: str
    n_records: int
    n_failed: int


def shard_info(shard: Path) -> ShardInfo:
    """Read the footer of a finished shard; raises :class:`StoreError` if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_footer(shard)
    try:
        footer = pq.read_metadata(shard)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"the shard {shard} cannot be read; {_AGAIN}.") from error
    keys = footer.metadata[b"mace_bounds.keys"].decode()
    reason = footer.schema.names.index("reason")
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    good = sum(group.column(reason).statistics.null_count for group in groups)
    return ShardInfo(keys, footer.num_rows, footer.num_rows - good)


def shard_ids(shard: Path) -> list[str]:
    """Ids of a finished shard, in order; raises :class:`StoreError` if it is damaged."""
    ids: list[str] = _read(shard, ["id"]).column("id").to_pylist()
    return ids


def check_bytes(shard: Path) -> None:
    """Compare every byte of a shard with its seal; raises :class:`StoreError` if one has changed."""
    seal, start = _check_footer(shard)
    with shard.open("rb") as file:
        if _sha256(file.read(start)) != seal:
            raise StoreError(f"the shard {shard} is damaged or was changed after it was written; {_AGAIN}.")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _seal(path: Path) -> None:
    """Put into the footer the hash of all before it, and that of the footer itself: one flipped bit is noticed."""
    with path.open("rb+") as file:
        start, tail = _tail(file)
        file.seek(0)
        data = _sha256(file.read(start))
        place = _SEALED.search(tail)
        assert place is not None
        tail = tail[: place.start(1)] + data + tail[place.end(1) :]
        file.seek(start)
        file.write(tail[: place.start(2)] + _sha256(tail) + tail[place.end(2) :])


def _tail(file: BinaryIO) -> tuple[int, bytes]:
    """Where the footer of a Parquet file begins, and all from there on; ValueError where there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    length = int.from_bytes(file.read(4), "little") + 8
    if file.read(4) != b"PAR1" or not 8 < length <= min(size, _MAX_FOOTER_BYTES):
        raise ValueError("no footer")
    file.seek(size - length)
    return size - length, file.read(length)


def _check_footer(shard: Path) -> tuple[bytes, int]:
    """Hash that the bytes before the footer must have, and their number; StoreError if the footer has changed."""
    try:
        with shard.open("rb") as file:
            start, tail = _tail(file)
    except (OSError, ValueError) as error:
        raise StoreError(f"the shard {shard} cannot be read; {_AGAIN}.") from error
    place = _SEALED.search(tail)
    if place is None:
        raise StoreError(
            f"{shard} is no shard of a feature store, or one of an older version; make the store again."
        )
    if _sha256(tail[: place.start(2)] + b"0" * 64 + tail[place.end(2) :]) != place[2]:
        raise StoreError(f"the shard {shard} is damaged or was changed after it was written; {_AGAIN}.")
    return place[1], start


def _read(shard: Path, columns: list[str]) -> pa.Table:
    """Some columns of a shard, whose pages are compared with their checksums; StoreError if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_footer(shard)
    try:
        with pq.ParquetFile(shard, page_checksum_verification=True) as file:
            return file.read(columns=columns)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"the shard {shard} is damaged or was changed after it was written; {_AGAIN}."
        ) from error


def write_shard(
    path: Path,
    records: Sequence[Record],
    reasons: Sequence[str | None],
    arrays: Arrays,
    dtype: str,
    space_groups: Sequence[str | None] | None = None,
) -> None:
    """Write one shard whole.

    Parameters
    ----------
    path : Path
        Where it goes.
    records : sequence of Record
        All records of the shard.
    reasons : sequence of str or None
        Why a record has no features; None where it has.
    arrays : dict
        ``features`` (n_good, n_features), ``energy_model_ev`` (n_good,) and ``fixed_energy_ev`` (n_good,)
        of the records without a reason, in order; ``atom_features`` (n_atoms, n_features) where the atoms
        of these are to be kept.
    dtype : {"float32", "float64"}
        How the features are stored.
    space_groups : sequence of str or None, optional
        Of every record, where they are to be kept.
    """
    import pyarrow as pa

    schema = _schema(arrays[FEATURES].shape[1], dtype)
    keys = keys_hash(records)
    rows = _plain_rows(records, reasons, arrays)
    for row, group in zip(rows, space_groups or (), strict=space_groups is not None):
        row["space_group"] = group
    table = pa.Table.from_pylist(rows, schema=_plain_schema())
    table = table.append_column(schema.field(FEATURES), _feature_column(reasons, arrays[FEATURES], dtype))
    if ATOMS in arrays:
        table = table.append_column(ATOMS, _atom_column(_atom_counts(records, reasons), arrays[ATOMS]))
    table = table.replace_schema_metadata({"mace_bounds.keys": keys})
    with atomic(path) as temporary:
        _write_sealed(table, temporary)


def _write_sealed(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whose pages have checksums and whose footer has the hash of all bytes."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(
        path, table.schema, compression="zstd", version="2.6", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_SEAL: "0" * 128})
    _seal(path)


def memory_rows(records: Sequence[Record], reasons: Sequence[str | None], arrays: Arrays) -> FeatureRows:
    """Rows as :meth:`FeatureStore.rows` gives them, without a store; arguments as in :func:`write_shard`."""
    import pyarrow as pa

    table = pa.Table.from_pylist(_plain_rows(records, reasons, arrays), schema=_plain_schema()).to_pandas()
    features = np.full((len(records), arrays[FEATURES].shape[1]), np.nan)
    features[[reason is None for reason in reasons]] = arrays[FEATURES]
    atoms = AtomRows(arrays[ATOMS], _atom_counts(records, reasons)) if ATOMS in arrays else None
    return FeatureRows(table, features, atoms)


def few_rows(records: Sequence[Record], arrays: Arrays) -> FeatureRows:
    """:func:`memory_rows` of a few records that all have features, as columns without a table."""
    rows, columns = _plain_rows(records, [None] * len(records), arrays), Arrays()
    for name in _plain_schema().names:
        columns[name] = np.empty(len(rows), dtype=np.float64 if name in _NUMBERS else object)
        for k, row in enumerate(rows):  # one by one: lists of one length would become a table
            columns[name][k] = row.get(name)  # among numbers None is NaN
    atoms = AtomRows(arrays[ATOMS], columns["n_atoms"].astype(np.int64)) if ATOMS in arrays else None
    return FeatureRows(columns, arrays[FEATURES], atoms)


def _atom_counts(records: Sequence[Record], reasons: Sequence[str | None]) -> NDArray[np.int64]:
    """Atoms of each record; 0 where it has a reason."""
    crystals = (None if reason else record.crystal for record, reason in zip(records, reasons, strict=True))
    return np.fromiter((0 if c is None else len(c.numbers) for c in crystals), np.int64)


def _plain_rows(
    records: Sequence[Record], reasons: Sequence[str | None], arrays: Arrays
) -> list[dict[str, Any]]:
    rows, k = [], 0
    for record, reason in zip(records, reasons, strict=True):
        row: dict[str, Any] = {
            name: getattr(record, name)
            for name in ("id", "source", "run_type", "energy_ev", "label_kind", "label_reason", HULL)
        }
        row |= {"flags": list(record.flags), "reason": reason}
        if (crystal := record.crystal) is not None:
            row |= {"formula": crystal.formula, "chemical_system": crystal.chemical_system}
            row |= {"n_atoms": len(crystal.numbers), "structure_hash": crystal.digest}
            row |= {"elements": list(crystal.counts), "counts": list(crystal.counts.values())}
            row["volume_a3"] = crystal.volume
        if reason is None:
            row |= {name: float(arrays[name][k]) for name in ("energy_model_ev", "fixed_energy_ev")}
            k += 1
        rows.append(row)
    return rows


def _feature_column(reasons: Sequence[str | None], features: NDArray[np.float64], dtype: str) -> pa.Array:
    import pyarrow as pa

    missing = np.array([r is not None for r in reasons], dtype=bool)
    full = np.zeros((len(missing), features.shape[1]), dtype=dtype)
    full[~missing] = features
    kind = pa.float32() if dtype == "float32" else pa.float64()
    values = pa.array(full.reshape(-1), type=kind)
    return pa.FixedSizeListArray.from_arrays(values, features.shape[1], mask=pa.array(missing))


def _atom_column(counts: NDArray[np.int64], values: NDArray[np.float32]) -> pa.Array:
    """Atoms of a structure as one list, atom after atom; null where there are none."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(counts)]) * values.shape[1]
    flat = pa.array(values.reshape(-1), type=pa.float32())
    return pa.LargeListArray.from_arrays(pa.array(ends, type=pa.int64()), flat, mask=pa.array(counts == 0))


def _plain_schema() -> pa.Schema:
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int32()
    return pa.schema(
        {
            "id": text,
            "source": text,
            "formula": text,
            "chemical_system": text,
            "n_atoms": whole,
            "run_type": text,
            "flags": pa.list_(text),
            "reason": text,
            "label_reason": text,
            "structure_hash": text,
            "energy_ev": number,
            "label_kind": text,
            "energy_model_ev": number,
            "fixed_energy_ev": number,
            "elements": pa.list_(whole),
            "counts": pa.list_(whole),
            "volume_a3": number,
            "space_group": text,
            HULL: number,
        }
    )


def _schema(n_features: int, dtype: str) -> pa.Schema:
    import pyarrow as pa

    value = pa.float32() if dtype == "float32" else pa.float64()
    return _plain_schema().append(pa.field(FEATURES, pa.list_(value, n_features)))


def read_shard(path: Path, n_features: int, *, atoms: bool = False) -> FeatureRows:
    """Read a shard, with the features of single atoms if these are asked for.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    table = _read(path, [*_plain_schema().names, FEATURES, *[ATOMS] * atoms])
    missing = _foreign(table.schema, n_features, atoms=atoms)
    if missing:
        raise StoreError(f"the shard {path} has no column {missing} of the type of this format; {_AGAIN}.")
    column = table.column(FEATURES).combine_chunks()
    kept = _read_atoms(table.column(ATOMS), n_features) if atoms else None
    features = np.full((table.num_rows, n_features), np.nan)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    features[present] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, n_features)
    return FeatureRows(table.select(_plain_schema().names).to_pandas(), features, kept)


def _foreign(schema: pa.Schema, n_features: int, *, atoms: bool) -> str:
    """The first column that is not there or of another type than :func:`write_shard` gives it."""
    import pyarrow as pa

    wanted = {field.name: (field.type,) for field in _plain_schema()}
    wanted[FEATURES] = tuple(pa.list_(value, n_features) for value in (pa.float32(), pa.float64()))
    if atoms:
        wanted[ATOMS] = (pa.large_list(pa.float32()),)
    for name, types in wanted.items():
        if name not in schema.names or schema.field(name).type not in types:
            return str(name)
    return ""


def with_model_energies(path: Path, target: Path, energies_ev: Mapping[str, float], missing: str) -> int:
    """Write a shard with other energies of the model, by id; returns how many rows have none, which get a reason."""
    import pyarrow as pa

    names = [*_plain_schema().names, FEATURES]
    table = _read(path, names).replace_schema_metadata({"mace_bounds.keys": shard_info(path).keys})
    columns = {name: table.column(name).to_pylist() for name in ("id", "reason", "energy_model_ev", FEATURES)}
    for k, key in enumerate(columns["id"]):
        energy = energies_ev.get(key)
        if columns["reason"][k] is None and energy is None:
            columns["reason"][k], columns[FEATURES][k] = missing, None
        columns["energy_model_ev"][k] = energy if columns["reason"][k] is None else None
    for name in list(columns)[1:]:
        field = table.schema.field(name)
        table = table.set_column(names.index(name), field, pa.array(columns[name], type=field.type))
    _write_sealed(table, target)
    return sum(reason is not None for reason in columns["reason"])


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read plain columns of a shard; raises :class:`StoreError` if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table: pd.DataFrame = file.read(columns=columns).to_pandas()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"the shard {path} cannot be read; delete it and run the same command again."
        ) from error
    return table


def _read_atoms(column: pa.ChunkedArray, n_features: int) -> AtomRows:
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    values = pc.list_flatten(column).to_numpy().astype(np.float32, copy=False)
    return AtomRows(values.reshape(-1, n_features), (lengths // n_features).astype(np.int64))
