"""Files are whole or absent; a folder has one writer."""

import json
import subprocess
import sys

import pytest

from mace_bounds import _io
from mace_bounds.errors import StoreError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    _io.write_json(path, {"x": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "é"}
    with pytest.raises(ValueError, match="JSON"):
        _io.write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError), _io.atomic(path) as temporary:
        temporary.write_bytes("half")
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "é"}
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with _io.atomic(tmp_path / "a") as first, _io.atomic(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"  # the last to end


def test_what_killed_runs_left_is_cleared_away(tmp_path):
    (tmp_path / ".a.json.0123abcd.tmp").write_text("half")
    (tmp_path / "kept.tmp").write_text("")
    _io.remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path):
    script = (
        "import sys; from mace_bounds._io import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(StoreError, match=rf"another run .*process {holder.pid} on .*wait until it ends"),
        _io.locked(tmp_path),
    ):
        pass
    with _io.locked(tmp_path, ".lock-part-2"):  # a part of a job array has its own
        pass
    holder.kill()  # a killed holder holds nothing
    holder.communicate()
    with _io.locked(tmp_path):
        assert _io.visible(tmp_path) == set()


def test_a_hash_follows_the_file(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert _io.file_sha256(path).startswith("ba7816bf")
    path.write_bytes(b"")
    assert _io.file_sha256(path).startswith("e3b0c442")


def test_folders_of_the_user_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MACE_BOUNDS_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("MACE_BOUNDS_HEADS", "~/heads")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _io.cache_folder() == tmp_path / "c"
    assert _io.heads_folder() == tmp_path / "heads"
    monkeypatch.delenv("MACE_BOUNDS_CACHE")
    assert _io.cache_folder().name == "mace-bounds"


def test_a_folder_that_stays_empty_goes_with_those_made_for_it(tmp_path):
    new = tmp_path / "a" / "b"
    with pytest.raises(StoreError), _io.locked(new):
        raise StoreError("nothing was done.")
    assert list(tmp_path.iterdir()) == []
    with _io.locked(new):
        (new / "x").write_text("kept")
    assert (new / "x").is_file()
    old = tmp_path / "old"
    old.mkdir()
    with _io.locked(old):
        pass
    assert old.is_dir()
