"""The whole database, by the client's own bulk path: its open-data table, copied to Parquet on this disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mace_bounds.errors import SourceError
from mace_bounds.materials_project.guard import FIELDS
from mace_bounds.materials_project.query import THERMO_TYPE
from mace_bounds.structures import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BATCH = 500


def bulk_documents(
    client: Any, database_version: str, progress: Callable[[int, int | None], None]
) -> Iterator[dict[str, Any]]:
    """Yield the GGA/GGA+U documents of the whole database.

    Without any criterion the client copies the collection ``thermo`` from the database's public bucket
    into ``MPRESTER_LOCAL_DATASET_CACHE`` (``~/mp_datasets``) as a Delta table of Parquet files, and later runs
    find it there. The copy holds all kinds of hulls and maybe several versions of the database.

    Parameters
    ----------
    client : mp_api.client.MPRester
        Open client.
    database_version : str
        The version to take, if the table tells versions apart; else its newest.
    progress : callable
        Called with (documents so far, documents in all).

    Raises
    ------
    SourceError
        If the bucket cannot be read, or the table is no table of thermodynamic documents.
    """
    import pyarrow.dataset as ds

    try:
        table = client.materials.thermo.search().pyarrow_dataset
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise SourceError(
            f"expected the Materials Project's open-data bucket, got '{one_line(error)}'; check the connection to "
            "s3.amazonaws.com, or ask for a part of the database, which comes another way"
        ) from None
    if not {"material_id", "thermo_type", "entries"} <= set(table.schema.names):
        raise SourceError(
            f"expected a table of thermodynamic documents, got the columns {', '.join(table.schema.names)[:120]}; "
            "delete the folder mp_datasets and run the same command again"
        )
    table = _of_one_version(table, database_version)
    wanted = ds.field("thermo_type") == THERMO_TYPE
    total, done = table.count_rows(filter=wanted), 0
    columns = [name for name in FIELDS if name in table.schema.names]
    for batch in table.to_batches(columns=columns, filter=wanted, batch_size=_BATCH):
        for document in batch.to_pylist(maps_as_pydicts="strict"):
            yield _plain(document)
        done += batch.num_rows
        progress(done, total)


def _of_one_version(table: Any, database_version: str) -> Any:
    """Return the files of the database's version, else of the newest: each version has a folder of its own."""
    import pyarrow.dataset as ds

    by_version: dict[str, list[str]] = {}
    for file in sorted(table.files):
        found = re.search(r"/version=([^/]+)/", file)
        by_version.setdefault(found[1].replace("-", ".") if found else "", []).append(file)
    if len(by_version) < 2:
        return table
    version = database_version.replace("-", ".")
    return ds.dataset(by_version.get(version) or by_version[max(by_version)], format="parquet")


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Turn a row of the table into what the search answers: no empty fields, adjustments as JSON objects."""
    from mace_bounds.structures import load_json

    plain: dict[str, Any] = _without_none(document)
    for entry in (plain.get("entries") or {}).values():
        packed = entry.get("energy_adjustments")
        if isinstance(packed, (str, bytes)):
            entry["energy_adjustments"] = load_json(packed if isinstance(packed, bytes) else packed.encode())
    return plain


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
