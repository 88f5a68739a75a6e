"""``mace-bounds mcp``: bounds as tools for assistants."""

from __future__ import annotations

from typing import Annotated

import typer

from mace_bounds.cli.options import only, takes
from mace_bounds.errors import ServiceError
from mace_bounds.service import ServiceConfig

MISSING = 'tools for assistants need two more packages; run pip install "mace-bounds[serve,mcp]".'

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a service (mace-bounds serve) instead of a model in this process. An API key is taken from "
        "$MACE_BOUNDS_KEY.",
    ),
]


@takes(
    config=only(
        ServiceConfig,
        *(
            "model",
            "heads",
            "max_bytes",
            "max_unpacked_bytes",
            "max_structures",
            "max_total_atoms",
            "max_seconds",
        ),
        *("energy_key", "max_atoms", "device", "dtype", "memory_bytes"),
    )
)
def mcp(server: ServerOption = None, *, config: ServiceConfig) -> None:
    """Offer bounds as tools of the Model Context Protocol, over standard input and output.

    The tools are score, explain, heads and flags. They take the text of files and open none.
    """
    try:
        from mace_bounds.service import mcp_server
    except ImportError:
        raise ServiceError(MISSING) from None
    if server is not None and not server.startswith(("http://", "https://")):
        raise ServiceError(f"{server!r} is no address of a service; write http://HOST:PORT.")
    mcp_server(config, server).run("stdio")
