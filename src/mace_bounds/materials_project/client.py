"""One request, asked again where that helps: rate limits, failing servers, answers that were cut off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, SSLError, Timeout
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from mace_bounds.errors import SourceError
from mace_bounds.structures import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response

KEY_ADDRESS = "https://next-gen.materialsproject.org/api"
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT_S = 900.0
_CUT_OFF = (ConnectionError, Timeout, ChunkedEncodingError, ContentDecodingError)


class PatientAdapter(HTTPAdapter):
    """What carries requests to the Materials Project.

    It waits as long as ``Retry-After`` says, else twice as long after every failure, and gives up after some.
    It sits where ``requests`` lets users put one, so that the real client keeps its own addresses, headers
    and paging.

    Parameters
    ----------
    tries : int
        How often one request is sent at most.
    first_wait_s : float
        Wait after the first failure, s.
    timeout_s : float
        Longest silence of the server, s.
    note : callable, optional
        Told in a sentence why it waits.
    """

    def __init__(
        self,
        *,
        tries: int = 8,
        first_wait_s: float = 1.0,
        timeout_s: float = 60.0,
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(max_retries=0)
        self.tries, self.first_wait_s, self.timeout_s = tries, first_wait_s, timeout_s
        self.note = note or silent

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:  # noqa: ARG002
        """Send until there is a whole answer; raises :class:`SourceError` when there will be none."""
        options.pop("timeout", None)
        options["stream"] = False
        host, trouble = (request.url or "").split("?")[0], ""
        for attempt in range(self.tries):
            wait = min(self.first_wait_s * 2**attempt, LONGEST_WAIT_S)
            try:
                response = super().send(request, timeout=(10.0, self.timeout_s), **options)
                _ = response.content  # read here, so that an answer that breaks off is asked again
            except SSLError as error:
                raise SourceError(
                    f"expected a trusted connection to {host}, got '{one_line(error)}'; check the endpoint"
                ) from None
            except _CUT_OFF as error:
                trouble = _said(error)
            else:
                if response.status_code in (401, 403):
                    raise SourceError(
                        f"expected a key that the Materials Project accepts, got {response.status_code}; "
                        f"get yours at {KEY_ADDRESS} and set MP_API_KEY"
                    )
                if response.is_redirect:  # the key would go wherever it leads
                    raise SourceError(
                        f"expected an answer from {host}, got a redirection; correct MP_API_ENDPOINT"
                    )
                if response.status_code not in AGAIN:
                    trouble = self.incomplete(request, response)
                    if not trouble:
                        return response
                else:
                    trouble = f"status {response.status_code}"
                    wait = _retry_after(response, wait)
            if wait > LONGEST_WAIT_S:
                raise SourceError(
                    f"expected an answer of {host}, got the wish to wait {wait:.0f} s; run the same command again then"
                )
            if attempt + 1 < self.tries:
                self.note(f"{trouble} from {host}; asking again in {wait:.0f} s")
                time.sleep(wait)
        raise SourceError(
            f"expected an answer of {host}, got {trouble} {self.tries} times; check the connection and run the "
            "same command again later (what has come is kept)"
        )

    def incomplete(self, request: PreparedRequest, response: Response) -> str:  # noqa: ARG002
        """Say what is wrong with an answer, or nothing."""
        return ""


def silent(*_: Any) -> None:
    """Tell nothing, where the caller wants to be told nothing."""


def _said(error: Exception) -> str:
    if isinstance(error, Timeout) or "timed out" in str(error).lower():
        return "silence"
    if isinstance(error, ConnectionError) and "refused" in str(error).lower():
        return "a refused connection"
    return "an answer that breaks off" if isinstance(error, ChunkedEncodingError) else one_line(error, 120)


def _retry_after(response: Response, wait: float) -> float:
    value = response.headers.get("Retry-After")
    try:
        return wait if not value else float(Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return wait
