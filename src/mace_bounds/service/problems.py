"""What a request is told when it cannot be answered: one JSON shape with a sentence and a remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mace_bounds.errors import ServiceError

CODES = {
    400: "bad_request",
    401: "no_key",
    403: "forbidden",
    404: "not_found",
    405: "bad_method",
    408: "too_slow",
    413: "too_large",
    415: "bad_type",
    421: "wrong_host",
    422: "not_usable",
    429: "too_often",
    500: "fault",
    503: "busy",
}
"""A word for programs, by status."""


class Problem(ServiceError):
    """A request cannot be answered.

    Parameters
    ----------
    status : int
        Of HTTP, one of :data:`CODES`.
    sentence : str
        What came and what is wanted.
    remedy : str
        What to do; by default what stands after the last semicolon of the sentence, as in all messages here.
    retry_after_s : int, optional
        When it is worth to ask again.
    rows : list of dict, optional
        Rows of the bounds table with the reasons, where structures were read.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        remedy: str = "",
        *,
        retry_after_s: int | None = None,
        rows: list[dict[str, Any]] | None = None,
    ) -> None:
        if not remedy and ";" in sentence:
            sentence, _, remedy = sentence.rpartition(";")
        self.status = status
        self.sentence = sentence.strip().rstrip(".") + "."
        self.remedy = remedy.strip()
        self.retry_after_s = retry_after_s
        self.rows = rows
        super().__init__(f"{self.sentence[:-1]}; {self.remedy}" if self.remedy else self.sentence)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the answer."""
        headers = {"content-type": "application/json"}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.status == 400:  # where the request ends is not sure
            headers["connection"] = "close"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    def body(self, request_id: str) -> bytes:
        """The answer as JSON."""
        error = {
            "code": CODES[self.status],
            "sentence": self.sentence,
            "remedy": self.remedy,
            "request_id": request_id,
        }
        answer: Mapping[str, Any] = {"error": error} | ({} if self.rows is None else {"rows": self.rows})
        return json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
