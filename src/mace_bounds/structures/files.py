"""From a path to bytes or lines: finding files, opening them, recognising what they hold."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import sys
import zlib
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures.text import clean, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUFFIXES = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".contcar": "poscar",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".exyz": "extxyz",
    ".json": "json",
    ".jsonl": "jsonl",
}
_NAMES = re.compile(r"(POSCAR|CONTCAR)([._-].*)?$")
_MAX_BYTES = {"cif": 20_000_000, "poscar": 20_000_000, "json": 4_000_000_000, "extxyz": 0}
EMPTY_FOLDER = "expected structure files in the folder {}, got none; use CIF, POSCAR, extxyz or JSON (.gz)"
READ_ERRORS = (OSError, EOFError, zlib.error)


def format_of(path: Path) -> str | None:
    """Return ``"cif"``, ``"poscar"``, ``"extxyz"``, ``"json"`` or ``"jsonl"`` by a file's name, else None."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    suffix = Path(name).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    return "poscar" if _NAMES.match(name) else None


def _is_source(path: Path) -> bool:
    """Tell whether a file in a folder is taken for structures; summaries of runs are not."""
    return format_of(path) is not None and not path.name.endswith(".summary.json")


def sniff(data: bytes) -> str | None:
    """Return the format that the beginning of a file looks like, else None."""
    text = data[:65536].decode("utf-8", errors="replace").lstrip("\ufeff")
    if b"\0" in data[:65536] or not text.strip():
        return None
    if re.match(r"\s*\{[^\n]*\}\s*\n\s*\{", text):
        return "jsonl"
    if text.lstrip()[0] in "[{":
        return "json"
    lines = text.splitlines()
    if re.search(r"^\s*(data_|_cell_length_a)", text, re.MULTILINE):
        return "cif"
    if re.fullmatch(r"\s*\d{1,11}\s*", lines[0]):
        return "extxyz"
    if len(lines) > 5 and all(_is_vector(line) for line in lines[2:5]):
        return "poscar"
    return None


def _is_vector(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()[:3]]) == 3
    except ValueError:
        return False


def expand(items: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, str]]:
    """Return the files that paths, folders and patterns name, each with a short label.

    Raises
    ------
    SourceError
        If a single item names nothing; among several, a missing path stays in the list (and gives a reason).
    """
    found: list[Path] = []
    for item in items:
        found.extend(_expand_one(os.fspath(item), strict=len(items) == 1))
    if len(items) == 1 and Path(items[0]).is_dir():
        return [(path, path.relative_to(items[0]).as_posix()) for path in found]
    if len(found) < 2:
        return [(path, path.name) for path in found]
    parents = [os.path.abspath(path.parent) for path in found]  # noqa: PTH100  resolve() would follow links
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # different drives
        return [(path, path.as_posix()) for path in found]
    labels = [Path(os.path.relpath(Path(p) / f.name, common)) for p, f in zip(parents, found, strict=True)]
    return [(path, label.as_posix()) for path, label in zip(found, labels, strict=True)]


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
                f"expected a readable file, got {clean(path)} ({sentence(error)}); check its permissions"
            ) from None
        sha.update(f"{label}\x1f{content}\n".encode())
    return sha.hexdigest()


def _expand_one(text: str, *, strict: bool) -> list[Path]:
    path = Path(text)
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and _is_source(p))
            if not files and strict:
                raise SourceError(EMPTY_FOLDER.format(clean(text)))
            return files or [path]
        if path.exists() or not (strict or has_magic(text)):
            return [path]
    except (OSError, ValueError) as error:  # names too long, forbidden folders, NUL characters
        if strict:
            raise SourceError(
                f"expected a readable path, got {clean(text)} ({sentence(error)}); check it"
            ) from None
        return [path]
    if has_magic(text):
        matches = (Path(name) for name in sorted(glob(text, recursive=True)))  # noqa: PTH207  pattern may be absolute
        files = [p for p in matches if p.is_file()]
        if files or not strict:
            return files or [path]
        raise SourceError(f"expected files that match {clean(text)}, got none; check the pattern")
    raise SourceError(
        f"expected a file, folder or pattern, got {clean(text)}, which does not exist; check the path"
    )


def open_lines(stream: io.BufferedReader) -> Iterator[str]:
    """Yield the lines of a binary stream, decompressed if it is gzip, decoded leniently."""
    raw = gzip.GzipFile(fileobj=stream) if stream.peek(2)[:2] == b"\x1f\x8b" else stream
    with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace") as text:
        yield from text


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed if it is gzip, refusing what is too large for its format."""
    return unpack(path.read_bytes(), format_of(path))


def unpack(data: bytes, kind: str | None) -> bytes:
    """Return content decompressed if it is gzip, refusing what is too large for its format.

    Raises
    ------
    StructureError
        If the content is empty, binary or larger than the format's limit.
    """
    limit = _MAX_BYTES.get(kind or "json", 0) or _MAX_BYTES["json"]
    if data[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as handle:
            data = handle.read(limit + 1)
    if len(data) > limit:
        raise StructureError(f"expected at most {limit} bytes in a {kind} file, got more; split the file")
    if not data.strip():
        raise StructureError("expected a structure file, got an empty file; check the source")
    if b"\0" in data[:65536]:
        raise StructureError("expected a text file, got binary data; check the source")
    return data


def read_stdin() -> bytes:
    """Return all bytes of standard input."""
    return sys.stdin.buffer.read()
