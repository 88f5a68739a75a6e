"""``mace-bounds serve``: the HTTP service and its page."""

from __future__ import annotations

from typing import Annotated

import typer

from mace_bounds.cli import console
from mace_bounds.cli.options import only, takes
from mace_bounds.errors import ServiceError
from mace_bounds.service import ServiceConfig

MISSING = 'the service needs a web framework, which is not installed; run pip install "mace-bounds[serve]".'

NewKeyOption = Annotated[
    str | None,
    typer.Option(
        "--new-key",
        metavar="NAME",
        help="Make an API key of this name, add its hash to the file of --keys, show it once, and end.",
    ),
]


@takes(
    config=only(
        ServiceConfig,
        *("model", "heads", "host", "port", "keys", "processes", "max_bytes", "max_unpacked_bytes"),
        *(
            "max_structures",
            "max_total_atoms",
            "max_seconds",
            "max_slowdown",
            "queue",
            "window_ms",
            "rate_per_minute",
        ),
        *("keep_hours", "state", "max_job_bytes", "max_jobs", "job_days"),
        *("energy_key", "max_atoms", "device", "dtype", "memory_bytes"),
    )
)
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
        raise ServiceError(MISSING) from None
    run(config, lambda address: console.note(f"listening on {address}; the model is being loaded"))
