"""Documents of the database: from a search, page by page past a folder, or all of them from the client's own table."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from requests import PreparedRequest, Response

from mace_bounds._io import atomic
from mace_bounds.errors import DatabaseChanged, SourceError, StructureError
from mace_bounds.materials_project.client import RetryAdapter
from mace_bounds.materials_project.connection import Connection, silent
from mace_bounds.materials_project.guard import FIELDS
from mace_bounds.materials_project.query import THERMO_TYPE, Query
from mace_bounds.structures import clean, load_json, one_line

SEARCH_PATH = "/materials/thermo/"
_BATCH = 500


class CachingAdapter(RetryAdapter):
    """Carries the searches of thermodynamic documents, page by page, past a folder.

    A page is checked (whole JSON, as many documents as there must be), kept, and answered from the folder when
    it is asked for again. The client gets back the ids only, as the documents are on disk: memory does not grow
    with the size of a search.

    ``folder``: where pages are kept; ``connection``, ``note``: as for :class:`RetryAdapter`; ``on_page``:
    called with the number of documents so far and the number there will be of the searches begun.
    """

    def __init__(
        self,
        folder: Path,
        connection: Connection,
        note: Callable[[str], None] | None = None,
        on_page: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(connection, note)
        self.folder, self.pages = folder, list[str]()
        self._on_page = on_page or silent
        self._done, self._totals = 0, dict[str, int]()

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Answer from the folder, or ask, check and keep."""
        if not urlsplit(request.url or "").path.endswith(SEARCH_PATH):
            return super().send(request, *args, **options)
        name = page_name(str(request.url))
        page = read_page(self.folder / name)
        if page is None:
            response = super().send(request, *args, **options)
            if response.status_code != 200:
                return response
            page = load_json(response.content)
            write_page(self.folder / name, response.content)
        self._count(name, request, page)
        return _answer(request, page)

    def incomplete(self, request: PreparedRequest, response: Response) -> str:
        """Say what is missing in an answer to a search: documents, or the end of the text."""
        if response.status_code != 200 or not urlsplit(request.url or "").path.endswith(SEARCH_PATH):
            return ""
        try:
            page = load_json(response.content)
        except StructureError:
            return "a truncated answer"
        if not _is_page(page):
            return "an answer without documents or their number"
        asked = dict(parse_qsl(urlsplit(str(request.url)).query))
        skipped, limit = int(asked.get("_skip", 0)), int(asked.get("_limit", 0))
        wanted = min(limit, max(page["meta"]["total_doc"] - skipped, 0))
        return "" if len(page["data"]) == wanted else f"{len(page['data'])} documents instead of {wanted}"

    def _count(self, name: str, request: PreparedRequest, page: dict[str, Any]) -> None:
        search, total = _search_name(str(request.url)), int(page["meta"]["total_doc"])
        if self._totals.setdefault(search, total) != total:
            raise DatabaseChanged
        if name not in self.pages:
            self.pages.append(name)
            self._done += len(page["data"])
            self._on_page(self._done, sum(self._totals.values()))


def page_name(address: str) -> str:
    """File name of the page that an address asks for; the same for every host and order of parameters."""
    parts = urlsplit(address)
    text = json.dumps([parts.path.rsplit(SEARCH_PATH)[-1], sorted(parse_qsl(parts.query))])
    return f"page-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json.gz"


def read_page(path: Path) -> dict[str, Any] | None:
    """Return a page, or None if it is not there or damaged (then it is asked for again)."""
    try:
        page = load_json(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, StructureError):
        return None
    return page if _is_page(page) else None


def write_page(path: Path, content: bytes) -> None:
    """Keep the bytes of a page, compressed without name and time, so that equal content is equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as handle:
        handle.write(content)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _is_page(page: Any) -> bool:
    return (
        isinstance(page, dict)
        and isinstance(page.get("data"), list)
        and all(isinstance(document, dict) for document in page["data"])
        and isinstance(page.get("meta"), dict)
        and isinstance(page["meta"].get("total_doc"), int)
    )


def _search_name(address: str) -> str:
    query = sorted(parse_qsl(urlsplit(address).query))
    return json.dumps([pair for pair in query if pair[0] not in ("_skip", "_limit")])


def _answer(request: PreparedRequest, page: dict[str, Any]) -> Response:
    ids = [{"material_id": document.get("material_id")} for document in page["data"]]
    response = Response()
    response.status_code, response.encoding = 200, "utf-8"
    response.url, response.request = str(request.url), request
    body = json.dumps({"data": ids, "meta": page["meta"]})
    response._content = body.encode()  # there is no public way; requests' own adapters do so too
    return response


def search(client: Any, query: Query, page_size: int, num_chunks: int | None = None) -> None:
    """Let the client run a query's searches through its adapter: ``num_chunks`` pages of each, else all."""
    for arguments in query.searches():
        client.materials.thermo.search(
            **arguments, fields=list(FIELDS), all_fields=False, chunk_size=page_size, num_chunks=num_chunks
        )


def documents_of(folder: Path, pages: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the documents of the pages in a folder."""
    seen: set[str] = set()
    for name in pages:
        page = read_page(folder / name)
        for document in (page or {}).get("data", ()):
            identity = str(document.get("material_id"))
            if identity in seen:
                raise DatabaseChanged
            seen.add(identity)
            yield document
        if page is None:
            raise DatabaseChanged


def bulk_documents(
    client: Any, database_version: str, progress: Callable[[int, int | None], None]
) -> Iterator[dict[str, Any]]:
    """Yield the GGA/GGA+U documents of the whole database.

    Without any criterion the client copies the collection ``thermo`` from the database's public bucket
    into ``MPRESTER_LOCAL_DATASET_CACHE`` (``~/mp_datasets``) as a Delta table of Parquet files, and later runs
    find it there. The copy holds all kinds of hulls and maybe several versions of the database.

    ``client``: open client; ``database_version``: the version to take, if the table tells versions apart;
    else its newest; ``progress``: called with (documents so far, documents in all).
    """
    import pyarrow.dataset as ds

    try:
        table = client.materials.thermo.search().pyarrow_dataset
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise SourceError(
            f"the Materials Project's open-data bucket cannot be read ({one_line(error)}); check the connection to "
            "s3.amazonaws.com, or ask for a part of the database, which comes another way."
        ) from None
    if not {"material_id", "thermo_type", "entries"} <= set(table.schema.names):
        raise SourceError(
            f"the client's table holds {clean(', '.join(table.schema.names), 120)} and no thermodynamic documents; "
            "delete the folder mp_datasets and run the same command again."
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
        match = re.search(r"/version=([^/]+)/", file)
        by_version.setdefault(match[1].replace("-", ".") if match else "", []).append(file)
    if len(by_version) < 2:
        return table
    version = database_version.replace("-", ".")
    return ds.dataset(by_version.get(version) or by_version[max(by_version)], format="parquet")


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Turn a row of the table into what the search answers: no empty fields, adjustments as JSON objects."""
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
