"""Tables of the schema in memory and in files: types, Parquet, CSV, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import atomic
from mace_bounds.columns import KNOWN
from mace_bounds.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    import pyarrow as pa

    from mace_bounds.columns import Column, DType


def stamped(table: pd.DataFrame, provenance: Mapping[str, Any]) -> pd.DataFrame:
    """Put the columns of :data:`PROVENANCE` behind a table that has its own level or none; what is there stays."""
    missing = {name: value for name, value in provenance.items() if name not in table}
    return table.assign(**missing)


def arrow_schema(columns: Iterable[Column], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the Parquet schema of columns; ``metadata`` goes into the file's footer."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "float": pa.float64(), "integer": pa.int32(), "boolean": pa.bool_()}
    return pa.schema({column.name: kinds[column.dtype] for column in columns}, metadata=metadata)


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Give the columns of a table the types of the schema; columns that it does not know stay as they are.

    Text stays text whatever it looks like (``0001``, ``1e5``, ``NA``); empty text is None. Integers and booleans that
    may be empty have pandas' nullable types.
    """
    return frame({str(name): table[name] for name in table.columns}).set_index(table.index)


def frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of columns (arrays or series of one length), with the types of the schema as :func:`typed`."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: _cast(values, KNOWN[name].dtype if name in KNOWN else None)
            for name, values in columns.items()
        },
        copy=False,
    )


def _cast(values: Any, kind: DType | None) -> Any:
    import numpy as np
    import pandas as pd

    if kind == "text":
        text = np.empty(len(values), dtype=object)
        text[:] = [v if isinstance(v, str) and v else None for v in values]
        return text
    if kind == "float":
        return np.asarray(values, dtype=np.float64)
    if kind == "integer":
        number = np.array([np.nan if v is None or v is pd.NA else v for v in values], dtype=np.float64)
        empty = np.isnan(number)
        return pd.arrays.IntegerArray(np.where(empty, 0, number).astype(np.int64), empty)
    if kind == "boolean":
        known = {True: True, False: False, "True": True, "False": False}
        plain = [None if v is None or v is pd.NA or v != v else known.get(v) for v in values]
        return pd.array(plain, dtype="boolean")
    return np.asarray(values) if isinstance(values, pd.Series) else values


def write_table(table: pd.DataFrame, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table, by the suffix of ``path``, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        Columns of the schema get its types; others are written as they are.
    path : path
        ``.parquet``, ``.csv``, ``.tsv`` or ``.json``.
    metadata : mapping of str to str, optional
        For the footer of a Parquet file.

    Raises
    ------
    StoreError
        If the suffix is another one.
    """
    path = Path(path)
    with atomic(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(typed(table), temporary, metadata)
        elif path.suffix in (".csv", ".tsv"):
            typed(table).to_csv(temporary, index=False, sep="," if path.suffix == ".csv" else "\t")
        elif path.suffix == ".json":
            temporary.write_text(to_json(table), encoding="utf-8")
        else:
            raise StoreError(f"cannot write a table as {path.name}; use .parquet, .csv, .tsv or .json.")


def _write_parquet(table: pd.DataFrame, path: Path, metadata: Mapping[str, str] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        arrow_schema([KNOWN[field.name]]).field(0) if field.name in KNOWN else field for field in plain.schema
    ]
    schema = pa.schema(fields, metadata={**(plain.schema.metadata or {}), **(metadata or {})})
    pq.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), path, compression="zstd")


def to_json(table: pd.DataFrame) -> str:
    """Rows of a table as a JSON array, indented; what is empty is null."""
    return json.dumps(records(table), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain mappings of Python values; what is empty is None."""
    import pandas as pd

    names = [str(name) for name in table.columns]
    rows = (zip(names, row, strict=True) for row in table.itertuples(index=False, name=None))
    return [
        {name: None if pd.isna(v) else v.item() if hasattr(v, "item") else v for name, v in row}
        for row in rows
    ]


def read_table(path: str | Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table that :func:`write_table` wrote, with the types of the schema.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    import pandas as pd
    import pyarrow as pa

    path = Path(path)
    try:
        if path.suffix == ".parquet":
            return typed(pd.read_parquet(path, columns=columns))
        if path.suffix == ".json":
            table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
            return typed(table if columns is None else table[columns])
        text = [c.name for c in KNOWN.values() if c.dtype in ("text", "boolean")]
        kinds: dict[str, Any] = dict.fromkeys(text, str)
        empty = {c.name: [""] for c in KNOWN.values() if c.dtype not in ("text", "boolean")}
        head = pd.read_csv(path, nrows=0).columns
        empty |= {name: [""] for name in head if name not in kinds}
        table = pd.read_csv(path, usecols=columns, dtype=kinds, keep_default_na=False, na_values=empty)
        return typed(table)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} cannot be read as a table ({type(error).__name__}); make it again."
        ) from error
