"""Packed files, archives, pipes, and bombs that must stay small."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from ase.build import bulk
from ase.io import write as ase_write

from mace_bounds.errors import StructureError
from mace_bounds.structures import containers, read
from mace_bounds.structures.containers import open_lines, parts_of


@pytest.fixture(scope="module")
def frames():
    buffer = io.StringIO()
    ase_write(buffer, [bulk("NaCl", "rocksalt", a=5.64)] * 30, format="extxyz")
    return buffer.getvalue().encode()


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files_are_read_by_their_bytes(tmp_path, monkeypatch, frames, suffix):
    data = PACK[suffix](frames)
    for name in (f"x.extxyz{suffix}", "x.extxyz", f"X.EXTXYZ{suffix.upper()}", "unnamed"):
        (tmp_path / name).write_bytes(data)
        records = list(read(tmp_path / name))
        assert [(record.reason, len(records)) for record in records] == [(None, 30)] * 30
        assert records[0].id == f"{name}#0"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert sum(record.reason is None for record in read("-")) == 30
    assert sum(record.reason is None for record in read(tmp_path)) == 90  # a folder goes by names


@pytest.mark.parametrize("suffix", PACK)
def test_what_came_before_the_damage_is_kept(tmp_path, frames, suffix):
    many = b"".join(frames.replace(b"Cl ", b"Cl%s" % (b" " * k)) for k in range(1, 40))
    data = PACK[suffix](many)
    (tmp_path / "x.extxyz").write_bytes(data[: len(data) // 2])
    *good, last = read(tmp_path / "x.extxyz")
    assert all(record.reason is None for record in good)
    assert "cut off" in last.reason or "damaged" in last.reason
    (tmp_path / "x.extxyz").write_bytes(data[:12] + b"\xff" * 30 + data[42:])
    assert list(read(tmp_path / "x.extxyz"))[-1].reason is not None


def test_archives_are_read_as_folders(tmp_path, frames):
    members = {
        "b/x.extxyz": frames,
        "a.extxyz.gz": gzip.compress(frames),
        "notes.txt": b"no",
        "POSCAR": b"bad",
    }
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for name, data in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for name in ("x.zip", "x.tar.gz"):
        records = list(read(tmp_path / name))
        assert [record.id for record in records[::30]] == [
            f"{name}/POSCAR",
            f"{name}/a.extxyz.gz#29",
            f"{name}/b/x.extxyz#29",
        ]
        assert [record.reason is None for record in records] == [False] + [True] * 60
        assert {record.source for record in records} == {name}


def test_a_file_alone_in_an_archive(tmp_path, frames):
    for member, archive in (("x.extxyz", "y.zip"), ("frames", "x.extxyz.zip"), ("x.extxyz", "y.extxyz")):
        with zipfile.ZipFile(tmp_path / archive, "w") as packed:
            packed.writestr(member, frames)
        assert [record.id for record in read(tmp_path / archive)] == [f"{archive}#{k}" for k in range(30)]


def test_archives_without_structures(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.npy", b"1")
        archive.writestr("b.txt", b"1")
    (record,) = read(tmp_path / "x.zip")
    assert (
        record.reason
        == "the zip file holds no structure files (it holds a.npy, b.txt); unpack and convert them."
    )
    (tmp_path / "y.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:-30])
    assert "damaged" in next(read(tmp_path / "y.zip")).reason


def _bombs():
    zeros = bytes(1_000_000)
    yield "zeros.extxyz.gz", [zeros] * 120, "binary"
    yield "zeros.jsonl.gz", [zeros] * 120, "binary"
    yield "list.json.gz", [b"[0", *[b",0" * 500_000] * 10, b"]"], "a list of values"
    yield "nested.json.gz", [b"[[0", *[b",{}" * 330_000] * 30], "one value of the JSON"
    yield "text.json.gz", [b'["', *[b"a" * 1_000_000] * 30], "one value of the JSON"
    yield "deep.json.gz", [b"[" * 1_000_000], "no JSON"
    yield "blanks.json.gz", [b" " * 1_000_000] * 30, "blanks"
    yield "keys.json.gz", [b"{", *[b'"%d":0,' % k for k in range(60_000)]], "holds no structure"
    yield "line.extxyz.gz", [b"1\n", *[b"1" * 1_000_000] * 30], "16,000,000 characters"
    yield "line.jsonl.gz", [b'{"a": "', *[b"1" * 1_000_000] * 30], "16,000,000 characters"
    yield "blank.extxyz.gz", [b"\n" * 1_000_000] * 30, "10,000 empty lines"
    yield "frames.extxyz.gz", [b"0\n\n" * 100_000] * 3, "none of the first 10,000"
    yield "good.cif.gz", [b"data_x\n", *[b"#" * 1_000_000] * 40], "more than"


@pytest.mark.parametrize(("name", "chunks", "words"), [pytest.param(*bomb, id=bomb[0]) for bomb in _bombs()])
def test_bombs_end_soon_and_stay_small(tmp_path, name, chunks, words):
    with gzip.open(tmp_path / name, "wb", 1) as handle:
        for chunk in chunks:
            handle.write(chunk)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    *_, last = read(tmp_path / name)
    assert words in last.reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_what_grows_without_end_is_refused(tmp_path, monkeypatch, frames):
    monkeypatch.setattr(containers, "_BOMB_BYTES", 300_000)
    (tmp_path / "x.extxyz.bz2").write_bytes(bz2.compress(frames * 500))
    *good, last = read(tmp_path / "x.extxyz.bz2")
    assert good
    assert "300 times its size" in last.reason
    with pytest.raises(StructureError, match="more than 1,000 bytes"):
        next(parts_of(tmp_path / "x.extxyz.bz2", 1000)).stream.read()


def test_devices_and_pipes(tmp_path, monkeypatch, frames):
    (record,) = read("/dev/zero")
    assert "a device" in record.reason
    monkeypatch.setattr(containers, "_WAIT_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    (record,) = read(tmp_path / "pipe")
    assert "nobody writes" in record.reason
    end, start = os.pipe()
    os.write(start, frames)
    os.close(start)
    assert sum(record.reason is None for record in read(Path(f"/dev/fd/{end}"))) == 30
    os.close(end)


def test_lines():
    assert list(open_lines(io.BufferedReader(io.BytesIO("\ufeffa é\r\nb".encode())))) == ["a é\n", "b"]
    with pytest.raises(StructureError, match="more than 3 characters"):
        list(open_lines(io.BufferedReader(io.BytesIO(b"a\nabcd")), max_line=3))
