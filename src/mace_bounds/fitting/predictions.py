"""Energies that some other model published for the structures, in place of the backbone's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import LabelError
from mace_bounds.features import FeatureRows
from mace_bounds.structures import label_trouble, suspect_label

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd


@dataclass(frozen=True)
class PublishedEnergies:
    """Energies that some model published, to be bounded in place of the backbone's.

    Attributes
    ----------
    path : path
        The table; see :func:`read_predictions`.
    column : str
        Column of total energies, eV.
    id_column : str or None
        Column of ids; None finds it.
    """

    path: str | Path
    column: str
    id_column: str | None = None


ID_COLUMNS = ("id", "material_id", "mat_id", "entry_id")
NO_PREDICTION = "no published energy under this id; add it to the table of predictions"
_SUFFIXES = (".csv", ".parquet", ".json")


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
    import pandas as pd

    table = _read(Path(path), id_column)
    wanted = [id_column] if id_column is not None else [name for name in ID_COLUMNS if name in table][:1]
    for name in (column, *wanted):
        if name not in table:
            raise LabelError(f"{path} has no column {name}; it has {_listed(table)}: name one of these.")
    if not wanted:
        raise LabelError(
            f"{path} has no column of ids ({', '.join(ID_COLUMNS)}); it has {_listed(table)}: "
            "name the one of ids (--id-column)."
        )
    energies: pd.Series[float] = pd.Series(
        pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64),
        index=pd.Index([str(value) for value in table[wanted[0]]], dtype=object),
    )
    energies = energies[np.isfinite(energies.to_numpy(dtype=np.float64))]
    if energies.empty:
        raise LabelError(f"column {column} of {path} holds no energies; name another column.")
    twice = energies.index[energies.index.duplicated()]
    if len(twice):
        raise LabelError(f"{path} gives the id {twice[0]} two or more energies; keep one of them.")
    return energies


def _read(path: Path, id_column: str | None) -> pd.DataFrame:
    """Read a table; ids are text, as they are written: ``0001`` and ``NA`` are no numbers."""
    import pandas as pd

    kind = next((suffix for suffix in reversed(path.suffixes) if suffix in _SUFFIXES), "")
    ids: dict[Hashable, Any] = dict.fromkeys(ID_COLUMNS if id_column is None else (id_column,), str)
    try:
        if kind == ".csv":
            return pd.read_csv(path, dtype=ids, keep_default_na=False)
        if kind == ".parquet":
            return pd.read_parquet(path)
        if kind == ".json":
            return pd.read_json(path, dtype=ids)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise LabelError(
            f"{path} cannot be read as a table ({type(error).__name__}); check the path and the format."
        ) from error
    raise LabelError(
        f"a table of predictions is a .csv, .parquet or .json file, and {path} is none; convert it."
    )


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
    published = energies.reindex([str(value) for value in rows.table["id"]]).to_numpy(dtype=np.float64)
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
        raise LabelError("none of the structures' ids is in the table of predictions; check the ids of both.")
    labelled = rows.labelled().table
    counts = np.zeros((len(labelled), 119))
    for k, (elements, numbers) in enumerate(zip(labelled["elements"], labelled["counts"], strict=True)):
        counts[k, np.asarray(elements)] = numbers
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
