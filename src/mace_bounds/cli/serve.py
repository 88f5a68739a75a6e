"""``mace-bounds serve`` and ``mcp``: bounds over HTTP, with a page for people, and as tools for assistants."""

from __future__ import annotations

from typing import Annotated

import typer

from mace_bounds.cli import console
from mace_bounds.cli.options import only, takes, without
from mace_bounds.errors import ServiceError
from mace_bounds.features import READING_FIELDS, STORING_FIELDS
from mace_bounds.service import ServiceConfig

NO_FRAMEWORK = (
    'the service needs a web framework, which is not installed; run pip install "mace-bounds[serve]".'
)
NO_TOOLS = 'tools for assistants need two more packages; run pip install "mace-bounds[serve,mcp]".'

NewKeyOption = Annotated[
    str | None,
    typer.Option(
        "--new-key",
        metavar="NAME",
        help="Make an API key of this name, add its hash to the file of --keys, show it once, and end.",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a service (mace-bounds serve) instead of a model in this process. An API key is taken from "
        "$MACE_BOUNDS_KEY.",
    ),
]
LIMIT_FIELDS = ("max_bytes", "max_unpacked_bytes", "max_structures", "max_total_atoms", "max_seconds")
"""What one request may bring and take."""


@takes(config=without(ServiceConfig, *STORING_FIELDS))
def serve(new_key: NewKeyOption = None, *, config: ServiceConfig) -> None:
    """Serve bounds over HTTP, with a page for people.

    Until it is stopped it answers on http://127.0.0.1:8642, or where the options say.
    Requests name neither files nor models: they bring structures, and choose among the heads that the service was
    started with. Other machines can connect only with an API key.
    """
    if new_key is not None:
        from mace_bounds.service import new_key as make

        if config.keys is None:
            raise ServiceError("a new key is kept in a file; name it with --keys FILE.")
        console.write_data(f"{make(config.keys, new_key)}\n".encode())
        console.note(f"the key of {new_key}: it is shown this once, and {config.keys} has its hash")
        return
    try:
        from mace_bounds.service import serve as run
    except ImportError:
        raise ServiceError(NO_FRAMEWORK) from None
    run(config, lambda address: console.note(f"listening on {address}; the model is being loaded"))


@takes(config=only(ServiceConfig, "model", "heads", *LIMIT_FIELDS, *READING_FIELDS))
def mcp(server: ServerOption = None, *, config: ServiceConfig) -> None:
    """Offer bounds as tools of the Model Context Protocol, over standard input and output.

    The tools are score, explain, heads and flags. They take the text of files and open none.
    """
    try:
        from mace_bounds.service import mcp_server
    except ImportError:
        raise ServiceError(NO_TOOLS) from None
    if server is not None and not server.startswith(("http://", "https://")):
        raise ServiceError(f"{server!r} is no address of a service; write http://HOST:PORT.")
    mcp_server(config, server).run("stdio")
