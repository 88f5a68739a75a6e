"""Files: written whole or not at all, one writer in a folder, and where a user's files are.

Every file that this package writes goes through :func:`atomic`, every folder that must be whole through
:func:`atomic_folder`; every command that fills a folder holds :func:`locked`. A run that is killed leaves nothing but
working folders with names of their own, which the next run in that place knows and deletes (:func:`remove_leftovers`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mace_bounds.errors import StoreError
from mace_bounds.versions import now

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import TypeAdapter

T = TypeVar("T")

CACHE_VARIABLE = "MACE_BOUNDS_CACHE"
HEADS_VARIABLE = "MACE_BOUNDS_HEADS"
LOCK = ".lock"
SUMMARY_ENDING = ".summary.json"
_WORK, _HELD, _NEW, _OLD = ".mace-bounds", ".held", ".new", ".old"
_WORKING = re.compile(r"\.(.+)\.[0-9a-f]{8}" + re.escape(_WORK), re.DOTALL)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path; what was written there takes the place of ``path`` when the block ends well.

    The data and the folder are flushed to the disk, so that a file which is there is whole even after a loss of
    power. A block that raises leaves nothing; what a killed one leaves goes with :func:`remove_leftovers`.

    Parameters
    ----------
    path : path
        The file to be; one that is there is replaced. A pipe or device is written as it is.

    Yields
    ------
    Path
        A file of the same name in a working folder beside ``path`` (:func:`_beside`).
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    with _beside(path) as work:
        temporary = work / path.name
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder, which takes the place of ``folder`` when the block ends well: as :func:`atomic` for a file.

    A folder that is there is replaced. A process that is killed between the two renames that this takes leaves the
    old one aside, and :func:`remove_leftovers` puts it back.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as work:
        made = work / _NEW
        made.mkdir()
        yield made
        for file in made.rglob("*"):
            if file.is_file():
                _sync(file)
        if os.path.lexists(folder):
            folder.rename(work / _OLD)
        made.rename(folder)
        _sync(folder.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder: under its name it is there as a whole, or not any more."""
    with _beside(folder) as work:
        folder.rename(work / _NEW)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Make a working folder ``.NAME.<random>.mace-bounds`` beside a target, and hold it by a lock that is in it."""
    from filelock import FileLock, Timeout

    _remove_leftovers_once(str(target.parent.absolute()))
    while True:
        work = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_WORK}")
        work.mkdir()
        lock = FileLock(work / _HELD)
        try:
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError, FileExistsError):
            # another process took it for a leftover before it was held; FileExistsError is what filelock's own
            # mkdir of the folder says when that goes away meanwhile
            continue
        if (work / _HELD).exists():
            break
        lock.release()
    try:
        yield work
    finally:
        _clear(work)
        lock.release()
        shutil.rmtree(work, ignore_errors=True)  # where a file that is held cannot be deleted


def _clear(work: Path) -> None:
    """Delete a working folder that this process holds; a folder that it was to replace and did not goes back."""
    target = work.with_name(_target_of(work.name))
    if os.path.lexists(work / _OLD) and not os.path.lexists(target):
        (work / _OLD).rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _target_of(name: str) -> str:
    """Name of what a working folder of this name is for; empty where it is none."""
    found = _WORKING.fullmatch(name)
    return found[1] if found else ""


def remove_leftovers(folder: Path, *, below: bool = False) -> set[str]:
    """Delete what killed runs left in a folder: working folders that no process holds.

    Those of runs that are alive stay, as do those of which that cannot be told, and links.

    Parameters
    ----------
    folder : Path
    below : bool
        Also in the folders in it.

    Returns
    -------
    set of str
        Names of the files and folders that they were for.
    """
    found, folders = set[str](), [folder]
    for place in folders:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in list(entries):
                target = _target_of(entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if target and _abandoned(Path(entry.path)):
                    found.add(target)
                elif below and not target:
                    folders.append(Path(entry.path))
    return found


def _abandoned(work: Path) -> bool:
    """Delete a working folder if no process holds it; whether it did."""
    from filelock import FileLock, Timeout

    lock = FileLock(work / _HELD)
    try:
        lock.acquire(timeout=0)
    except (OSError, Timeout):
        return False
    try:
        _clear(work)
    finally:
        lock.release()
    shutil.rmtree(work, ignore_errors=True)
    return True


@lru_cache(maxsize=256)
def _remove_leftovers_once(folder: str) -> None:
    """Look for leftovers once in a process: a large store has many thousand files."""
    remove_leftovers(Path(folder))


def _sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk; Windows cannot flush folders, nor what is only read."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON atomically: indented, UTF-8, no NaN (ValueError)."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def summary_path(made: Path) -> Path:
    """Where it stands how a file or folder was made: beside it."""
    return made.with_name(f"{made.name}{SUMMARY_ENDING}")


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
    """Hold a folder while it is written, without what killed runs left; a second run is refused and told who holds it.

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
        remove_leftovers(folder, below=True)
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
