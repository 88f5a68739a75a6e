"""API keys: hashes in a file, compared whole, and how often each may ask."""

import hashlib
import subprocess
import sys

import pytest

from mace_bounds.errors import ServiceError
from mace_bounds.service.keys import Keyring, new_key, read_keys


def test_a_key_is_kept_as_its_hash(tmp_path):
    path = tmp_path / "keys"
    key = new_key(path, "group")
    assert path.read_text() == f"group sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    other = new_key(path, "other")
    keyring = Keyring(read_keys(path))
    assert (keyring.owner(key), keyring.owner(other)) == ("group", "other")
    for wrong in (
        "",
        key[:-1],
        f"{key}x",
        key.upper(),
        "sha256:" + keyring.hashes["group"],
        "\udc80",
        "x" * 10_000,
    ):
        assert keyring.owner(wrong) is None


def test_names_are_taken_once_and_are_names(tmp_path):
    new_key(tmp_path / "keys", "group")
    with pytest.raises(ServiceError, match="already"):
        new_key(tmp_path / "keys", "group")
    for name in ("", "a b", "a\nb sha256:00", "-x", "x" * 65):
        with pytest.raises(ServiceError, match="no name for a key"):
            new_key(tmp_path / "keys", name)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "group\n", "group sha256:12\n", "group plain\n", "\xff\xfe"]
)
def test_what_is_no_file_of_keys_is_refused(tmp_path, text):
    path = tmp_path / "keys"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ServiceError):
        read_keys(path)
    with pytest.raises(ServiceError):
        read_keys(tmp_path / "not there")


@pytest.mark.parametrize("processes", [1, 3])
def test_a_rate_is_a_bucket_that_fills_again(tmp_path, processes):
    """One keyring, or several that count together."""
    shared = tmp_path / "rates" if processes > 1 else None
    keyring, *others = [Keyring({"a": "0" * 64}, 60, shared) for _ in range(processes)]
    turns = [keyring, *others] * 60
    assert [turns[k].wait_s("a", now=0.0) for k in range(60)] == [0.0] * 60
    assert keyring.wait_s("a", now=0.0) == pytest.approx(1.0)
    assert keyring.wait_s("a", now=0.75) == pytest.approx(0.25)
    assert keyring.wait_s("a", now=1.0) == 0.0
    assert keyring.wait_s("b", now=1.0) == 0.0  # each has its own
    assert Keyring({}, 0).wait_s("a") == 0.0


def test_processes_that_count_at_the_same_time_lose_nothing(tmp_path):
    """Two real processes spend at once: together as many as one may, to the last."""
    code = (
        "import sys, pathlib; from mace_bounds.service.keys import Keyring; "
        "k = Keyring({}, 1000, pathlib.Path(sys.argv[1])); print(sum(k.wait_s('a', now=1.0) == 0 for _ in range(800)))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "rates")], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in started) == 1000


def test_a_count_that_was_cut_off_begins_anew(tmp_path):
    keyring = Keyring({}, 2, tmp_path)
    (tmp_path / "a").write_bytes(b"123")
    assert [keyring.wait_s("a", now=5.0) > 0 for _ in range(3)] == [False, False, True]
