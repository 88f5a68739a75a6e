"""The first page of a query, and how much the whole would bring, without downloading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mace_bounds.materials_project.connection import Connection, require_client
from mace_bounds.materials_project.downloading import write_entries
from mace_bounds.materials_project.query import Query, parse_query

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class QueryPreview:
    """What a query would bring, judged by its first page."""

    database_version: str
    documents: int  # documents that the searches find
    page: int  # documents of the first page (of each search) that were fetched
    # structures, labelled: of these documents, how many the file would hold, and how many of them have a
    # label
    structures: int
    labelled: int
    # file_bytes, page_bytes: size of the page as lines of the file, and as it is kept while a download runs
    file_bytes: int
    page_bytes: int
    file: Path  # the page as a file of entries


def preview(
    query: str | Query,
    file: Path,
    connection: Connection | None = None,
    *,
    note: Callable[[str], None] | None = None,
) -> QueryPreview:
    """Fetch the first page of a query with the real client, and count the rest.

    Parameters
    ----------
    query : str or Query
    file : Path
        Where the page's entries go, as :func:`download` would write them.
    connection, note
        As for :func:`download`.

    Raises
    ------
    SourceError
        As :func:`download`.
    """
    require_client()
    from mace_bounds.materials_project.client import RetryAdapter, open_client, server_version
    from mace_bounds.materials_project.documents import CachingAdapter, documents_of, search

    query = parse_query(query) if isinstance(query, str) else query
    connection = connection or Connection()
    connection.key()  # a missing one is an error before a server is asked
    totals = [0, 0]

    def count(done: int, total: int) -> None:
        totals[:] = done, total

    with TemporaryDirectory() as name:
        folder = Path(name)
        server = server_version(connection.address(), RetryAdapter(connection, note))
        adapter = CachingAdapter(folder, connection, note, on_page=count)
        with open_client(connection, adapter) as client:
            search(client, query, connection.page_size, num_chunks=1)
        counts = write_entries(file, query, server, documents_of(folder, adapter.pages))["counts"]
        page_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return QueryPreview(
        database_version=server.database,
        documents=totals[1],
        page=totals[0],
        structures=counts["structures"],
        labelled=counts["labelled"],
        file_bytes=file.stat().st_size,
        page_bytes=page_bytes,
        file=file,
    )
