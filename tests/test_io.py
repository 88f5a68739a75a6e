"""Files are whole or absent; a folder has one writer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
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


def left_over(target, **contents):
    """Make what a killed run leaves beside a target."""
    work = target.with_name(f".{target.name}.0123abcd.mace-bounds")
    work.mkdir(parents=True)
    for name, text in contents.items():
        (work / name).write_text(text)
    return work


def test_what_killed_runs_left_goes_and_what_others_left_stays(tmp_path):
    left_over(tmp_path / "a.json", new="half")
    left_over(tmp_path / "heads" / "fold-1")
    mine = [
        ".a.json.0123abcd.tmp",
        ".a.0123abcd.mace-bounds.txt",
        ".0123abcd.mace-bounds",
        "x.0123abcd.mace-bounds",
    ]
    for name in mine:
        (tmp_path / name).mkdir()
    (tmp_path / ".file.0123abcd.mace-bounds").write_text("mine")
    elsewhere = left_over(tmp_path / "elsewhere" / "x", kept="kept")
    (tmp_path / ".link.0123abcd.mace-bounds").symlink_to(elsewhere)
    (tmp_path / "heads" / "link").symlink_to(tmp_path / "elsewhere")
    others = {".file.0123abcd.mace-bounds", ".link.0123abcd.mace-bounds", "heads", "elsewhere", *mine}
    assert _io.remove_leftovers(tmp_path) == {"a.json"}
    assert {path.name for path in tmp_path.iterdir()} == others
    assert _io.remove_leftovers(tmp_path / "heads", below=True) == {"fold-1"}
    assert [path.name for path in (tmp_path / "heads").iterdir()] == ["link"]
    assert (elsewhere / "kept").read_text() == "kept"


def test_what_a_run_that_is_alive_writes_stays(tmp_path):
    with _io.atomic(tmp_path / "a") as temporary:
        temporary.write_text("slow")
        holder = "import sys; from pathlib import Path; from mace_bounds import _io\n"
        holder += "print(_io.remove_leftovers(Path(sys.argv[1])))"
        told = subprocess.run(
            [sys.executable, "-c", holder, tmp_path], capture_output=True, text=True, check=True
        )
        assert told.stdout == "set()\n"
        assert _io.remove_leftovers(tmp_path) == set()
    assert (tmp_path / "a").read_text() == "slow"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_whole_or_not_at_all_and_replaces_another(tmp_path):
    target = tmp_path / "new" / "head"
    for text in ("first", "second"):
        with _io.atomic_folder(target) as made:
            (made / text).write_text(text)
        assert [path.name for path in target.iterdir()] == [text]
        assert [path.name for path in target.parent.iterdir()] == ["head"]
    with pytest.raises(ValueError, match="third"), _io.atomic_folder(target) as made:
        raise ValueError("third")
    assert (target / "second").read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["head"]
    _io.remove_folder(target)
    assert list(target.parent.iterdir()) == []


def test_a_folder_that_was_set_aside_to_be_replaced_comes_back(tmp_path):
    old = left_over(tmp_path / "head") / ".old"
    old.mkdir()
    (old / "config.json").write_text("{}")
    assert _io.remove_leftovers(tmp_path) == {"head"}
    assert [path.name for path in tmp_path.iterdir()] == ["head"]
    assert (tmp_path / "head" / "config.json").read_text() == "{}"


def test_what_is_no_file_is_written_as_it_is(tmp_path):
    with _io.atomic("/dev/null") as path:
        path.write_text("away")
    with pytest.raises(IsADirectoryError), _io.atomic(tmp_path) as path:
        path.write_text("nowhere")


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


def test_a_working_folder_that_another_process_takes_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    """What filelock says where the folder is deleted between its own look and its own mkdir."""
    acquire, raced = filelock.FileLock.acquire, []

    def taken_once(lock, *args, **options):
        if not raced:
            raced.append(lock)
            shutil.rmtree(Path(lock.lock_file).parent)
            raise FileExistsError(17, "File exists", str(Path(lock.lock_file).parent))
        return acquire(lock, *args, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", taken_once)
    with _io.atomic(tmp_path / "a.json") as path:
        path.write_text("{}")
    assert raced
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
