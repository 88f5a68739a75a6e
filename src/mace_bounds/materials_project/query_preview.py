"""A first look at a query: how much it would bring, and its first page; nothing is kept but what the caller keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mace_bounds.materials_project.connection import find_endpoint, find_key, heartbeat, open_client
from mace_bounds.materials_project.downloading import PAGE, documents_of, search, write_entries
from mace_bounds.materials_project.page_cache import KeepingAdapter
from mace_bounds.materials_project.query import Query, parse_query
from mace_bounds.materials_project.retry import PatientAdapter, silent

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Look:
    """What a query would bring, as far as its first page tells.

    Attributes
    ----------
    database_version : str
    documents : int
        Documents that the searches find.
    page : int
        Documents of the first page (of each search) that were fetched.
    structures, labelled : int
        Of these, what the file would hold, and what of it has a label.
    seconds : float
        What the page took to come.
    file_bytes, page_bytes : int
        Size of the page as lines of the file, and as it is kept while a download runs.
    file : Path
        The page as a file of entries.
    """

    database_version: str
    documents: int
    page: int
    structures: int
    labelled: int
    seconds: float
    file_bytes: int
    page_bytes: int
    file: Path


def look(
    query: str | Query,
    file: Path,
    *,
    api_key: str | None = None,
    endpoint: str | None = None,
    note: Callable[[str], None] | None = None,
    page_size: int = PAGE,
    **patience: Any,
) -> Look:
    """Fetch the first page of a query with the real client, and count the rest.

    Parameters
    ----------
    query : str or Query
    file : Path
        Where the page's entries go, as :func:`download` would write them.
    api_key, endpoint, note, page_size
        As for :func:`download`.
    **patience
        As for :func:`download`.

    Raises
    ------
    SourceError
        As :func:`download`.
    """
    query = parse_query(query) if isinstance(query, str) else query
    address, key, tell = find_endpoint(endpoint), find_key(api_key), note or silent
    totals = [0, 0]

    def count(done: int, total: int) -> None:
        totals[:] = done, total

    with TemporaryDirectory() as name:
        folder = Path(name)
        beat = heartbeat(address, PatientAdapter(note=tell, **patience))
        adapter = KeepingAdapter(folder, on_page=count, note=tell, **patience)
        with open_client(address, key, adapter) as client:
            start = time.perf_counter()
            search(client, query, page_size, num_chunks=1)
            seconds = time.perf_counter() - start
        told = write_entries(file, query, beat, documents_of(folder, adapter.pages))
        page_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return Look(
        database_version=beat.database_version,
        documents=totals[1],
        page=totals[0],
        structures=told["counts"]["structures"],
        labelled=told["counts"]["labelled"],
        seconds=seconds,
        file_bytes=file.stat().st_size,
        page_bytes=page_bytes,
        file=file,
    )
