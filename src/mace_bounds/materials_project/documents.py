"""Pages of a search on disk: what has come is never asked for again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from requests import Response

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.materials_project.retry import PatientAdapter, silent
from mace_bounds.structures import load_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from requests import PreparedRequest

SEARCH_PATH = "/materials/thermo/"


class KeepingAdapter(PatientAdapter):
    """Carries the searches of thermodynamic documents, page by page, past a folder.

    A page is checked (whole JSON, as many documents as there must be), kept, and answered from the folder when
    it is asked for again. The client gets back the ids only, as the documents are on disk: memory does not grow
    with the size of a search.

    Parameters
    ----------
    folder : Path
        Where pages are kept.
    on_page : callable, optional
        Told the number of documents so far and the number there will be of the searches begun.
    """

    def __init__(
        self, folder: Path, *, on_page: Callable[[int, int], None] | None = None, **patience: Any
    ) -> None:
        super().__init__(**patience)
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
        """Say in what an answer to a search falls short."""
        if response.status_code != 200 or not urlsplit(request.url or "").path.endswith(SEARCH_PATH):
            return ""
        try:
            page = load_json(response.content)
        except StructureError:
            return "an answer that breaks off"
        if not _is_page(page):
            return "an answer without documents or their number"
        asked = dict(parse_qsl(urlsplit(str(request.url)).query))
        skipped, limit, total = (
            int(asked.get("_skip", 0)),
            int(asked.get("_limit", 0)),
            page["meta"]["total_doc"],
        )
        wanted = min(limit, max(total - skipped, 0))
        return "" if len(page["data"]) == wanted else f"{len(page['data'])} documents instead of {wanted}"

    def _count(self, name: str, request: PreparedRequest, page: dict[str, Any]) -> None:
        search, total = _search_name(str(request.url)), int(page["meta"]["total_doc"])
        if self._totals.setdefault(search, total) != total:
            raise Changed
        if name not in self.pages:
            self.pages.append(name)
            self._done += len(page["data"])
            self._on_page(self._done, sum(self._totals.values()))


class Changed(SourceError):
    """The database changed between two pages, so that they do not belong together."""

    def __init__(self) -> None:
        super().__init__(
            "expected pages of one state of the database, but it changed meanwhile; run the same command again "
            "to fetch them anew"
        )


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
    """Keep the bytes of a page: under a temporary name, synced, then renamed."""
    write_whole(path, pack(content))


def pack(content: bytes) -> bytes:
    """Compress without name and time, so that equal content is equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as handle:
        handle.write(content)
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


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
    response._content = json.dumps(
        {"data": ids, "meta": page["meta"]}
    ).encode()  # as requests' own adapters do
    return response
