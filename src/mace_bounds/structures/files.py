"""From a path to bytes or lines: finding files, opening them, recognising what they hold."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from glob import glob, has_magic
from pathlib import Path

from mace_bounds._io import SUMMARY_ENDING
from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures.containers import open_file
from mace_bounds.structures.formats import FORMATS, bare_name, format_of, help_text
from mace_bounds.structures.formats.foreign import foreign_name
from mace_bounds.structures.text import clean, one_line

_OF_A_RUN = re.compile(r"(OUTCAR|XDATCAR|POSCAR|CONTCAR)(\.(relax|static)\d*|\.orig)?")
EMPTY_FILE = "the file is empty; check the source."


def empty_folder(name: object) -> str:
    """Return the sentence that refuses a folder without structure files."""
    return f"the folder {clean(name)} holds no {help_text()}; name another folder."


def _is_source(path: Path) -> bool:
    """Tell whether a file in a folder is taken for structures; summaries of runs are not."""
    return format_of(path) is not None and not _is_summary(path)


def left_out(item: str | os.PathLike[str]) -> str | None:
    """Return one sentence about the files of a folder that are not read, by kind; None if there are none."""
    folder = Path(item)
    try:
        if not folder.is_dir():
            return None
    except (OSError, ValueError):
        return None
    taken, rest = _split(folder)
    rest = [path for path in rest if not path.name.startswith(".") and not _is_summary(path)]
    if not taken or not rest:
        return None
    kinds = Counter(_kind(path) for path in rest)
    shown = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(6))
    more = f" and {len(kinds) - 6} more kinds" if len(kinds) > 6 else ""
    return (
        f"{len(rest):,} of {len(rest) + len(taken):,} files in {clean(folder)} are left out: {shown}{more}; "
        "name one to learn why, or convert it."
    )


def _kind(path: Path) -> str:
    if _OF_A_RUN.fullmatch(bare_name(path.name)):
        return "beside the output of a VASP run that is read"
    name = bare_name(path.name)
    foreign = foreign_name(name)
    if foreign is not None:
        return re.sub(r"^an? ", "", foreign.name.split(",")[0])
    return clean(Path(name).suffix.lower() or name, 20)


def _split(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder that are read, and all others; of a run of VASP one output stands for all."""
    runs: dict[Path, int] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        rank = _rank(path)
        runs[path.parent] = max(runs.get(path.parent, 0), rank if rank > 1 else 0)
    taken = [path for path in files if _is_source(path) and (_rank(path) or 9) >= runs[path.parent]]
    chosen = set(taken)
    return taken, [path for path in files if path not in chosen]


def _rank(path: Path) -> int:
    """Return 3 for a vasprun.xml, 2 for an OUTCAR, 1 for what only repeats them, 0 for all else."""
    name = bare_name(path.name)
    if format_of(path) is FORMATS["vasprun"]:
        return 3
    if not _OF_A_RUN.fullmatch(name):
        return 0
    return 2 if name.startswith("OUTCAR") else 1


def _is_summary(path: Path) -> bool:
    return path.name.endswith(SUMMARY_ENDING)


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
            with closing(open_file(path)) as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
        except StructureError as error:
            raise SourceError(f"{clean(path)} is no source: {error}") from None
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
            files = _split(path)[0]
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
