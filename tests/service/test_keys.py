"""API keys: hashes in a file, compared whole, and how often each may ask."""

import hashlib

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


def test_a_rate_is_a_bucket_that_fills_again():
    keyring = Keyring({"a": "0" * 64}, rate_per_minute=60)
    assert [keyring.wait_s("a", now=0.0) for _ in range(60)] == [0.0] * 60
    assert keyring.wait_s("a", now=0.0) == pytest.approx(1.0)
    assert keyring.wait_s("a", now=0.75) == pytest.approx(0.25)
    assert keyring.wait_s("a", now=1.0) == 0.0
    assert keyring.wait_s("b", now=1.0) == 0.0  # each has its own
    assert Keyring({}, 0).wait_s("a") == 0.0
