"""Where and how the Materials Project is reached; nothing here needs its client (extra ``mp``)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from mace_bounds.errors import SourceError
from mace_bounds.structures import clean

ENDPOINT = "https://api.materialsproject.org/"
KEY_ADDRESS = "https://next-gen.materialsproject.org/api"
MISSING = 'downloads from the Materials Project need its client; run pip install "mace-bounds[mp]".'


@dataclass(frozen=True)
class Connection:
    """How to reach the Materials Project."""

    api_key: str | None = None  # else ``MP_API_KEY``, else pymatgen's ``PMG_MAPI_KEY``
    endpoint: str | None = None  # address of the interface; else ``MP_API_ENDPOINT``, else the public one
    page_size: int = 500  # documents in one request, at most 1,000
    tries: int = 8  # how often one request is sent at most
    # the waits before the third try, the fourth, ... are 2, 4, ... times as long, s; the second is at once.
    backoff_s: float = 1.0
    timeout_s: float = 60.0  # longest silence of the server, s

    def address(self) -> str:
        """Return the address of the interface, with a slash at its end; SourceError if it is none."""
        given = self.endpoint if self.endpoint is not None else os.environ.get("MP_API_ENDPOINT")
        address = (ENDPOINT if given is None or (not given and self.endpoint is None) else given).strip()
        wrong = f"the endpoint {clean(address, 80)!r}"
        if not address.startswith(("https://", "http://")):
            raise SourceError(f"{wrong} does not begin with https://; correct --endpoint or MP_API_ENDPOINT.")
        try:
            parts = urlsplit(address)
            named = bool(parts.hostname) and parts.port != 0 and address.isprintable() and " " not in address
        except ValueError:  # a port that is no number, a broken IPv6 address
            named = False
        if not named:
            raise SourceError(f"{wrong} names no host; correct --endpoint or MP_API_ENDPOINT.")
        return address if address.endswith("/") else address + "/"

    def has_key(self) -> bool:
        """Return whether there is a key, right or wrong."""
        return bool(self._given_key())

    def _given_key(self) -> str:
        return str(self.api_key or os.environ.get("MP_API_KEY") or _pymatgen_key() or "").strip()

    def key(self) -> str:
        """Return the key; SourceError if there is none, or not one of 32 letters and digits. It is never shown."""
        key = self._given_key()
        if not key:
            raise SourceError(
                f"there is no key of the Materials Project; get yours at {KEY_ADDRESS} and set MP_API_KEY."
            )
        if len(key) != 32 or not (key.isascii() and key.isalnum()):
            raise SourceError(
                f"a key of the Materials Project has 32 letters and digits, and this one has {len(key)} characters; "
                f"copy yours from {KEY_ADDRESS} into MP_API_KEY."
            )
        return key


def _pymatgen_key() -> object:
    from pymatgen.core import SETTINGS

    return SETTINGS.get("PMG_MAPI_KEY")


def require_client() -> None:
    """Raise :class:`SourceError` with the line that installs it, where the Materials Project's client is missing."""
    if find_spec("mp_api") is None:
        raise SourceError(MISSING)


def silent(*_: object) -> None:
    """No-op progress and note callback."""
