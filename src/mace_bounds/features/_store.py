"""The feature store: a folder of immutable Parquet shards and a manifest (DESIGN 4)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from mace_bounds.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from mace_bounds.structures import Record

FORMAT = "mace-bounds feature store 1"
MANIFEST = "manifest.json"
FEATURES = "features"


@dataclass(frozen=True)
class Manifest:
    """What a store was made with; frozen when the first shard is written.

    Attributes
    ----------
    model, model_digest, model_head : str
        The frozen model: its name, the SHA-256 of its weights, and which of its heads.
    kind : {"readout", "descriptors"}
        What the feature columns are.
    columns : tuple of str
        Their names.
    theta0_ev : tuple of float
        The frozen readout on [readout features, n_atoms], eV; empty for descriptors.
    dtype : {"float32", "float64"}
        Precision of the forward and of the stored features.
    shard_rows : int
        Records per shard.
    versions : dict
        Versions of mace-bounds, mace and torch.
    n_records, n_failed : int
        Rows of all shards, and those with a reason instead of features; 0 until complete.
    ids_sha256 : str
        Hash of all ids in order; empty until complete.
    """

    model: str
    model_digest: str
    model_head: str
    kind: str
    columns: tuple[str, ...]
    theta0_ev: tuple[float, ...]
    dtype: str
    shard_rows: int
    versions: dict[str, str]
    n_records: int = 0
    n_failed: int = 0
    ids_sha256: str = ""

    @property
    def complete(self) -> bool:
        """Whether the run that fills the store has finished."""
        return bool(self.ids_sha256)

    def settings(self) -> dict[str, Any]:
        """Everything that must agree before a run may be resumed."""
        values = asdict(replace(self, n_records=0, n_failed=0, ids_sha256=""))
        return {**values, "columns": list(self.columns), "theta0_ev": list(self.theta0_ev)}


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Some rows of a store: a table of plain columns and the arrays beside it.

    Attributes
    ----------
    table : pandas.DataFrame
        id, source, formula, chemical_system, n_atoms, run_type, flags, reason, label_reason,
        structure_hash, energy_ev, label_kind, energy_mace_ev, fixed_energy_ev, elements, counts.
    features : ndarray of float64, shape (n_rows, n_features)
        Sums over atoms; NaN where a row has a reason.
    """

    table: pd.DataFrame
    features: NDArray[np.float64]

    def scored(self) -> FeatureRows:
        """The rows that have features."""
        return self.take(self.table["reason"].isna().to_numpy())

    def labelled(self) -> FeatureRows:
        """The rows that have features and a label."""
        return self.take((self.table["reason"].isna() & self.table["energy_ev"].notna()).to_numpy())

    def take(self, mask: NDArray[np.bool_]) -> FeatureRows:
        """The rows where ``mask`` (n_rows,) is true."""
        return FeatureRows(self.table[mask].reset_index(drop=True), self.features[mask])


class FeatureStore:
    """A feature store on disk.

    Parameters
    ----------
    folder : path
        The store's folder.

    Raises
    ------
    StoreError
        If the folder holds no store of this format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    def shards(self) -> list[Path]:
        """Finished shards in order."""
        return sorted(self.folder.glob("shard-*.parquet"))

    def rows(self) -> Iterator[FeatureRows]:
        """Iterate over the shards, one :class:`FeatureRows` each."""
        for shard in self.shards():
            yield _read_shard(shard, len(self.manifest.columns))

    def read(self) -> FeatureRows:
        """Read everything at once.

        Raises
        ------
        StoreError
            If the run that fills the store has not finished.
        """
        import pandas as pd

        if not self.manifest.complete:
            raise StoreError(
                f"expected a finished feature store in {self.folder}, but its run was interrupted or it is a part; "
                "run the same mace-bounds features command again to finish it, or mace-bounds merge for parts."
            )
        parts = list(self.rows())
        if not parts:
            raise StoreError(
                f"expected records in {self.folder}, but the store is empty; give it another source."
            )
        return FeatureRows(
            pd.concat([p.table for p in parts], ignore_index=True),
            np.concatenate([p.features for p in parts]),
        )


def is_store(folder: str | Path) -> bool:
    """Whether a path is the folder of a feature store."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest; raises :class:`StoreError` if there is none."""
    try:
        values = json.loads((folder / MANIFEST).read_text())
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        values.pop("complete")
        return Manifest(
            **{**values, "columns": tuple(values["columns"]), "theta0_ev": tuple(values["theta0_ev"])}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"expected a feature store in {folder}, but its {MANIFEST} cannot be used ({type(error).__name__}); "
            "make one with mace-bounds features SOURCE OUT."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest under a temporary name, then rename."""
    values = {"format": FORMAT, "complete": manifest.complete, **manifest.settings()}
    values |= {
        "n_records": manifest.n_records,
        "n_failed": manifest.n_failed,
        "ids_sha256": manifest.ids_sha256,
    }
    replace_file(folder / MANIFEST, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that it is there whole or not at all."""
    temporary = temporary_path(path)
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def temporary_path(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process takes, whatever else fills the same folder."""
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Delete what killed processes have left behind; for a store that nobody fills any more."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def shard_path(folder: Path, index: int) -> Path:
    """Path of the shard with this index."""
    return folder / f"shard-{index:06d}.parquet"


def record_key(record: Record) -> str:
    """What identifies a record's row: its id, structure, label and state."""
    digest = record.crystal.digest if record.crystal is not None else ""
    label = "" if record.energy_ev is None else repr(float(record.energy_ev))
    return f"{record.id}\x1f{digest}\x1f{label}\x1f{record.label_kind}\x1f{record.reason}"


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

    try:
        footer = pq.read_metadata(shard)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"expected a Parquet shard in {shard}, but it cannot be read; delete it and run again."
        ) from error
    keys = (footer.metadata or {}).get(b"mace_bounds.keys", b"").decode()
    if not keys:
        raise StoreError(f"expected a shard of a feature store, but {shard} is something else; delete it.")
    reason = footer.schema.names.index("reason")
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    good = sum(group.column(reason).statistics.null_count for group in groups)
    return ShardInfo(keys, footer.num_rows, footer.num_rows - good)


def write_shard(
    path: Path,
    records: Sequence[Record],
    reasons: Sequence[str | None],
    arrays: dict[str, NDArray[np.float64]],
    dtype: str,
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
        ``features`` (n_good, n_features), ``energy_mace_ev`` (n_good,) and ``fixed_energy_ev`` (n_good,)
        of the records without a reason, in order.
    dtype : {"float32", "float64"}
        How the features are stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(arrays[FEATURES].shape[1], dtype)
    keys = keys_hash(records)
    table = pa.Table.from_pylist(_plain_rows(records, reasons, arrays), schema=_plain_schema())
    table = table.append_column(schema.field(FEATURES), _feature_column(reasons, arrays[FEATURES], dtype))
    table = table.replace_schema_metadata({"mace_bounds.keys": keys})
    temporary = temporary_path(path)
    pq.write_table(table, temporary, compression="zstd", version="2.6")
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)


def memory_rows(
    records: Sequence[Record], reasons: Sequence[str | None], arrays: dict[str, NDArray[np.float64]]
) -> FeatureRows:
    """Rows as :meth:`FeatureStore.rows` gives them, without a store; arguments as in :func:`write_shard`."""
    import pyarrow as pa

    table = pa.Table.from_pylist(_plain_rows(records, reasons, arrays), schema=_plain_schema()).to_pandas()
    features = np.full((len(records), arrays[FEATURES].shape[1]), np.nan)
    features[[reason is None for reason in reasons]] = arrays[FEATURES]
    return FeatureRows(table, features)


def _plain_rows(
    records: Sequence[Record], reasons: Sequence[str | None], arrays: dict[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    rows, k = [], 0
    for record, reason in zip(records, reasons, strict=True):
        row: dict[str, Any] = {
            name: getattr(record, name)
            for name in ("id", "source", "run_type", "energy_ev", "label_kind", "label_reason")
        }
        row |= {"flags": list(record.flags), "reason": reason}
        if record.crystal is not None:
            crystal = record.crystal
            row |= {"formula": crystal.formula, "chemical_system": crystal.chemical_system}
            row |= {"n_atoms": len(crystal.numbers), "structure_hash": crystal.digest}
            row |= {"elements": list(crystal.counts), "counts": list(crystal.counts.values())}
        if reason is None:
            row |= {name: float(arrays[name][k]) for name in ("energy_mace_ev", "fixed_energy_ev")}
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
            "energy_mace_ev": number,
            "fixed_energy_ev": number,
            "elements": pa.list_(whole),
            "counts": pa.list_(whole),
        }
    )


def _schema(n_features: int, dtype: str) -> pa.Schema:
    import pyarrow as pa

    value = pa.float32() if dtype == "float32" else pa.float64()
    return _plain_schema().append(pa.field(FEATURES, pa.list_(value, n_features)))


def _read_shard(path: Path, n_features: int) -> FeatureRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        column = table.column(FEATURES).combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"expected a Parquet shard in {path}, but it cannot be read; delete it and run again."
        ) from error
    features = np.full((table.num_rows, n_features), np.nan)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    features[present] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, n_features)
    return FeatureRows(table.drop_columns([FEATURES]).to_pandas(), features)
