"""``mace-bounds merge``: the parts that ``features --shard I/N`` left, to one feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.cli import console as _console

OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="A new folder, or the one that all parts were written into.")
]
PartsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PART]...", help="Folders of the parts, if they have their own."),
]


def merge(out: OutArgument, parts: PartsArgument = None) -> None:
    """Join the parts of a feature store; the result is that of a run in one piece, to the byte.

    Refuses, and names the structures, if one is missing, there twice, or not of the source.
    """
    from mace_bounds.features import merge as run

    store = run(out, parts or ())
    manifest = store.manifest
    good = manifest.n_records - manifest.n_failed
    failed = f", {manifest.n_failed:,} with a reason instead" if manifest.n_failed else ""
    _console.out().print(
        f"{good:,} structures with {len(manifest.columns)} features of {manifest.model} in {out}{failed}.",
        soft_wrap=True,
        markup=False,
    )
    _console.note(f"next: mace-bounds fit {out} HEAD, or mace-bounds audit {out} REPORT")
