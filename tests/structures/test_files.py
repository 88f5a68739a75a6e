"""From paths, folders and patterns to labelled files, and from files to content."""

from __future__ import annotations

import gzip
import hashlib
import io

import pytest

from mace_bounds.errors import SourceError, StructureError
from mace_bounds.structures import source_digest
from mace_bounds.structures.files import check_size, decompressed, expand, open_lines


@pytest.fixture
def folder(tmp_path):
    for name in ("b.cif", "a.cif", "sub/c.json", "sub/x.summary.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_labels_are_paths_below_the_common_folder(folder):
    def labels(*items):
        return [label for _, label in expand(items)]

    assert labels(folder) == ["a.cif", "b.cif", "sub/c.json"]  # no summaries, no notes
    assert labels(str(folder / "*.cif")) == ["a.cif", "b.cif"]
    assert labels(folder / "sub" / "c.json") == ["c.json"]
    assert labels(folder / "sub" / "c.json", folder / "a.cif") == ["sub/c.json", "a.cif"]
    assert labels(folder / "notes.txt", folder / "gone.cif") == ["notes.txt", "gone.cif"]


def test_a_digest_is_that_of_names_and_contents(folder):
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.cif", "b.cif")}
    lines = "".join(f"{name}\x1f{hashes[name]}\n" for name in sorted(hashes))
    assert source_digest(folder / "*.cif") == hashlib.sha256(lines.encode()).hexdigest()
    before = source_digest(folder)
    (folder / "sub" / "c.json").write_text("other")
    assert source_digest(folder) != before
    with pytest.raises(SourceError, match="does not exist"):
        source_digest(folder / "gone")


def test_a_gzip_bomb_stays_small():
    packed = gzip.compress(bytes(10_000_000))
    assert len(packed) < 20_000
    assert len(decompressed(packed, limit=1000)) == 1001
    with pytest.raises(StructureError, match="more than 1000 bytes"):
        check_size(decompressed(packed, limit=1000), 1000)


def test_lines_of_plain_and_packed_streams():
    text = "\ufeffa é\nb\n".encode()
    for data in (text, gzip.compress(text)):
        assert list(open_lines(io.BufferedReader(io.BytesIO(data)))) == ["a é\n", "b\n"]
