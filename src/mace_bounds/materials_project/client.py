"""The real client of the Materials Project, opened with a key, and how its requests are carried.

It imports ``requests`` and ``urllib3``, which come with the extra ``mp``.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, SSLError, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util.retry import Retry

from mace_bounds.errors import SourceError
from mace_bounds.materials_project.connection import KEY_ADDRESS, Connection, silent
from mace_bounds.structures import one_line

DATASETS = "MPRESTER_LOCAL_DATASET_CACHE"
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT_S = 900.0
_CONNECT_TIMEOUT_S = 4.0
PATIENCE_S = 5.0
"""Waits for a server that has never answered: one that has is waited for longer."""
_CUT_OFF = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class RetryAdapter(HTTPAdapter):
    """Carries requests and sends them again after rate limits, server errors, silence and truncated answers.

    It sits where ``requests`` lets users put one, so that the real client keeps its own addresses, headers and
    paging. How often and how late comes from :class:`urllib3.util.Retry`, which follows ``Retry-After``; the loop is
    here because an answer counts as good only when its body has arrived and :meth:`incomplete` finds nothing missing.

    ``connection``: its ``tries``, ``backoff_s`` and ``timeout_s`` are used; ``note``: given a sentence before
    each wait.
    """

    def __init__(self, connection: Connection, note: Callable[[str], None] | None = None) -> None:
        super().__init__(max_retries=0)
        self.retry = Retry(
            total=connection.tries - 1,
            backoff_factor=connection.backoff_s,
            backoff_max=LONGEST_WAIT_S,
            respect_retry_after_header=True,
        )
        self._tries, self._timeout = connection.tries, (_CONNECT_TIMEOUT_S, connection.timeout_s)
        self._note = note or silent
        self._answered = False

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:  # noqa: ARG002
        """Send until there is a whole answer; raises :class:`SourceError` when there will be none."""
        options |= {"stream": False, "timeout": self._timeout}
        host, retry = (request.url or "").split("?")[0], self.retry
        waited = 0.0
        while True:
            response, trouble = self._attempt(request, host, options)
            if response is not None and not trouble:
                return response
            self._answered |= response is not None
            try:
                retry = retry.increment(request.method, request.url, error=HTTPError(trouble))
            except MaxRetryError:
                raise SourceError(
                    f"{host} gave no usable answer in {self._tries} tries ({trouble}); check the connection and run "
                    "the same command again later (what has come is kept)."
                ) from None
            wait = _wait_s(retry, response)
            waited += wait
            if waited > PATIENCE_S and not self._answered and trouble in UNREACHABLE.values():
                raise SourceError(
                    f"{host} cannot be reached ({trouble}); check the connection and the endpoint, then run the same "
                    "command again."
                )
            if wait > LONGEST_WAIT_S:
                raise SourceError(
                    f"{host} asks to wait {wait:.0f} s (Retry-After); run the same command again later."
                )
            self._note(f"{trouble} from {host}; asking again in {wait:.0f} s")
            time.sleep(wait)

    def incomplete(self, request: PreparedRequest, response: Response) -> str:  # noqa: ARG002
        """Say what is missing in an answer with status 200, or nothing; a subclass knows what was asked for."""
        return ""

    def _attempt(
        self, request: PreparedRequest, host: str, options: dict[str, Any]
    ) -> tuple[Response | None, str]:
        """Send once; returns the answer, and what is wrong with it where another try may help."""
        try:
            response = super().send(request, **options)
            _ = response.content  # read here, so that an answer that breaks off is asked for again
        except SSLError as error:
            raise SourceError(
                f"the connection to {host} is not trusted ({one_line(error)}); check the endpoint."
            ) from None
        except _CUT_OFF as error:
            return None, _cause(error)
        if response.status_code in (401, 403):
            raise SourceError(
                f"the Materials Project refuses this key (status {response.status_code}); get yours at {KEY_ADDRESS} "
                "and set MP_API_KEY."
            )
        if response.is_redirect:  # the key would go wherever it leads
            raise SourceError(f"{host} redirects to another address; correct MP_API_ENDPOINT.")
        if response.status_code in RETRIED_STATUS:
            return response, f"status {response.status_code}"
        return response, self.incomplete(request, response)


UNREACHABLE = {
    "ProxyError": "a proxy that does not work",
    "NameResolutionError": "an unknown host name, as without a network",
    "getaddrinfo": "an unknown host name, as without a network",
    "ConnectTimeout": "no connection within 4 s",
    "unreachable": "no route to the host",
    "No route": "no route to the host",
    "refused": "a refused connection",
}
"""What the text of an error has where the server itself was not reached, and how that is said."""


def _cause(error: Exception) -> str:
    text = f"{type(error).__name__} {error!r}"
    for sign, cause in UNREACHABLE.items():
        if sign in text:
            return cause
    if isinstance(error, Timeout) or "timed out" in str(error).lower():
        return "silence"
    return "a truncated answer" if isinstance(error, ChunkedEncodingError) else one_line(error, 120)


def _wait_s(retry: Retry, response: Response | None) -> float:
    """Seconds until the next try: what ``Retry-After`` says, else urllib3's backoff."""
    try:
        asked = None if response is None else retry.get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):
        asked = None
    return float(retry.get_backoff_time() if asked is None else asked)


@dataclass(frozen=True)
class ServerVersion:
    """What the server says of itself."""

    database: str  # version of the database, for example ``"2025.09.25"``
    software: str  # version of the server's software


def server_version(endpoint: str, adapter: RetryAdapter) -> ServerVersion:
    """Ask the server for its versions."""
    with requests.Session() as session:
        session.mount(endpoint, adapter)
        address = endpoint + "heartbeat"
        try:
            answer = session.get(address)
            versions = answer.json() if answer.status_code == 200 else {}
            return ServerVersion(str(versions["db_version"]), str(versions.get("version", "")))
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
            raise SourceError(
                f"{address} does not tell the Materials Project's version; correct MP_API_ENDPOINT."
            ) from None


def plain_id(name: str) -> str:
    """Return ``"mp-149"`` for both ways in which the database writes it (the other is ``"mp-aaaaaaft"``).

    Ids that the database knows in letters only keep these, and an id in digits is kept as it is.
    """
    from emmet.core.mpid import validate_identifier

    if not name or name.rpartition("-")[2].isdecimal():
        return name
    try:
        identifier = validate_identifier(name, serialize=False)
    except ValueError:
        return name
    return str(getattr(identifier, "string", identifier))


@contextmanager
def open_client(connection: Connection, adapter: RetryAdapter) -> Iterator[Any]:
    """Open ``mp_api.client.MPRester`` and let the adapter carry its requests.

    What the client raises becomes a :class:`SourceError`.
    """
    from mp_api.client.core.exceptions import MPRestError

    api_key = connection.key()
    try:
        with quiet(), _client(connection, api_key) as client:
            client.session.mount(connection.address(), adapter)
            yield client
    except (MPRestError, requests.RequestException) as error:
        text = one_line(error).replace(api_key, "KEY")
        raise SourceError(
            f"the Materials Project did not answer the search ({text}); check query and connection, then run the same "
            "command again."
        ) from None


def _client(connection: Connection, api_key: str) -> Any:
    """Make the client; it asks for the server's version past every adapter, so it may take a few tries."""
    from mp_api.client import MPRester

    options: dict[str, Any] = {"use_document_model": False, "mute_progress_bars": True}
    if folder := os.environ.get(DATASETS):  # the client itself looks at it when it is imported only
        options["local_dataset_cache"] = folder
    for attempt in range(connection.tries - 1):
        try:
            return MPRester(api_key, connection.address(), **options)
        except (requests.RequestException, KeyError):
            time.sleep(connection.backoff_s * 2**attempt)
    return MPRester(api_key, connection.address(), **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the client's warnings and log lines off the screen."""
    names = ("mp_api", "mp_api.client.core.client", "mp_api.client.mprester")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
