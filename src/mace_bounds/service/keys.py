"""API keys: a file of names and hashes, made here; the keys themselves are shown once and kept nowhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from mace_bounds._io import atomic
from mace_bounds.errors import ServiceError

PREFIX = "mb_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})")
_LONGEST = 200
_SPENT = struct.Struct("dd")


def new_key(path: Path, name: str) -> str:
    """Make a key, add its name and hash to the file, and return it.

    A key is 32 random bytes, so that a plain hash of it cannot be inverted by guessing.

    Raises
    ------
    ServiceError
        If the name is none or taken, or the file is no file of keys.
    """
    if not _NAME.fullmatch(name):
        raise ServiceError(
            f"{name!r} is no name for a key; use up to 64 letters, digits, dots, dashes and underscores."
        )
    keys = read_keys(path) if path.exists() else {}
    if name in keys:
        raise ServiceError(
            f"{path} has a key of the name {name} already; delete its line first, or choose another name."
        )
    key = PREFIX + secrets.token_urlsafe(32)
    lines = "".join(f"{name} sha256:{digest}\n" for name, digest in {**keys, name: _hash(key)}.items())
    with atomic(path) as temporary:
        temporary.write_text(lines, encoding="utf-8")
        os.chmod(temporary, 0o600)  # noqa: PTH101
    return key


def read_keys(path: Path) -> dict[str, str]:
    """Names and hashes from a file of keys; ServiceError if it cannot be used."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise ServiceError(f"the file of keys {path} cannot be read ({error}); check it.") from None
    keys = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ServiceError(
                f"line {number} of {path} is no key; a line is NAME sha256:HEX, made by mace-bounds serve --new-key "
                "NAME."
            )
        keys[found[1]] = found[2]
    if not keys:
        raise ServiceError(
            f"{path} holds no key; make one with mace-bounds serve --keys {path} --new-key NAME."
        )
    return keys


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Keyring:
    """Who may ask, and how often.

    Parameters
    ----------
    hashes : dict of str to str
        From :func:`read_keys`.
    rate_per_minute : int
        Requests that each may make, in bursts of up to as many; 0 for no limit.
    shared : path, optional
        Folder of the counts, where several processes count together.
    """

    hashes: dict[str, str]
    rate_per_minute: int = 0
    shared: Path | None = None
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # as in :func:`_take`, by name

    def __post_init__(self) -> None:
        if self.shared is not None:
            self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)

    def owner(self, key: str) -> str | None:
        """Name that a key belongs to; every hash is compared, in constant time."""
        given, found = _hash(key[:_LONGEST]), None
        for name, digest in self.hashes.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found

    def wait_s(self, name: str, now: float | None = None) -> float:
        """Take one request from what a name has left; how long to wait where nothing is left, else 0."""
        if not self.rate_per_minute:
            return 0.0
        now = time.monotonic() if now is None else now  # the same clock in all processes
        if self.shared is None:
            wait_s, self._spent[name] = _take(self._spent.get(name, (0.0, 0.0)), self.rate_per_minute, now)
            return wait_s
        path = self.shared / name
        with FileLock(f"{path}.lock"):
            kept = path.read_bytes() if path.exists() else b""
            spent = _SPENT.unpack(kept) if len(kept) == _SPENT.size else (0.0, 0.0)
            wait_s, spent = _take(spent, self.rate_per_minute, now)
            path.write_bytes(_SPENT.pack(*spent))
        return wait_s


def _take(spent: tuple[float, float], per_minute: int, now: float) -> tuple[float, tuple[float, float]]:
    """Spend one request; how long to wait where none is left, else 0, and how many are spent and when that was."""
    n, since = spent
    n = max(0.0, n - (now - since) * per_minute / 60)
    return (0.0, (n + 1, now)) if n + 1 <= per_minute else ((n + 1 - per_minute) * 60 / per_minute, (n, now))
