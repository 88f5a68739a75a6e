"""What every request passes: who asks, how large and how often, and what is put down of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders

from mace_bounds.service.pace import BYTES_PER_ATOM, Pace, ahead_of_others, work_of
from mace_bounds.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mace_bounds.service.config import ServiceConfig
    from mace_bounds.service.keys import Keyring
    from mace_bounds.service.metrics import Metrics
    from mace_bounds.service.worker import Worker

LOG = logging.getLogger("mace_bounds.service")

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_OPEN = ("/v1/examples",)  # shipped with the package, for the page before a key is given
_JOBS_AT_ONCE = 2  # that are being sent: they may be large, and are in memory until they are kept
_GONE = 499  # in the log only: nobody was there to be told


@dataclass
class Visit:
    """One request on its way, as the log and the metrics see it."""

    id: str
    since: float = field(default_factory=time.monotonic)
    arrived: float = 0.0  # when all of it was there: what a slow client takes is not ours
    status: int = 0
    n_bytes: int = 0
    key: str = ""
    about: dict[str, Any] = field(default_factory=dict)  # counts that the routes add
    submitted: bool = False
    makes_job: bool = False
    alone: bool = True  # no other was under way at any time
    work: float = (
        0.0  # in atoms (:mod:`mace_bounds.service.pace`): guessed from the bytes until it has been read
    )


def visit_of(scope: Any) -> Visit:
    """The visit that the gate has opened."""
    visit: Visit = scope["state"]["visit"]
    return visit


@dataclass
class ServiceState:
    """What the gate and the routes of one service share."""

    config: ServiceConfig
    keyring: Keyring | None  # None where only this machine can connect
    worker: Worker
    metrics: Metrics
    visits: dict[int, Visit]  # requests that have been let in
    pace: Pace = field(default_factory=Pace)

    def let_in(self, visit: Visit) -> None:
        """A request is under way."""
        self.pace.came(len(self.visits))
        self.visits[id(visit)] = visit
        if len(self.visits) > 1:
            for other in self.visits.values():
                other.alone = False
        self.metrics.under_way.set(len(self.visits))

    def let_out(self, visit: Visit) -> None:
        """It is not any more, whatever its end was."""
        n = len(self.visits)
        if self.visits.pop(id(visit), None) is None:
            return
        if (
            not visit.makes_job and visit.submitted
        ):  # what was refused before it reached the model says nothing
            self.pace.answered(n, visit.work, time.monotonic() - visit.arrived, alone=visit.alone)
        self.metrics.under_way.set(len(self.visits))

    def work_ahead(self) -> float:
        """What a request that comes now waits for."""
        return sum(ahead_of_others(visit.work) for visit in self.visits.values())

    def retry_after_s(self) -> int:
        """When it is worth to ask again."""
        return self.pace.retry_after_s(self.work_ahead())


def n_coming(visits: Mapping[int, Visit]) -> int:
    """Requests that have been let in and are not in the line of the worker yet."""
    return sum(not visit.submitted for visit in list(visits.values()))


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        self._app, self._state, self._config = app, state, state.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        visit = Visit(given if _ID.fullmatch(given) else uuid.uuid4().hex)
        scope.setdefault("state", {})["visit"] = visit

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                out["x-request-id"] = visit.id
                if scope["path"].startswith("/v1/"):
                    out["cache-control"] = "no-store"
            await send(message)

        problem: Problem | None = None
        try:
            self._admit(scope, headers, visit)
            await self._app(scope, self._counted(receive, visit, scope["path"]), answer)
        except Problem as error:
            problem = error
        except asyncio.CancelledError:
            visit.status = visit.status or _GONE
            raise
        except ClientGone:
            visit.status = _GONE
        except Exception as error:
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            visit.about |= {"error": type(error).__name__, "where": where}  # its text may hold a structure
            problem = Problem(
                500,
                f"A fault in mace-bounds ({type(error).__name__})",
                "Report it with the number of the request.",
            )
        finally:
            self._state.let_out(visit)
        if problem is not None and not visit.status:
            await send_problem(problem, visit, answer)
        self._put_down(scope, visit)

    def _admit(self, scope: Scope, headers: Headers, visit: Visit) -> None:
        path, posts = scope["path"], scope["method"] not in ("GET", "HEAD")
        if "content-length" in headers and "transfer-encoding" in headers:
            # servers differ in which one they believe: what one takes for a body is a request for another
            raise Problem(400, "The request says its length in two ways", "Send Content-Length alone.")
        if self._state.keyring is None:
            self._only_from_here(headers, posts)
        elif path == "/metrics" or (path.startswith("/v1/") and not path.startswith(_OPEN)):
            self._known(self._state.keyring, headers, visit)
        if scope["method"] != "POST" or not path.startswith("/v1/"):
            return
        length = headers.get("content-length", "")
        n_bytes = int(length[:20]) if length.isascii() and length.isdecimal() else 0
        if n_bytes > self._limits(path)[0]:
            raise self._too_large(path)
        if not self._state.worker.loaded.is_set():
            raise Problem(503, "The model is being loaded", "Ask again in a few seconds.", retry_after_s=3)
        if self._state.worker.failure:
            raise Problem(
                503, f"The model cannot be loaded: {self._state.worker.failure}", "Tell who runs the service."
            )
        n = len(self._state.visits)
        too_long = self._state.pace.too_long(n, self._state.work_ahead(), self._config.max_slowdown)
        if n >= self._config.queue or too_long:
            raise Problem(
                503,
                f"{n} requests are under way, as many as the service can answer soon",
                "Ask again later.",
                retry_after_s=self._state.retry_after_s(),
            )
        visit.makes_job = path == "/v1/jobs"
        if visit.makes_job and sum(v.makes_job for v in self._state.visits.values()) >= _JOBS_AT_ONCE:
            raise Problem(503, "Other jobs are being sent", "Ask again later.", retry_after_s=5)
        visit.work = 0.0 if visit.makes_job else work_of(n_bytes / BYTES_PER_ATOM)
        self._state.let_in(visit)

    @staticmethod
    def _only_from_here(headers: Headers, posts: bool) -> None:
        """Refuse what another site has made a browser on this machine send, be it by a name that leads here."""
        host = headers.get("host", "")
        if not _LOCAL_HOST.fullmatch(host):
            raise Problem(
                421,
                "The service without API keys answers only to the names of this machine",
                "Ask http://127.0.0.1 or http://localhost, or start it with --keys.",
            )
        if not posts:  # a link from elsewhere may lead to the page, and what other pages get they cannot read
            return
        origin = headers.get("origin", "")
        if headers.get("sec-fetch-site", "") == "cross-site" or (
            origin and origin.partition("://")[2] != host
        ):
            raise Problem(
                403, "The request comes from a page of another site", "Use the page of the service."
            )

    @staticmethod
    def _known(keyring: Keyring, headers: Headers, visit: Visit) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        owner = keyring.owner(key) if key else None
        if owner is None:
            raise Problem(
                401,
                "The API key is not known" if key else "An API key is wanted",
                "Send the header Authorization: Bearer KEY; who runs the service makes keys.",
            )
        visit.key = owner
        if wait := keyring.wait_s(owner):
            raise Problem(
                429,
                f"The key has made more than {keyring.rate_per_minute} requests a minute",
                "Ask again later.",
                retry_after_s=int(wait) + 1,
            )

    def _limits(self, path: str) -> tuple[float, float]:
        """Bytes that a body may have, and seconds for which it may arrive."""
        c = self._config
        if path != "/v1/jobs":
            return c.max_bytes, c.max_seconds
        return c.max_job_bytes, c.max_seconds * max(1.0, c.max_job_bytes / c.max_bytes)

    def _too_large(self, path: str) -> Problem:
        most = int(self._limits(path)[0])
        jobs = " or make a job of them" if path != "/v1/jobs" and self._config.state is not None else ""
        return Problem(413, f"The request has more than {most:,} bytes", f"Send fewer files at a time{jobs}.")

    def _counted(self, receive: Receive, visit: Visit, path: str) -> Receive:
        """Count the bytes of the body as they come, for no longer than a request may take."""
        max_bytes, max_seconds = self._limits(path)
        whole = False

        async def counted() -> Message:
            nonlocal whole
            if whole:
                return await receive()  # only the end of the connection is left to come
            left = visit.since + max_seconds - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                raise Problem(
                    408,
                    f"The request did not arrive within {max_seconds:g} s",
                    "Send fewer files at a time.",
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            visit.n_bytes += len(message.get("body", b""))
            if visit.n_bytes > max_bytes:
                raise self._too_large(path)
            whole = not message.get("more_body", False)
            visit.arrived = time.monotonic()
            return message

        return counted

    def _put_down(self, scope: Scope, visit: Visit) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        took = time.monotonic() - visit.since
        self._state.metrics.request(route, visit.status, took)
        line = {
            "event": "request",
            "id": visit.id,
            "method": scope["method"] if scope["method"].isalpha() else "?",
            "route": route,
            "status": visit.status,
            "ms": round(1000 * took, 1),
            "bytes": visit.n_bytes,
            **({"key": visit.key} if visit.key else {}),
            **visit.about,
        }
        LOG.info(json.dumps(line))


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def send_problem(problem: Problem, visit: Visit, send: Send) -> None:
    """Answer with a problem."""
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    body = problem.body(visit.id)
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
