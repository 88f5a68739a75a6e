"""Download a subset: pages as they come, then one file of labelled entries and a summary beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.errors import SourceError
from mace_bounds.materials_project.connection import (
    find_endpoint,
    find_key,
    heartbeat,
    open_client,
    plain_id,
)
from mace_bounds.materials_project.entries_file import EntriesFile, Tally
from mace_bounds.materials_project.guard import FIELDS, entry_of
from mace_bounds.materials_project.page_cache import Changed, KeepingAdapter, read_page, write_whole
from mace_bounds.materials_project.query import THERMO_TYPE, Query, parse_query
from mace_bounds.materials_project.retry import PatientAdapter, silent
from mace_bounds.structures import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mace_bounds.materials_project.connection import Heartbeat

SUFFIX = ".jsonl.gz"
LICENCE = (
    "CC BY 4.0, cite the Materials Project (https://next-gen.materialsproject.org/about/terms); entries flagged "
    "licence_by_nc exclude commercial use"
)
PAGE = 500


@dataclass(frozen=True)
class Download:
    """What came of a download.

    Attributes
    ----------
    path : Path
        The file of entries, for every command that takes a SOURCE.
    summary_path : Path
        Its provenance.
    summary : dict
        What is in it: query, database version, licence, counts, refused labels, versions, SHA-256, and when the
        first page was asked for (``started``, whichever run it was) and the file was complete (``finished``).
    fresh : bool
        False if it was there already.
    """

    path: Path
    summary_path: Path
    summary: dict[str, Any]
    fresh: bool


def download(
    query: str | Query,
    out: str | os.PathLike[str],
    *,
    api_key: str | None = None,
    endpoint: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
    page_size: int = PAGE,
    **patience: Any,
) -> Download:
    """Fetch a subset of the Materials Project into a file of labelled structures.

    Structure and uncorrected energy are of the same entry of the GGA/GGA+U hull; what the label guard
    refuses stays in the file with the reason. Stopped at any moment and started again, it goes on with the
    pages that have come, and the file is the same to the byte as that of a run in one piece.

    Parameters
    ----------
    query : str or Query
        ``"mp:Li-Fe-P-O"``, ``"mp:elements=Li,Fe,hull=0.05"``, ... (see :func:`parse_query`).
    out : path
        The file, ``.jsonl.gz`` or ``.jsonl``; without either, ``.jsonl.gz`` is added.
    api_key : str, optional
        Else ``MP_API_KEY``, else pymatgen's ``PMG_MAPI_KEY``.
    endpoint : str, optional
        Else ``MP_API_ENDPOINT``, else the public interface.
    progress : callable, optional
        Called with (documents so far, documents of the searches begun, or None).
    note : callable, optional
        Called with a sentence when something is worth telling (waiting, starting anew).
    page_size : int
        Documents in one request, at most 1,000.
    **patience
        ``tries``, ``first_wait_s`` and ``timeout_s`` of :class:`PatientAdapter`.

    Raises
    ------
    SourceError
        If the key is missing or wrong, the server does not answer, nothing fits the query, or the file is there
        with something else in it.
    """
    query = parse_query(query) if isinstance(query, str) else query
    path = out_path(out)
    done = finished(query, path)
    if done is not None:
        return done
    address, key = find_endpoint(endpoint), find_key(api_key)
    tell, update = note or silent, progress or silent
    folder = path.with_name(f".{path.name}.parts")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        patient = PatientAdapter(note=tell, **patience)
        beat = heartbeat(address, patient)
        settings = {"query": str(query), "endpoint": address, "page_size": page_size, "fields": list(FIELDS)}
        settings["database_version"] = beat.database_version
        started = _prepare(folder, path, settings, tell)
        if query.everything:
            from mace_bounds.materials_project.bulk import bulk_documents

            with open_client(address, key, patient) as client:
                tally = write_entries(
                    path, query, beat, bulk_documents(client, beat.database_version, update)
                )
        else:
            adapter = KeepingAdapter(folder, on_page=update, note=tell, **patience)
            try:
                with open_client(address, key, adapter) as client:
                    search(client, query, page_size)
                if heartbeat(address, patient) != beat:
                    raise Changed
                tally = write_entries(path, query, beat, documents_of(folder, adapter.pages))
            except (Changed, NothingFound):
                _forget(folder)
                raise
        return _finish(query, path, folder, tally, beat, address, started)


def out_path(out: str | os.PathLike[str]) -> Path:
    """Return the file that a download writes; ``.jsonl.gz`` is added to a name without it."""
    path = Path(out)
    if path.is_dir():
        raise SourceError(
            f"expected the name of a file, got the folder {clean(path)}; name one in it, such as "
            f"{clean(path / 'entries.jsonl.gz')}"
        )
    return path if path.name.endswith((".jsonl", SUFFIX)) else path.with_name(path.name + SUFFIX)


def finished(query: Query, path: Path) -> Download | None:
    """Return the download if it is complete; raises :class:`SourceError` if the file holds something else."""
    summary_path, folder = _summary_path(path), path.with_name(f".{path.name}.parts")
    if not path.exists():
        return None
    try:
        summary = json.loads(summary_path.read_text(encoding="utf-8"))
        fits = summary["query"] == str(query) and summary["sha256"] == _sha256(path)
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    if fits:
        shutil.rmtree(folder, ignore_errors=True)
        return Download(path, summary_path, summary, fresh=False)
    if not folder.is_dir():  # not ours: a run that was killed at the very end leaves its pages
        raise SourceError(
            f"expected a new file or a finished download of {clean(query)}, got {clean(path)} with something else; "
            "delete it or choose another name"
        )
    return None


def search(client: Any, query: Query, page_size: int, num_chunks: int | None = None) -> None:
    """Let the client run a query's searches past its adapter; ``num_chunks`` pages of each, else all."""
    for one in query.searches():
        client.materials.thermo.search(
            **one, fields=list(FIELDS), all_fields=False, chunk_size=page_size, num_chunks=num_chunks
        )


def documents_of(folder: Path, pages: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield what the pages in a folder hold; an id on two of them means that they are of two states of the database."""
    seen: set[str] = set()
    for name in pages:
        page = read_page(folder / name)
        for document in (page or {}).get("data", ()):
            identity = str(document.get("material_id"))
            if identity in seen:
                raise Changed
            seen.add(identity)
            yield document
        if page is None:
            raise Changed


def write_entries(
    path: Path, query: Query, beat: Heartbeat, documents: Iterator[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write the entries of documents that the query wants; returns the counts for the summary."""
    tally = Tally(query.nsites, frozenset(map(plain_id, query.ids)))
    with EntriesFile(path) as file:
        for document in documents:
            named = {**document, "material_id": plain_id(str(document.get("material_id") or ""))}
            entry = entry_of(named, beat.database_version)
            if tally.keeps(entry):
                file.write(entry)
        if not tally.kept:
            raise NothingFound(query, beat.database_version)
    return tally.told()


class NothingFound(SourceError):
    """The database holds nothing that fits the query."""

    def __init__(self, query: Query, database_version: str) -> None:
        super().__init__(
            f"expected structures for {clean(query)}, got none in version {database_version} of the Materials "
            "Project; widen the query"
        )


def _finish(
    query: Query,
    path: Path,
    folder: Path,
    tally: dict[str, Any],
    beat: Heartbeat,
    address: str,
    started: str,
) -> Download:
    summary = {
        "command": "download",
        "query": str(query),
        "source": "Materials Project",
        "endpoint": address,
        "database_version": beat.database_version,
        "server_version": beat.server_version,
        "thermo_type": THERMO_TYPE,
        "label": "uncorrected PBE(+U) total energy of the cell in eV, and the structure of the same entry",
        "licence": LICENCE,
        **tally,
        "file": path.name,
        "sha256": _sha256(path),
        "versions": {name: version(name) for name in ("mace-bounds", "mp-api", "emmet-core", "pymatgen")},
        "started": started,
        "finished": _now(),
    }
    summary_path = _summary_path(path)
    write_whole(summary_path, json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n")
    _forget(folder)
    return Download(path, summary_path, summary, fresh=True)


def _prepare(folder: Path, path: Path, settings: dict[str, Any], tell: Callable[[str], None]) -> str:
    """Make the folder of pages, or take one up that was left by the same query and database.

    Returns when the first of its pages was asked for, in this run or an earlier one.
    """
    frozen = folder / "query.json"
    try:
        before = json.loads(frozen.read_text(encoding="utf-8"))
        started = str(before.pop("started"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before, started = None, ""
    if before is not None and before != settings:
        if before.get("query") != settings["query"]:
            raise SourceError(
                f"expected to go on with {clean(before.get('query'))} in {clean(path)}, got {settings['query']}; "
                f"choose another name or delete {clean(folder)}"
            )
        tell(
            f"note: pages of version {before.get('database_version')} are fetched anew from version "
            f"{settings['database_version']}"
        )
        before = None
    if before is None:
        _forget(folder)
        started = _now()
        write_whole(frozen, json.dumps({**settings, "started": started}).encode())
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    return started


def _forget(folder: Path) -> None:
    """Delete the pages; the lock stays with the process that holds it."""
    for file in folder.iterdir():
        if file.name != _LOCK:
            file.unlink()


_LOCK = "lock"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not on this system
            pass
        except OSError:
            raise SourceError(
                f"expected to be alone with {clean(folder)}, but another download into it is running; wait for it"
            ) from None
        try:
            yield
        finally:
            if [file.name for file in folder.iterdir()] == [_LOCK]:
                shutil.rmtree(folder, ignore_errors=True)


def _summary_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.summary.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
