"""Compressed files and archives as streams, with limits that are checked while they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import select
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mace_bounds.errors import StructureError
from mace_bounds.structures.formats import container_of, format_of
from mace_bounds.structures.formats.base import SNIFFED_BYTES
from mace_bounds.structures.text import clean, one_line

MAX_BLANK_LINES = 10_000
_MAX_DEPTH = 3
_BOMB_BYTES = 100_000_000
_BOMB_RATIO = 300
_WAIT_S = 5.0
_DAMAGE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Part:
    """One unpacked content: a whole file, or one file of an archive.

    Attributes
    ----------
    name : str
        Its file name, which may say the format.
    member : str
        Its path within an archive of several files; empty otherwise.
    stream : binary stream
        Its bytes.
    path : path or None
        The file that holds just these bytes, where there is one.
    """

    name: str
    member: str
    stream: io.BufferedReader[Any]
    path: Path | None = None


@dataclass(frozen=True, repr=False)
class Upload:
    """A file that is in memory, as it came over a network: its name says the format, and no path is opened.

    Attributes
    ----------
    name : str
        File name; folders in it are dropped.
    data : bytes
        Its content, packed or not.
    label : str
        Id of its structure where that has none; empty for the name.
    max_bytes : int
        Unpacked bytes beyond which it is refused.
    """

    name: str
    data: bytes
    label: str = ""
    max_bytes: int = 100_000_000

    @property
    def plain_name(self) -> str:
        """The file's own name, printable, without folders."""
        return clean(_base(self.name)) or "file"

    def __repr__(self) -> str:
        return f"Upload({self.plain_name!r}, {len(self.data):,} bytes)"

    def __str__(self) -> str:
        return self.plain_name


class _Meter(io.RawIOBase):
    """A raw stream that counts what it gives, turns damage into sentences and refuses what grows without end."""

    def __init__(self, inner: Any, kind: str, limit: int, packed: _Meter | None = None) -> None:
        self._inner, self._kind, self._limit, self._packed = inner, kind, limit, packed
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view, size = memoryview(buffer), 0
        read = getattr(self._inner, "read1", self._inner.read)
        try:
            while size < len(view) and (data := read(len(view) - size)):
                view[size : size + len(data)] = data
                size += len(data)
        except (OSError, *_DAMAGE) as error:
            if not size:  # what came before the damage is given first; the next call meets it again
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise _damaged(self._kind, error) from None
        self.count += size
        if self.count > self._limit:
            raise StructureError(f"the file has more than {self._limit:,} bytes; split it.")
        if (
            self._packed is not None
            and self.count > _BOMB_BYTES
            and self.count > _BOMB_RATIO * self._packed.count
        ):
            raise StructureError(
                f"the {self._kind} file unpacks to more than {_BOMB_RATIO} times its size, as no structures do; "
                "unpack it and look at it."
            )
        return size


def _damaged(kind: str, error: BaseException) -> StructureError:
    if isinstance(error, EOFError) or "truncated" in str(error) or "end of data" in str(error):
        return StructureError(f"the {kind} file is cut off; fetch it again.")
    if "password" in str(error):
        return StructureError(f"the {kind} file is locked by a password; unpack it.")
    return StructureError(f"the {kind} file is damaged ({one_line(error)}); fetch it again.")


def _arrow(codec: str) -> Callable[[Any], Any]:
    def opened(stream: Any) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)

    return opened


_PACKED: tuple[tuple[bytes, str, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
    (b"]\0\0\x80\0\xff", "lzma", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", "zstd", _arrow("zstd")),
    (b"\x04\x22\x4d\x18", "lz4", _arrow("lz4")),
)


def parts_of(path: Path | Upload | None, limit: int) -> Iterator[Part]:
    """Yield the unpacked contents of a file, one for each file of an archive; None is standard input.

    Parameters
    ----------
    path : path, Upload or None
        The file, packed in any way that its first bytes say, whatever its name.
    limit : int
        More unpacked bytes than these are refused while they are read.

    Raises
    ------
    StructureError
        For a device, a pipe into which nobody writes, damaged containers and bombs; the streams raise it too.
    OSError
        If the file cannot be opened.
    """
    if path is None:
        meter = _Meter(sys.stdin.buffer, "", limit)
        yield from _unpacked(Part("", "", io.BufferedReader(meter, SNIFFED_BYTES)), meter, limit)
        return
    name = path.plain_name if isinstance(path, Upload) else path.name
    with closing(io.BytesIO(path.data) if isinstance(path, Upload) else open_file(path)) as raw:
        meter = _Meter(raw, "", limit)
        stream = io.BufferedReader(meter, SNIFFED_BYTES)
        if stream.peek()[:4] in (b"PK\x03\x04", b"PK\x05\x06") and raw.seekable():
            yield from _zipped(name, raw, limit)
        else:
            regular = raw.seekable() and not any(stream.peek().startswith(m) for m, _, _ in _PACKED)
            file = path if regular and not isinstance(path, Upload) else None
            yield from _unpacked(Part(name, "", stream, file), meter, limit)


def open_file(path: Path) -> IO[bytes]:
    """Open a file that has an end; a device, or a pipe into which nobody writes, is a :class:`StructureError`."""
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise StructureError("the path is a device and not a file; name a file, or - for standard input.")
    if stat.S_ISSOCK(mode):
        raise StructureError("the path is a socket and not a file; name a file.")
    if not stat.S_ISFIFO(mode):
        return path.open("rb", buffering=0)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    start = time.monotonic()
    while not select.select([handle], [], [], 0.1)[0]:
        if time.monotonic() - start > _WAIT_S:
            os.close(handle)
            raise StructureError("the path is a pipe into which nobody writes; name a file.")
    os.set_blocking(handle, True)
    return os.fdopen(handle, "rb")  # buffered: a read gives what is asked for, or the end


def _unpacked(part: Part, meter: _Meter, limit: int, depth: int = 0) -> Iterator[Part]:
    """Yield a content as it is, or what is packed in it."""
    head = part.stream.peek()
    for magic, kind, opened in _PACKED:
        if head.startswith(magic):
            if depth == _MAX_DEPTH:
                raise StructureError(f"the file is packed more than {_MAX_DEPTH} times; unpack it.")
            inner = _Meter(opened(part.stream), kind, limit, meter)
            name = part.name[: len(part.name) - len(container_of(part.name))]
            stream = io.BufferedReader(inner, SNIFFED_BYTES)
            yield from _unpacked(Part(name, part.member, stream), meter, limit, depth + 1)
            return
    if head[:4] == b"PK\x03\x04":
        with tempfile.TemporaryFile() as spool:
            _copy(part.stream, spool, limit)
            yield from _zipped(part.name, spool, limit)
    elif head[257:262] == b"ustar" and not part.member:
        yield from _tarred(part.stream, meter, limit)
    else:
        yield part


def _zipped(name: str, raw: IO[bytes], limit: int) -> Iterator[Part]:
    try:
        archive = zipfile.ZipFile(raw)
    except (OSError, NotImplementedError, *_DAMAGE) as error:
        raise _damaged("zip", error) from None
    with archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if (
            sum(info.file_size for info in archive.infolist()) > limit
        ):  # no member gives more than it declares
            raise StructureError(f"the files in the zip file have more than {limit:,} bytes; split it.")
        for member in _members(names, "zip"):
            info = archive.getinfo(member)
            packed = _Meter(None, "zip", limit)
            packed.count = info.compress_size
            try:
                opened = archive.open(info)
            except (OSError, NotImplementedError, *_DAMAGE) as error:
                raise _damaged("zip", error) from None
            meter = _Meter(opened, "zip", limit, packed)
            alone = len(names) == 1
            part = Part(
                _base(member) if not alone or container_of(name) != ".zip" else _said(member, name),
                "" if alone else member,
                io.BufferedReader(meter, SNIFFED_BYTES),
            )
            yield from _unpacked(part, packed, limit, 1)


def _tarred(stream: io.BufferedReader[Any], packed: _Meter, limit: int) -> Iterator[Part]:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for info in archive:
                if info.isfile() and _wanted(info.name):
                    meter = _Meter(archive.extractfile(info), "tar", limit, packed)
                    part = Part(_base(info.name), info.name, io.BufferedReader(meter, SNIFFED_BYTES))
                    yield from _unpacked(part, meter, limit, 1)
    except (tarfile.TarError, EOFError) as error:
        raise _damaged("tar", error) from None


def _members(names: list[str], kind: str) -> list[str]:
    """Return the names to read: all that have a format's name; a file alone whatever its name."""
    wanted = names if len(names) == 1 else sorted(name for name in names if _wanted(name))
    if not wanted:
        some = ", ".join(clean(name, 40) for name in names[:3]) or "nothing"
        raise StructureError(
            f"the {kind} file holds no structure files (it holds {some}); unpack and convert them."
        )
    return wanted


def _wanted(name: str) -> bool:
    return not name.startswith("__MACOSX/") and format_of(Path(_base(name))) is not None


def _base(member: str) -> str:
    return PurePosixPath(member.replace("\\", "/")).name


def _said(member: str, archive: str) -> str:
    """Return the name that says the format of a file alone in an archive: its own, else the archive's."""
    return _base(member) if _wanted(member) else archive[: -len(container_of(archive))]


def _copy(stream: Any, target: Any, limit: int) -> None:
    total = 0
    while data := stream.read(1_000_000):
        total += len(data)
        if total > limit:
            raise StructureError(f"the file has more than {limit:,} bytes; split it.")
        target.write(data)
    target.flush()


def unpacked(path: Path | Upload, limit: int) -> tuple[str, bytes]:
    """Return the bare name and the bytes of a file, unpacked if need be.

    Raises
    ------
    StructureError
        For damage, more than ``limit`` bytes, and what :func:`parts_of` refuses.
    OSError
        If the file cannot be read.
    """
    for part in parts_of(path, limit):
        return part.name, part.stream.read()
    raise StructureError("the archive is empty; check the source.")


@contextmanager
def on_disk(part: Part, limit: int) -> Iterator[Path]:
    """Give a file that holds a content: its own, or a temporary one."""
    if part.path is not None:
        yield part.path
        return
    handle, name = tempfile.mkstemp(suffix=Path(part.name).suffix)
    try:
        with os.fdopen(handle, "wb") as target:
            _copy(part.stream, target, limit)
        yield Path(name)
    finally:
        with suppress(OSError):
            Path(name).unlink()


def open_lines(stream: io.BufferedReader[Any], max_line: int = 16_000_000) -> Iterator[str]:
    """Yield the lines of a stream, decoded leniently.

    Raises
    ------
    StructureError
        If a line has more than ``max_line`` characters, or more than :data:`MAX_BLANK_LINES` in a row are empty.
    """
    blank = 0
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace") as text:
        while line := text.readline(max_line + 1):
            if len(line) > max_line:
                raise StructureError(
                    f"a line of the file has more than {max_line:,} characters; check that it is text."
                )
            if line.isspace():
                blank += 1
                if blank > MAX_BLANK_LINES:
                    raise StructureError(
                        f"the file has more than {MAX_BLANK_LINES:,} empty lines in a row; check the source."
                    )
            else:
                blank = 0
            yield line
