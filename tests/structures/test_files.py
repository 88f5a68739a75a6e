"""From paths, folders and patterns to labelled files, and from files to content."""

from __future__ import annotations

import hashlib

import pytest

from mace_bounds.errors import SourceError
from mace_bounds.structures import source_digest
from mace_bounds.structures.files import expand


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
