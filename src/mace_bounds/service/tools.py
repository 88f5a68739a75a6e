"""Bounds as tools of the Model Context Protocol, for assistants: the verbs of the service, its limits and remedies."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from mace_bounds.bounds import BoundsPredictor
from mace_bounds.service.app import create_app
from mace_bounds.versions import __version__

if TYPE_CHECKING:
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
        """Ask for JSON; a problem becomes an error of the tool with its remedy."""
        return (await self.answer(method, path, **options)).json()

    async def answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer as it is."""
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
                await asyncio.sleep(min(int(wait), 5) * random.uniform(1, 1.5))
                continue
            if answer.is_success:
                return answer
            said = answer.json()
            raise ToolError(f"{said['error']['sentence']} {said['error']['remedy']}".strip())


class _Tools:
    """What an assistant can call: the names and descriptions that it sees are those of the methods."""

    def __init__(self, ask: _Asker) -> None:
        self._ask = ask

    async def score(
        self, content: str, name: str = "pasted", level: float = 0.95, head: str | None = None
    ) -> dict[str, Any]:
        """Bound the DFT energy of the crystals in the text of a file: CIF, POSCAR, extended XYZ or JSON.

        ``name`` says the format where the text does not, as NaCl.cif; no file is opened. Energies are total energies of
        the cell in eV, errors E_DFT - E_model in meV/atom; a row with a ``reason`` could not be scored.
        """
        rows = await self._ask(
            "POST", "/v1/score", files=_file(name, content), params=_given(level, head, columns="basic")
        )
        return {"rows": rows}

    async def explain(
        self, content: str, name: str = "pasted", level: float = 0.95, head: str | None = None
    ) -> dict[str, Any]:
        """Say why the bounds of the one crystal in the text of a file are as wide as they are.

        A verdict in words, the nearest labelled crystals with the model's errors there, what the width is made of, and
        the atoms with the newest surroundings.
        """
        answer: dict[str, Any] = await self._ask(
            "POST", "/v1/explain", files=_file(name, content), params=_given(level, head)
        )
        return answer

    async def differences(
        self,
        files: dict[str, str],
        of: Literal["polymorphs", "volumes", "formation", "reactions"] = "polymorphs",
        reactions: list[str] | None = None,
        level: float = 0.95,
        head: str | None = None,
    ) -> dict[str, Any]:
        """Bound differences of energies between crystals, in which errors cancel: which is lower, formation, reactions.

        ``files`` are texts of files by their names; no file is opened. ``reactions``, for that kind only, are written
        between ids or formulas: Li2O + Fe2O3 -> 2 LiFeO2. ``volumes`` takes structures of one formula and number of
        atoms as one crystal at several volumes. Left of zero the first of two is lower.
        """
        given: dict[str, Any] = {
            **_given(level, head, of=of),
            **({"reaction": reactions} if reactions else {}),
        }
        return {
            "rows": await self._ask("POST", "/v1/differences", files=_files("files", files), params=given)
        }

    async def hull(
        self,
        files: dict[str, str],
        phases: dict[str, str] | None = None,
        energies: Literal["mixed", "dft", "model"] = "mixed",
        level: float = 0.95,
        head: str | None = None,
    ) -> dict[str, Any]:
        """Bound the distances of crystals from the convex hull of competing phases.

        ``files`` and ``phases`` are texts of files by their names, phases best as entries of the Materials Project in
        JSON; without phases the crystals compete with each other. Repeat the ``notes`` beside the numbers.
        """
        sent = _files("files", files) + _files("phases", phases or {})
        answer = await self._ask.answer(
            "POST", "/v1/hull", files=sent, params=_given(level, head, energies=energies)
        )
        return {"rows": answer.json(), "notes": json.loads(answer.headers["x-notes"])}

    async def models(self) -> dict[str, Any]:
        """List the models that are served, with the elements that they know."""
        return {"models": await self._ask("GET", "/v1/models")}

    async def heads(self) -> dict[str, Any]:
        """List the heads that can be named: what they bound, their levels, and the coverage that was measured."""
        cards = await self._ask("GET", "/v1/heads")
        return {"heads": [{k: v for k, v in card.items() if k != "errors"} for card in cards]}

    async def flags(self) -> dict[str, Any]:
        """Say what the flags of rows mean."""
        meanings: dict[str, Any] = await self._ask("GET", "/v1/flags")
        return meanings


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
    tools = _Tools(ask)
    for tool in (
        tools.score, tools.explain, tools.differences, tools.hull, tools.models, tools.heads, tools.flags,
    ):  # fmt: skip
        server.add_tool(tool)
    return server


def _file(name: str, content: str) -> dict[str, tuple[str, bytes]]:
    return {"files": (name or "pasted", content.encode("utf-8", "replace"))}


def _files(field: str, texts: Mapping[str, str]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (name or "pasted", text.encode("utf-8", "replace"))) for name, text in texts.items()]


def _given(level: float, head: str | None, **more: str) -> dict[str, str]:
    return {"level": str(level), **({} if head is None else {"head": head}), **more}
