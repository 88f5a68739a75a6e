"""A query where a file is expected: downloaded once, then read from the disk."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.materials_project.downloading import SUFFIX, Download, download, finished
from mace_bounds.materials_project.query import PREFIX, Query, parse_query

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = "MACE_BOUNDS_CACHE"


def cache_path(query: str | Query) -> Path:
    """Return where the file of a query is kept: in ``$MACE_BOUNDS_CACHE``, else in the user's cache folder."""
    text = str(parse_query(query) if isinstance(query, str) else query)
    base = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mace-bounds"
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", text.removeprefix(PREFIX))[:60]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path(base).expanduser() / "materials-project" / f"{name}-{digest}{SUFFIX}"


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
    SourceError
        As :func:`download`.
    """
    parsed, path = parse_query(query) if isinstance(query, str) else query, cache_path(query)
    done = finished(parsed, path)
    if done is not None:
        return done
    tell = note or _to_stderr
    tell(f"note: {parsed} is not here yet; downloading it into {path}")
    return download(parsed, path, progress=progress, note=tell)


def cached_path(query: str) -> Path:
    """Path of the file of a query in the cache: what the entry point ``mp`` of ``mace_bounds.sources`` calls."""
    return cached(query).path


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
