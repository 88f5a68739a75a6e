"""From a configuration to a process that listens."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.supervisors import Multiprocess

from mace_bounds.errors import ServiceError
from mace_bounds.service.app import create_app
from mace_bounds.service.metrics import share_counts
from mace_bounds.versions import now

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mace_bounds.service.config import ServiceConfig

_KEEP_ALIVE_S = 10
_LAST_LOOK_S = 0.5
_SWITCH_S = 0.0005
"""For how long a thread keeps the interpreter from others: a tenth of Python's own, as the loop that answers needs it
some ten times in a request, beside the thread of the model."""
_CONNECTIONS = 4096
"""Connections at once; uvicorn itself refuses more, without Retry-After, so it is far beyond what the queue takes."""


class _Lines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        about = json.loads(message) if message.startswith("{") else {"message": message}
        return json.dumps({"time": now(), "level": record.levelname.lower(), **about})


def log_to_stderr() -> None:
    """Write the log of the service to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("mace_bounds.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(
        logging.CRITICAL
    )  # of damaged forms the answer says enough


def _app(config: ServiceConfig) -> FastAPI:
    log_to_stderr()
    sys.setswitchinterval(_SWITCH_S)
    return create_app(config)


def serve(config: ServiceConfig, started: Callable[[str], None] = lambda _: None) -> None:
    """Listen until the process is told to end (SIGTERM, SIGINT); what was let in by then is answered.

    Parameters
    ----------
    config : ServiceConfig
    started : callable
        Called with the address when the socket is bound.

    Raises
    ------
    ServiceError
        If the address cannot be listened on, or the file of keys cannot be used.
    """
    with TemporaryDirectory(prefix="mace-bounds-") as scratch:
        _listen(replace(config, scratch=Path(scratch)), started)


def _listen(config: ServiceConfig, started: Callable[[str], None]) -> None:
    if config.processes > 1:
        share_counts(config.scratch)
    application = None if config.processes > 1 else _app(config)
    listening = _bound(config)
    host, port = listening.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    settings = uvicorn.Config(
        application or partial(_app, config),
        http=_Patient,
        factory=application is None,
        workers=config.processes,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(2 * config.max_seconds) + 5,
        timeout_worker_healthcheck=60,
    )
    with suppress(KeyboardInterrupt):  # what uvicorn raises again after it has ended as it was told to
        if config.processes > 1:
            Multiprocess(settings, sockets=[listening]).run()
        else:
            uvicorn.Server(settings).run(sockets=[listening])


class _Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Connections that read what was sent before the end: uvicorn alone drops those whose request it has not read."""

    def shutdown(self) -> None:
        """Close when the answers have been sent."""
        self.loop.call_later(_LAST_LOOK_S, super().shutdown)


def _bound(config: ServiceConfig) -> socket.socket:
    """A socket that listens on the address; ServiceError if it is taken or none of this machine."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.set_inheritable(True)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ServiceError(
            f"{config.host} port {config.port} cannot be listened on ({error.strerror or error}); choose another "
            "--port or --host."
        ) from None
    return listening
