"""Energies that some other model published for the structures, in place of the backbone's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import LabelError
from mace_bounds.features import FeatureRows
from mace_bounds.structures import suspect_label

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("id", "material_id", "mat_id", "entry_id")
NO_PREDICTION = "no published energy under this id; add it to the table of predictions"
_READERS = {".csv": "read_csv", ".parquet": "read_parquet", ".json": "read_json"}


def read_predictions(path: str | Path, column: str, id_column: str | None = None) -> pd.Series[float]:
    """Read published energies by id.

    Parameters
    ----------
    path : path
        CSV, JSON (pandas' own shapes) or Parquet; CSV and JSON may be compressed (``.csv.gz``).
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
    table = _read(Path(path))
    wanted = [id_column] if id_column is not None else [name for name in ID_COLUMNS if name in table][:1]
    for name in (column, *wanted):
        if name not in table:
            raise LabelError(f"expected a column {name} in {path}, got {_listed(table)}; name one of these.")
    if not wanted:
        raise LabelError(
            f"expected a column of ids ({', '.join(ID_COLUMNS)}) in {path}, got {_listed(table)}; "
            "name it (--id-column)."
        )
    import pandas as pd

    energies: pd.Series[float] = pd.Series(
        pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64),
        index=pd.Index(table[wanted[0]].astype(str)),
    )
    energies = energies[np.isfinite(energies.to_numpy(dtype=np.float64))]
    if energies.empty:
        raise LabelError(f"expected energies in column {column} of {path}, got none; name another column.")
    twice = energies.index[energies.index.duplicated()]
    if len(twice):
        raise LabelError(
            f"expected one energy for each id in {path}, got two or more for {twice[0]}; keep one of them."
        )
    return energies


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    kind = next((suffix for suffix in reversed(path.suffixes) if suffix in _READERS), "")
    if not kind:
        raise LabelError(
            f"expected a table of predictions as .csv, .parquet or .json, got {path}; convert it."
        )
    try:
        table: pd.DataFrame = getattr(pd, _READERS[kind])(path)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise LabelError(
            f"expected a readable table in {path}, got {type(error).__name__}; check the path and the format."
        ) from error
    return table


def _listed(table: pd.DataFrame) -> str:
    names = [str(name) for name in table.columns]
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
    published = energies.reindex(rows.table["id"].astype(str)).to_numpy(dtype=np.float64)
    missing = rows.table["reason"].isna().to_numpy() & np.isnan(published)
    reason = rows.table["reason"].to_numpy(dtype=object).copy()
    reason[missing] = NO_PREDICTION
    table = rows.table.assign(energy_model_ev=published, reason=reason)
    return FeatureRows(table, np.where(missing[:, None], np.nan, rows.features), rows.atoms)


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
        raise LabelError(
            "expected ids of the structures in the table of predictions, got none of them; check the ids of both."
        )
    labelled = rows.labelled().table
    error = (labelled["energy_ev"] - labelled["energy_model_ev"]) / labelled["n_atoms"]
    odd = [suspect_label(value) for value in error]
    if odd and np.mean(odd) > 0.5:
        raise LabelError(
            f"expected total energies of the cells in eV in column {column}, got values that are more than 3 eV/atom "
            f"from the labels for {sum(odd):,} of {len(odd):,}; take the total energy (not per atom, not corrected)."
        )
    return {"n": known, "n_missing": missing}
