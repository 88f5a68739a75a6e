"""Files: written whole or not at all, one writer in a folder, and where a user's files are.

Every file that this package writes goes through :func:`atomic`; every command that fills a folder holds :func:`locked`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import uuid
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mace_bounds.errors import StoreError
from mace_bounds.versions import now

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from pydantic import TypeAdapter

T = TypeVar("T")

CACHE_VARIABLE = "MACE_BOUNDS_CACHE"
HEADS_VARIABLE = "MACE_BOUNDS_HEADS"
LOCK = ".lock"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what was written there takes its place when the block ends well.

    The data and the folder are flushed to the disk, so that a file which is there is whole even after a loss of
    power. A block that raises leaves nothing.

    Parameters
    ----------
    path : path
        The file to be; one that is there is replaced.

    Yields
    ------
    Path
        ``.NAME.<random>.tmp`` in the same folder; random, so that two processes do not write into one file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Delete what killed runs of :func:`atomic` left in a folder; only for whoever holds its lock.

    Parameters
    ----------
    folder : Path
    name : str
        Only what was left of this file; empty for all.
    """
    pattern = f".{escape(name)}.{'[0-9a-f]' * 8}.tmp" if name else ".*.tmp"
    for leftover in folder.glob(pattern):
        leftover.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON atomically: indented, UTF-8, no NaN (ValueError)."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV atomically, without its index."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def parsed_json(kind: type[T], text: str | bytes) -> T:
    """Read JSON as ``kind``, where a number is no text, 3.5 no integer and 1 no truth value.

    Parameters
    ----------
    kind : type
        A dataclass with types for all fields; keys that it does not know are left out.
    text : str or bytes
        JSON.

    Raises
    ------
    ValueError
        With the first place that is wrong, and what is wanted there.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: int
    >>> parsed_json(Point, '{"x": 1}')
    Point(x=1)
    >>> parsed_json(Point, '{"x": 3.5}')
    Traceback (most recent call last):
        ...
    ValueError: x: Input should be a valid integer
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{place}: {first['msg']}") from None
    return value


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@contextmanager
def locked(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """Hold a folder while it is written; a second run is refused and told who holds it.

    Parameters
    ----------
    folder : path
        Made if absent; it goes again, with the folders above it that were made, if it stays empty.
    name : str
        Name of the lock; runs that share a folder by design (parts of a job array) take different ones.

    Raises
    ------
    StoreError
        If another process holds the lock.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, about = FileLock(folder / name), folder / f"{name}.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"another run is writing into {folder}{_holder(about)}; wait until it ends, or choose another folder."
        ) from None
    try:
        mine = {"pid": os.getpid(), "host": platform.node(), "since": now(), "command": " ".join(sys.argv)}
        about.write_text(json.dumps(mine), encoding="utf-8")
        yield
    finally:
        about.unlink(missing_ok=True)
        empty = bool(made) and not visible(folder)
        if empty:  # while it is held: nobody can wait for a file that is gone
            with suppress(OSError):
                (folder / name).unlink()
        lock.release()
        for path in made if empty else ():
            with suppress(OSError):  # something else is in it, or it has gone
                path.rmdir()


def _holder(about: Path) -> str:
    try:
        other = json.loads(about.read_text(encoding="utf-8"))
        return f" (process {other['pid']} on {other['host']}, since {other['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is just starting, or just ending
        return ""


def visible(folder: Path) -> set[str]:
    """Names in a folder but for locks and temporary files, which begin with a dot; empty where there is no folder."""
    return (
        {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if folder.is_dir()
        else set()
    )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hex; read once in a process as long as the file does not change."""
    status = Path(path).stat()
    return _file_sha256(str(Path(path).absolute()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - part of the key
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_folder() -> Path:
    """``$MACE_BOUNDS_CACHE``, else the folder of this system for files that can be fetched again (platformdirs)."""
    from platformdirs import user_cache_path

    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("mace-bounds")


def heads_folder() -> Path:
    """``$MACE_BOUNDS_HEADS``, else ``heads`` in the folder of this system for a user's data (platformdirs)."""
    from platformdirs import user_data_path

    given = os.environ.get(HEADS_VARIABLE)
    return Path(given).expanduser() if given else user_data_path("mace-bounds") / "heads"
