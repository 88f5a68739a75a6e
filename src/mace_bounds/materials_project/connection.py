"""The real client of the Materials Project, opened with a key, and the version of the database it reaches."""

from __future__ import annotations

import logging
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mace_bounds.errors import SourceError
from mace_bounds.materials_project.retry import KEY_ADDRESS
from mace_bounds.structures import clean, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mace_bounds.materials_project.retry import PatientAdapter

DATASETS = "MPRESTER_LOCAL_DATASET_CACHE"
ENDPOINT = "https://api.materialsproject.org/"


@dataclass(frozen=True)
class Heartbeat:
    """What the server says of itself.

    Attributes
    ----------
    database_version : str
        For example ``"2025.09.25"``.
    server_version : str
        Version of its software.
    """

    database_version: str
    server_version: str


def find_key(api_key: str | None = None) -> str:
    """Return the key: the argument, else ``MP_API_KEY``, else ``PMG_MAPI_KEY`` of pymatgen's settings.

    Raises
    ------
    SourceError
        If there is none, or what there is has not 32 letters and digits; the key itself is never shown.
    """
    found = api_key or os.environ.get("MP_API_KEY") or _pymatgen_key()
    key = str(found or "").strip()
    if not key:
        raise SourceError(
            f"expected a key of the Materials Project, got none; get yours at {KEY_ADDRESS} and set MP_API_KEY"
        )
    if len(key) != 32 or not (key.isascii() and key.isalnum()):
        raise SourceError(
            f"expected a key of 32 letters and digits, got {len(key)} characters; copy yours from {KEY_ADDRESS} "
            "into MP_API_KEY"
        )
    return key


def _pymatgen_key() -> object:
    from pymatgen.core import SETTINGS

    return SETTINGS.get("PMG_MAPI_KEY")


def find_endpoint(endpoint: str | None = None) -> str:
    """Return the address of the interface: the argument, else ``MP_API_ENDPOINT``, else the public one."""
    address = (endpoint or os.environ.get("MP_API_ENDPOINT") or ENDPOINT).strip()
    if not address.startswith(("https://", "http://")):
        raise SourceError(
            f"expected an endpoint that begins with https://, got {clean(address, 80)!r}; correct MP_API_ENDPOINT"
        )
    return address if address.endswith("/") else address + "/"


def heartbeat(endpoint: str, adapter: PatientAdapter) -> Heartbeat:
    """Ask the server for its versions, patiently.

    Raises
    ------
    SourceError
        If there is no Materials Project at the address.
    """
    import requests

    with requests.Session() as session:
        session.mount(endpoint, adapter)
        address = endpoint + "heartbeat"
        try:
            answer = session.get(address)
            told = answer.json() if answer.status_code == 200 else {}
            return Heartbeat(str(told["db_version"]), str(told.get("version", "")))
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
            raise SourceError(
                f"expected the Materials Project's version at {address}, got something else; correct MP_API_ENDPOINT"
            ) from None


def plain_id(name: str) -> str:
    """Return ``"mp-149"`` for both ways in which the database writes it (the other is ``"mp-aaaaaaft"``).

    Ids that the database knows in letters only keep these, and an id in digits is kept as it is.
    """
    from emmet.core.mpid import validate_identifier

    if name.rpartition("-")[2].isdecimal():
        return name
    try:
        found = validate_identifier(name, serialize=False)
    except ValueError:
        return name
    return str(getattr(found, "string", found))


@contextmanager
def open_client(endpoint: str, api_key: str, adapter: PatientAdapter) -> Iterator[Any]:
    """Open ``mp_api.client.MPRester`` and let the adapter carry its requests.

    What the client raises becomes a :class:`SourceError`.
    """
    import requests
    from mp_api.client.core.exceptions import MPRestError

    try:
        with quiet(), _client(endpoint, api_key, adapter) as client:
            client.session.mount(endpoint, adapter)
            yield client
    except (MPRestError, requests.RequestException) as error:
        told = one_line(error).replace(api_key, "KEY")
        raise SourceError(
            f"expected the Materials Project to answer the search, got '{told}'; check query and connection, then "
            "run the same command again"
        ) from None


def _client(endpoint: str, api_key: str, adapter: PatientAdapter) -> Any:
    """Make the client; it asks for the server's version at once and by itself, so it may take a few tries."""
    import requests
    from mp_api.client import MPRester

    options: dict[str, Any] = {"use_document_model": False, "mute_progress_bars": True}
    if folder := os.environ.get(DATASETS):  # the client itself looks at it when it is imported only
        options["local_dataset_cache"] = folder
    for attempt in range(adapter.tries - 1):
        try:
            return MPRester(api_key, endpoint, **options)
        except (requests.RequestException, KeyError):
            time.sleep(adapter.first_wait_s * 2**attempt)
    return MPRester(api_key, endpoint, **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the client's warnings and log lines off the screen."""
    logger = logging.getLogger("mp_api")
    level = logger.level
    children = [logging.getLogger(name) for name in ("mp_api.client.core.client", "mp_api.client.mprester")]
    levels = [child.level for child in children]
    for one in (logger, *children):
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for child, before in zip(children, levels, strict=True):
            child.setLevel(before)
