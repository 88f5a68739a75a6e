"""Bounds as tools of the Model Context Protocol, for assistants: the verbs of the service, its limits and remedies."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from mace_bounds.service.app import create_app
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mace_bounds.bounds import BoundsPredictor
    from mace_bounds.service.config import ServiceConfig

ABOUT = (
    "Error bounds with measured coverage for the DFT energies of crystals, from a frozen MACE model and a calibrated "
    "head. Bounds at 95 % hold the DFT energy of 95 % of crystals like those of the head's data: no probability for "
    "one crystal. "
    "Flags such as extrapolates say where nothing was measured; repeat them beside the numbers."
)
_PATIENCE_S = 300.0


class _Asker:
    """A service in this process or at an address."""

    def __init__(self) -> None:
        self.client: httpx.AsyncClient | None = None

    async def __call__(self, method: str, path: str, **options: Any) -> Any:
        """Ask; a problem becomes an error of the tool with its remedy."""
        assert self.client is not None
        ends = asyncio.get_running_loop().time() + _PATIENCE_S
        while True:
            try:
                answer = await self.client.request(method, path, **options)
            except httpx.HTTPError as error:
                raise ToolError(
                    f"The service does not answer ({error}). Is mace-bounds serve running?"
                ) from None
            wait = answer.headers.get("retry-after", "")
            if answer.status_code == 503 and wait.isdecimal() and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(min(int(wait), 5))
                continue
            said = answer.json()
            if answer.is_success:
                return said
            raise ToolError(f"{said['error']['sentence']} {said['error']['remedy']}".strip())


def mcp_server(
    config: ServiceConfig, url: str | None = None, predictors: Mapping[str, BoundsPredictor] | None = None
) -> MCPServer[None]:
    """Make a server of tools.

    Parameters
    ----------
    config : ServiceConfig
        What is served, where there is no ``url``.
    url : str, optional
        A service that is asked instead of a model in this process; an API key is taken from ``MACE_BOUNDS_KEY``.
    predictors : mapping of str to BoundsPredictor, optional
        As in :func:`create_app`.
    """
    ask = _Asker()

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if url is None:
                app = create_app(config, predictors)
                await stack.enter_async_context(app.router.lifespan_context(app))
                made = httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=None
                )
            else:
                key = os.environ.get("MACE_BOUNDS_KEY")
                headers = {"authorization": f"Bearer {key}"} if key else {}
                made = httpx.AsyncClient(base_url=url, headers=headers, timeout=120)
            ask.client = await stack.enter_async_context(made)
            yield

    server: MCPServer[None] = MCPServer(
        "mace-bounds", instructions=ABOUT, version=__version__, lifespan=lifespan
    )

    @server.tool()
    async def score(
        content: str, name: str = "pasted", level: float = 0.95, head: str | None = None
    ) -> dict[str, Any]:
        """Bound the DFT energy of the crystals in the text of a file: CIF, POSCAR, extended XYZ or JSON.

        ``name`` says the format where the text does not, as NaCl.cif; no file is opened. Energies are total energies of
        the cell in eV, errors E_DFT - E_model in meV/atom; a row with a ``reason`` could not be scored.
        """
        rows = await ask(
            "POST", "/v1/score", files=_file(name, content), params=_given(level, head, columns="basic")
        )
        return {"rows": rows}

    @server.tool()
    async def explain(
        content: str, name: str = "pasted", level: float = 0.95, head: str | None = None
    ) -> dict[str, Any]:
        """Say why the bounds of the one crystal in the text of a file are as wide as they are.

        A verdict in words, the nearest labelled crystals with the model's errors there, what the width is made of, and
        the atoms with the newest surroundings.
        """
        answer: dict[str, Any] = await ask(
            "POST", "/v1/explain", files=_file(name, content), params=_given(level, head)
        )
        return answer

    @server.tool()
    async def heads() -> dict[str, Any]:
        """List the heads that can be named: what they bound, their levels, and the coverage that was measured."""
        cards = await ask("GET", "/v1/heads")
        return {"heads": [{k: v for k, v in card.items() if k != "errors"} for card in cards]}

    @server.tool()
    async def flags() -> dict[str, Any]:
        """Say what the flags of rows mean."""
        meanings: dict[str, Any] = await ask("GET", "/v1/flags")
        return meanings

    return server


def _file(name: str, content: str) -> dict[str, tuple[str, bytes]]:
    return {"files": (name or "pasted", content.encode("utf-8", "replace"))}


def _given(level: float, head: str | None, **more: str) -> dict[str, str]:
    return {"level": str(level), **({} if head is None else {"head": head}), **more}
