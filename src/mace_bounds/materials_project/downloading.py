"""Download a subset: pages as they come, then one file of labelled entries and a summary beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mace_bounds._io import (
    cache_folder,
    file_sha256,
    locked,
    remove_leftovers,
    summary_path,
    visible,
    write_json,
)
from mace_bounds.errors import DatabaseChanged, NothingFound, SourceError
from mace_bounds.materials_project.connection import Connection, require_client, silent
from mace_bounds.materials_project.entries_file import Tally, entries_file
from mace_bounds.materials_project.guard import FIELDS, entry_of
from mace_bounds.materials_project.query import PREFIX, THERMO_TYPE, Query, parse_query
from mace_bounds.structures import clean
from mace_bounds.versions import now

if TYPE_CHECKING:
    from mace_bounds.materials_project.client import ServerVersion

SUFFIX = ".jsonl.gz"
LICENCE = (
    "CC BY 4.0, cite the Materials Project (https://next-gen.materialsproject.org/about/terms); entries flagged "
    "licence_by_nc exclude commercial use"
)
_SETTINGS = "query.json"


@dataclass(frozen=True)
class Download:
    """The result of a download."""

    path: Path  # the file of entries, for every command that takes a SOURCE
    summary_path: Path  # its provenance
    # query, database version, licence, counts, refused labels, versions, SHA-256, and when the first page was
    # asked for (``started``, in this run or the one that it resumed) and the file was complete (``finished``)
    summary: dict[str, Any]
    fresh: bool  # false if it was there already


def download(
    query: str | Query,
    out: str | os.PathLike[str],
    connection: Connection | None = None,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Download:
    """Fetch a subset of the Materials Project into a file of labelled structures.

    Structure and uncorrected energy are of the same entry of the GGA/GGA+U hull; an entry whose label the guard
    refuses stays in the file, with the reason. An interrupted download goes on with the pages that have come and
    gives the same file as an uninterrupted one.

    Parameters
    ----------
    query : str or Query
        ``"mp:Li-Fe-P-O"``, ``"mp:elements=Li,Fe,hull=0.05"``, ... (see :func:`parse_query`).
    out : path
        The file, ``.jsonl.gz`` or ``.jsonl``; without either, ``.jsonl.gz`` is added.
    connection : Connection, optional
        Key, address and patience; by default from the environment.
    progress : callable, optional
        Called with (documents so far, documents of the searches begun, or None).
    note : callable, optional
        Called with a sentence when a request has to wait, or pages are fetched anew.

    Raises
    ------
    SourceError
        If the client is not installed, the key is missing or wrong, the server does not answer, or the file is there
        with something else in it. :class:`NothingFound` if nothing fits the query, :class:`DatabaseChanged` if the
        database was renewed meanwhile.
    StoreError
        If another run is downloading into the same file.
    """
    query = parse_query(query) if isinstance(query, str) else query
    path = out_path(out)
    done = finished(query, path)
    if done is not None:
        return done
    require_client()
    from mace_bounds.materials_project.client import RetryAdapter, open_client, server_version
    from mace_bounds.materials_project.documents import CachingAdapter, bulk_documents, documents_of, search

    connection = connection or Connection()
    address, _ = connection.address(), connection.key()  # refused before anything is made on the disk
    note, progress = note or silent, progress or silent
    with _parts(path) as folder:
        adapter = RetryAdapter(connection, note)
        server = server_version(address, adapter)
        settings = {
            "query": str(query),
            "endpoint": address,
            "page_size": connection.page_size,
            "fields": list(FIELDS),
            "database_version": server.database,
        }
        started = _resume_or_start(folder, path, settings, note)
        if query.everything:
            with open_client(connection, adapter) as client:
                counts = write_entries(path, query, server, bulk_documents(client, server.database, progress))
        else:
            caching = CachingAdapter(folder, connection, note, on_page=progress)
            try:
                with open_client(connection, caching) as client:
                    search(client, query, connection.page_size)
                if server_version(address, adapter) != server:
                    raise DatabaseChanged
                counts = write_entries(path, query, server, documents_of(folder, caching.pages))
            except (DatabaseChanged, NothingFound):
                _clear(folder)
                raise
        summary = {**_provenance(query, address, server), **counts, "file": path.name}
        summary |= {
            "sha256": file_sha256(path),
            "versions": _versions(),
            "started": started,
            "finished": now(),
        }
        write_json(summary_path(path), summary)
        _clear(folder)
    return Download(path, summary_path(path), summary, fresh=True)


def out_path(out: str | os.PathLike[str]) -> Path:
    """Return the file that a download writes; ``.jsonl.gz`` is added to a name without it."""
    path = Path(out)
    if path.is_dir():
        raise SourceError(
            f"{clean(path)} is a folder; name a file in it, such as {clean(path / 'entries.jsonl.gz')}."
        )
    return path if path.name.endswith((".jsonl", SUFFIX)) else path.with_name(path.name + SUFFIX)


def finished(query: Query, path: Path) -> Download | None:
    """Return the download if it is complete; raises :class:`SourceError` if the file holds something else."""
    about, folder = summary_path(path), _parts_folder(path)
    if not path.exists():
        return None
    try:
        summary = json.loads(about.read_text(encoding="utf-8"))
        fits = summary["query"] == str(query) and summary["sha256"] == file_sha256(path)
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    if fits:
        shutil.rmtree(folder, ignore_errors=True)
        remove_leftovers(path.parent)
        return Download(path, about, summary, fresh=False)
    if not folder.is_dir():  # a run that was killed at the very end leaves its pages beside the file
        raise SourceError(
            f"{clean(path)} is not a finished download of {clean(query)}; delete it or choose another name."
        )
    return None


def write_entries(
    path: Path, query: Query, server: ServerVersion, documents: Iterator[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write the entries of documents that the query wants; returns the counts for the summary."""
    from mace_bounds.materials_project.client import plain_id

    tally = Tally(query.nsites, frozenset(map(plain_id, query.ids)))
    with entries_file(path) as write:
        for document in documents:
            named = {**document, "material_id": plain_id(str(document.get("material_id") or ""))}
            entry = entry_of(named, server.database)
            if tally.keeps(entry):
                write(entry)
        if not tally.kept:
            raise NothingFound(
                f"version {server.database} of the Materials Project holds nothing for {clean(query)}; widen the query."
            )
    return tally.summary()


def cache_path(query: str | Query) -> Path:
    """Return where the file of a query is kept: ``materials-project`` in :func:`mace_bounds._io.cache_folder`."""
    text = str(parse_query(query) if isinstance(query, str) else query)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", text.removeprefix(PREFIX))[:60]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return cache_folder() / "materials-project" / f"{name}-{digest}{SUFFIX}"


def cached(
    query: str | Query,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Download:
    """Return the download of a query in the cache, making or finishing it where it is not there.

    What is there is used without asking the server: a run that is interrupted and started again, or split over
    machines that share the folder, has to see the same structures. Delete the file to get a newer database.

    Raises
    ------
    SourceError, StoreError
        As :func:`download`.
    """
    parsed, path = parse_query(query) if isinstance(query, str) else query, cache_path(query)
    done = finished(parsed, path)
    if done is not None:
        return done
    note = note or _to_stderr
    note(f"note: {parsed} is not here yet; downloading it into {path}")
    return download(parsed, path, progress=progress, note=note)


def cached_path(query: str) -> Path:
    """Path of the file of a query in the cache: what the entry point ``mp`` of ``mace_bounds.sources`` calls."""
    return cached(query).path


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")


def _parts_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.parts")


@contextmanager
def _parts(path: Path) -> Iterator[Path]:
    """Make the folder of pages and hold it for this run; it goes when nothing is left in it but its lock."""
    folder = _parts_folder(path)
    with locked(folder):
        try:
            yield folder
        finally:
            if not visible(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _resume_or_start(folder: Path, path: Path, settings: dict[str, Any], note: Callable[[str], None]) -> str:
    """Keep the pages that the same query left, else begin; returns when the first page was asked for."""
    try:
        before = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        started = str(before.pop("started"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before = None
    if before == settings:
        return started
    if before is not None and before.get("query") != settings["query"]:
        raise SourceError(
            f"{clean(path)} was begun for {clean(before.get('query'))}, not for {settings['query']}; choose another "
            f"name or delete {clean(folder)}."
        )
    if before is not None:
        note(
            f"note: pages of version {before.get('database_version')} are fetched anew from version "
            f"{settings['database_version']}"
        )
    _clear(folder)
    started = now()
    write_json(folder / _SETTINGS, {**settings, "started": started})
    return started


def _clear(folder: Path) -> None:
    """Delete the pages; the lock stays with the process that holds it."""
    for name in visible(folder):
        (folder / name).unlink()


def _provenance(query: Query, address: str, server: ServerVersion) -> dict[str, Any]:
    return {
        "command": "download",
        "query": str(query),
        "source": "Materials Project",
        "endpoint": address,
        "database_version": server.database,
        "server_version": server.software,
        "thermo_type": THERMO_TYPE,
        "label": "uncorrected PBE(+U) total energy of the cell in eV, and the structure of the same entry",
        "licence": LICENCE,
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("mace-bounds", "mp-api", "emmet-core", "pymatgen")}


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
