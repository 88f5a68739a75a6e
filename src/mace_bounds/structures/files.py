"""From a path to bytes or lines: finding files, opening them, recognising what they hold."""

from __future__ import annotations

import hashlib
import os
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures.formats import format_of, help_text
from mace_bounds.structures.text import clean, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

EMPTY_FILE = "the file is empty; check the source."


def empty_folder(name: object) -> str:
    """Return the sentence that refuses a folder without structure files."""
    return f"the folder {clean(name)} holds no {help_text()}; name another folder."


def _is_source(path: Path) -> bool:
    """Tell whether a file in a folder is taken for structures; summaries of runs are not."""
    return format_of(path) is not None and not path.name.endswith(".summary.json")


def expand(items: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, str]]:
    """Return the files that paths, folders and patterns name, each with a label: its path below their common folder.

    Raises
    ------
    SourceError
        If a single item names nothing; among several, a missing path stays in the list (and gives a reason).
    """
    paths: list[Path] = []
    for item in items:
        paths.extend(_expand_one(os.fspath(item), strict=len(items) == 1))
    if len(items) == 1 and Path(items[0]).is_dir():
        return [(path, path.relative_to(items[0]).as_posix()) for path in paths]
    if len(paths) < 2:
        return [(path, path.name) for path in paths]
    parents = [os.path.abspath(path.parent) for path in paths]  # noqa: PTH100  resolve() would follow links
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # different drives
        return [(path, path.as_posix()) for path in paths]
    labels = [Path(os.path.relpath(Path(p) / f.name, common)) for p, f in zip(parents, paths, strict=True)]
    return [(path, label.as_posix()) for path, label in zip(paths, labels, strict=True)]


def source_digest(source: str | os.PathLike[str]) -> str:
    """SHA-256 over the names and contents of the files that a path, folder or pattern stands for.

    Raises
    ------
    SourceError
        If it names nothing, or a file cannot be read.
    """
    sha = hashlib.sha256()
    for path, label in expand([source]):
        try:
            with path.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise SourceError(
                f"{clean(path)} cannot be read ({one_line(error)}); check its permissions."
            ) from None
        sha.update(f"{label}\x1f{content}\n".encode())
    return sha.hexdigest()


def _expand_one(text: str, *, strict: bool) -> list[Path]:
    path = Path(text)
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and _is_source(p))
            if not files and strict:
                raise SourceError(empty_folder(text))
            return files or [path]
        if path.exists() or not (strict or has_magic(text)):
            return [path]
    except (OSError, ValueError) as error:  # names too long, forbidden folders, NUL characters
        if strict:
            raise SourceError(
                f"the path {clean(text)} cannot be read ({one_line(error)}); check it."
            ) from None
        return [path]
    if has_magic(text):
        matches = (Path(name) for name in sorted(glob(text, recursive=True)))  # noqa: PTH207  pattern may be absolute
        files = [p for p in matches if p.is_file()]
        if files or not strict:
            return files or [path]
        raise SourceError(f"no files match {clean(text)}; check the pattern.")
    raise SourceError(f"{clean(text)} does not exist; check the path.")


def check_size(data: bytes, limit: int) -> None:
    """Refuse content that is empty or larger than the limit in bytes, by :class:`StructureError`."""
    if len(data) > limit:
        raise StructureError(f"the file has more than {limit:,} bytes; split it.")
    if not data.strip():
        raise StructureError(EMPTY_FILE)
