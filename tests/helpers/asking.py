"""Asking an ASGI application from plain tests: its lifespan and all requests run in one event loop of a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx


class Client:
    """A synchronous client; :meth:`together` sends several requests at once."""

    def __init__(self, app, loop) -> None:
        self.app, self.loop = app, loop
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8642")

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def ask(self, method, url, **options):
        return self.run(self._client.request(method, url, **options))

    def get(self, url, **options):
        return self.ask("GET", url, **options)

    def post(self, url, **options):
        return self.ask("POST", url, **options)

    def together(self, *requests):
        async def all_of_them():
            return await asyncio.gather(*(self._client.request("POST", url, **o) for url, o in requests))

        return self.run(all_of_them())

    def wait_ready(self, seconds=60.0):
        end = time.monotonic() + seconds
        while self.get("/readyz").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        return self


@contextmanager
def running(app):
    """A client of an application whose lifespan has begun."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    lifespan = app.router.lifespan_context(app)
    client = Client(app, loop)
    client.run(lifespan.__aenter__())
    try:
        yield client
    finally:
        client.run(lifespan.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
