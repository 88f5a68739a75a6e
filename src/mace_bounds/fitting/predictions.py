"""Energies that some other model published for the structures, in place of the backbone's own."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from mace_bounds.bounds import with_energies
from mace_bounds.errors import LabelError, StructureError
from mace_bounds.features import FeatureRows, element_counts
from mace_bounds.settings import check_settings, setting
from mace_bounds.structures import Upload, clean, label_trouble, load_json, suspect_label, to_energy, unpacked

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("id", "material_id", "mat_id", "entry_id")
NO_PREDICTION = "no published energy under this id; add it to the table of predictions"
_MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class PredictionTable:
    """A table of energies that some model gave, as settings: what is bounded in place of the backbone's energies.

    Attributes
    ----------
    predictions : path or None
        CSV, Parquet or JSON; see :func:`read_predictions`.
    energy_column, id_column : str or None
        Its columns of total energies, eV, and of ids; None finds that of ids.
    """

    predictions: Path | None = setting(
        None,
        "CSV, Parquet or JSON of total energies of these structures by the model that the head names: for a head of "
        "published energies, whose features another model gives.",
        metavar="TABLE",
    )
    energy_column: str | None = setting(None, "Its column of total energies, eV.", metavar="NAME")
    id_column: str | None = setting(
        None, "Its column of ids.", metavar="NAME", shown="id, material_id, mat_id or entry_id"
    )

    def __post_init__(self) -> None:
        check_settings(self, LabelError)
        if (self.predictions is None) != (self.energy_column is None) or (
            self.id_column is not None and self.predictions is None
        ):
            raise LabelError(
                "a table of predictions and the name of its energy column belong together; give both "
                "(--predictions TABLE --energy-column NAME)."
            )

    def energies(self) -> pd.Series[float] | None:
        """Energies by id from the table; None without one."""
        if self.predictions is None or self.energy_column is None:
            return None
        return read_predictions(self.predictions, self.energy_column, self.id_column)

    def by_id(self) -> dict[str, float] | None:
        """The same as :meth:`BoundsPredictor.predict` takes it."""
        energies = self.energies()
        return None if energies is None else {str(key): float(energy) for key, energy in energies.items()}


def read_predictions(
    path: str | Path | Upload, column: str, id_column: str | None = None
) -> pd.Series[float]:
    """Read published energies by id.

    Parameters
    ----------
    path : path or Upload
        CSV, TSV, JSON (all shapes that pandas writes, and JSON lines) or Parquet, packed or not (``.csv.gz``). Ids are
        text as it is written; in JSON the keys of rows are ids where there is no column of ids.
    column : str
        Column of the total energies of the cells, eV.
    id_column : str, optional
        Column of the ids; by default the first that is there of ``id``, ``material_id``, ``mat_id``, ``entry_id``.

    Returns
    -------
    Series of float64
        Energies, eV, indexed by id as text.

    Raises
    ------
    LabelError
        If the table cannot be read, lacks a column, or gives one id two energies.
    """
    import pandas as pd

    table = _read(path if isinstance(path, Upload) else Path(path))
    wanted = id_column or next((name for name in ID_COLUMNS if name in table.columns), None)
    for name in (column, *([id_column] if id_column else [])):
        if name not in table.columns:
            raise LabelError(f"{path} has no column {name}; it has {_listed(table)}: name one of these.")
    ids = table.columns[wanted] if wanted is not None else table.index
    if ids is None:
        raise LabelError(
            f"{path} has no column of ids ({', '.join(ID_COLUMNS)}); it has {_listed(table)}: "
            "name the one of ids (--id-column)."
        )
    values = table.columns[column]
    for shown, cells in ((column, values), (wanted, ids)):
        if any(isinstance(cell, (list, dict)) for cell in cells[:100]):
            raise LabelError(f"column {shown} of {path} holds lists or objects; give one value in each row.")
    pairs = [
        (_id(key), energy)
        for key, cell in zip(ids, values, strict=False)
        if key is not None and (energy := to_energy(cell)) is not None
    ]
    energies: pd.Series[float] = pd.Series(
        np.array([energy for _, energy in pairs], dtype=np.float64),
        index=pd.Index([key for key, _ in pairs], dtype=object),
    )
    if energies.empty:
        raise LabelError(f"column {column} of {path} holds no energies; name another column.")
    twice = energies.index[energies.index.duplicated()]
    if len(twice):
        raise LabelError(f"{path} gives the id {clean(twice[0])} two or more energies; keep one of them.")
    return energies


@dataclass(frozen=True)
class _Table:
    """Cells by column as the file has them, and the names of rows where the file names them."""

    columns: dict[str, Sequence[Any]]
    index: Sequence[Any] | None = None


def _id(key: Any) -> str:
    """Return an id as it is written; a whole number that became a float is one again."""
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


def _read(path: Path | Upload) -> _Table:
    try:
        name, data = unpacked(path, path.max_bytes if isinstance(path, Upload) else _MAX_BYTES)
        kind = Path(name).suffix.lower()
        if kind in _READERS:
            return _READERS[kind](data)
    except StructureError as error:
        raise LabelError(f"{path} cannot be read as a table: {error}") from None
    except Exception as error:  # pandas, pyarrow and JSON raise whatever comes of damaged files
        raise LabelError(
            f"{path} cannot be read as a table ({type(error).__name__}); check the path and the format."
        ) from error
    raise LabelError(
        f"a table of predictions is a .csv, .parquet or .json file (or .tsv, .jsonl; packed too), and {path} is none; "
        "convert it."
    )


def _read_csv(data: bytes, separator: str = ",") -> _Table:
    import pandas as pd

    # all is text: 0001, 1e5 and NA are ids
    table = pd.read_csv(io.BytesIO(data), sep=separator, dtype=str, keep_default_na=False)
    return _Table({str(name): table[name].tolist() for name in table.columns})


def _read_parquet(data: bytes) -> _Table:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(data))  # what pandas says of its index is not needed
    return _Table({name: table.column(k).to_pylist() for k, name in enumerate(table.column_names)})


def _read_lines(data: bytes) -> _Table:
    return _of_rows([orjson.loads(line) for line in data.splitlines() if line.strip()])


def _read_json(data: bytes) -> _Table:
    """Read the shapes in which pandas writes JSON: records, split, table, columns, index; and JSON lines."""
    try:
        content = load_json(data)
    except StructureError:
        return _read_lines(data)
    if isinstance(content, list):
        return _of_rows(content)
    if not isinstance(content, dict):
        raise ValueError("no table")
    if isinstance(content.get("data"), list):
        if isinstance(content.get("columns"), list):
            rows = [dict(zip(map(str, content["columns"]), row, strict=False)) for row in content["data"]]
            return replace(_of_rows(rows), index=_named(content.get("index") or []))
        return _of_rows(content["data"])
    inner = {str(key): value for key, value in content.items() if isinstance(value, dict)}
    if not inner:
        return _of_rows([content])
    if _is_by_row(inner):
        return replace(_of_rows(list(inner.values())), index=_named(list(inner)))
    return _of_columns(inner)


def _is_by_row(inner: dict[str, dict[str, Any]]) -> bool:
    """Tell whether the outer keys name rows: there are more of them, or the inner ones name a column of ids."""
    first = next(iter(inner.values()))
    return any(name in first for name in ID_COLUMNS) or len(inner) > len(first)


def _of_rows(rows: Sequence[Any]) -> _Table:
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows are no objects")
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return _Table({name: [row.get(name) for row in rows] for name in names})


def _of_columns(columns: dict[str, dict[str, Any]]) -> _Table:
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    return _Table({name: [cells.get(key) for key in keys] for name, cells in columns.items()}, _named(keys))


def _named(keys: Sequence[Any]) -> Sequence[Any] | None:
    """Return the names of rows, unless they only count them."""
    return None if [str(key) for key in keys] == [str(k) for k in range(len(keys))] else keys


_READERS: dict[str, Callable[[bytes], _Table]] = {
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, separator="\t"),
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
}


def _listed(table: _Table) -> str:
    names = [clean(name, 40) for name in table.columns]
    return ", ".join(names[:12]) + (" and others" if len(names) > 12 else "")


def with_predictions(rows: FeatureRows, energies: pd.Series[float]) -> FeatureRows:
    """Put published energies where the backbone's are; a row without one gets a reason.

    Parameters
    ----------
    rows : FeatureRows
        Rows of a feature store.
    energies : Series of float64
        From :func:`read_predictions`.

    Returns
    -------
    FeatureRows
        The features stay the backbone's; ``energy_model_ev`` is the published energy, eV.
    """
    published = np.asarray(energies.reindex([str(key) for key in rows.table["id"]]), dtype=np.float64)
    reasons = np.full(len(published), None, dtype=object)
    reasons[np.isnan(published)] = NO_PREDICTION
    return with_energies(rows, published, reasons)


def check_predictions(rows: FeatureRows, column: str) -> dict[str, Any]:
    """Refuse a column that is not what it should be; count what it covers.

    Parameters
    ----------
    rows : FeatureRows
        From :func:`with_predictions`.
    column : str
        Name of the column, for the message.

    Returns
    -------
    dict
        ``n`` rows with a published energy and ``n_missing`` without one.

    Raises
    ------
    LabelError
        If no id is known, or most energies are eV/atom from their labels (energies per atom, for example).
    """
    missing = int((rows.table["reason"] == NO_PREDICTION).sum())
    known = len(rows.scored().table)
    if not known:
        raise LabelError("none of the structures' ids is in the table of predictions; check the ids of both.")
    labelled = rows.labelled().table
    counts = element_counts(labelled["elements"].tolist(), labelled["counts"].tolist())
    label, model = (labelled[name].to_numpy(dtype=np.float64) for name in ("energy_ev", "energy_model_ev"))
    if (trouble := label_trouble(label, model, counts)) and trouble.kind == "own":
        raise LabelError(
            f"column {column} holds the labels themselves, not a model's energies; name the column of the model's "
            "(--energy-column)."
        )
    if trouble := label_trouble(model, label, counts):
        raise LabelError(
            f"the energies in column {column} are {trouble.what}; {trouble.remedy}: it must hold total energies of the "
            "cells in eV, not corrected."
        )
    error = (labelled["energy_ev"] - labelled["energy_model_ev"]) / labelled["n_atoms"]
    odd = [suspect_label(value) for value in error]
    if odd and np.mean(odd) > 0.5:
        raise LabelError(
            f"column {column} is more than 3 eV/atom away from the labels for {sum(odd):,} of {len(odd):,} structures; "
            "it must hold total energies of the cells in eV, not per atom and not corrected."
        )
    return {"n": known, "n_missing": missing}
