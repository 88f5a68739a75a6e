"""``mace-bounds features`` and ``merge``: structures to a feature store, in one run or in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mace_bounds._io import summary_path, write_json
from mace_bounds.cli import console
from mace_bounds.cli.download import fetch_query
from mace_bounds.cli.options import BoundsOptions, SourceArgument, only, takes
from mace_bounds.features import ExtractSettings, FeatureStore, Manifest

if TYPE_CHECKING:
    from mace_bounds.structures import Record

MAX_COUNTED = 20_000
"""Sources of up to this many records are read before the run, so that the progress has an end."""

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the store.")]
HeadNameOption = Annotated[
    str | None,
    typer.Option("--head-name", metavar="NAME", help="Which of the model's own heads, where it has several."),
]
WholeArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="A new folder, or the one that all parts were output into.")
]
PartsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PART]...", help="Part folders; default: the parts inside OUT."),
]


@takes(options=only(BoundsOptions, "model"), extract=ExtractSettings)
def features(
    source: SourceArgument,
    out: OutArgument,
    head_name: HeadNameOption = None,
    *,
    options: BoundsOptions,
    extract: ExtractSettings,
) -> None:
    """Extract the frozen model's features of many structures into a feature store.

    The run can be stopped at any time; the same command finishes it. Structures that cannot be used are
    rows with a reason. The store is the same to the byte however many workers, machines or parts made it.
    """
    from mace_bounds.backbones import DEFAULT_MODEL
    from mace_bounds.features import extract as run
    from mace_bounds.structures import require_usable
    from mace_bounds.versions import now, versions

    started, part = now(), extract.part
    fetch_query(source)
    # a wrong path, or a source without structures, is an error before the model is loaded
    ahead = require_usable(extract.read(source))
    backbone = extract.load(options.model or DEFAULT_MODEL, head_name)
    for warning in backbone.warnings:
        console.note(f"note: {warning}")
    records, total = count(extract.read(ahead if source == "-" else source, backbone))
    n_done = n_failed = 0
    with console.progress("structures", None if part else total) as update:

        def note(done: int, failed: int) -> None:
            nonlocal n_done, n_failed
            n_done, n_failed = done, failed
            update(done, failed)

        store = run(records, out, backbone, extract, progress=note)
    suffix = f".part-{part[0]}-of-{part[1]}" if part else ""
    write_json(
        summary_path(out.with_name(f"{out.name}{suffix}")),
        {
            "command": "features",
            "source": source,
            "settings": {
                **asdict(extract),
                "device": backbone.device,
                "part": f"{part[0]}/{part[1]}" if part else None,
            },
            "versions": versions(),
            "model": {"name": backbone.name, "digest": backbone.digest, "head": backbone.head},
            "counts": {"structures": n_done, "scored": n_done - n_failed, "failed": n_failed},
            "started": started,
            "finished": now(),
        },
    )
    _print_store(store.manifest, out, n_done, n_failed)
    any_label = _note_labels(store)
    if part:
        console.note(
            f"next, when all {part[1]} parts are done: mace-bounds merge {out}, or merge NEW PART..."
        )
    else:
        _note_next(out, any_label=any_label)


def merge(out: WholeArgument, parts: PartsArgument = None) -> None:
    """Join the parts of a feature store that features --shard I/N left.

    The result is that of a run in one piece, to the byte. Structures that are missing, there twice or not of the
    source are named, and nothing is joined.
    """
    from mace_bounds.features import merge as run

    store = run(out, parts or ())
    manifest = store.manifest
    _print_store(manifest, out, manifest.n_records, manifest.n_failed)
    _note_next(out, any_label=_note_labels(store))


def _print_store(manifest: Manifest, out: Path, n_done: int, n_failed: int) -> None:
    failed = f", {n_failed:,} with a reason instead" if n_failed else ""
    console.say(
        f"{n_done - n_failed:,} structures with {len(manifest.columns)} features of {manifest.model} in {out}{failed}."
    )


def _note_labels(store: FeatureStore) -> bool:
    """Say which labels count; whether any does."""
    from mace_bounds.features import judged_labels, refused_labels

    labels = store.labels()
    labels = labels[labels["reason"].isna()]
    judged = judged_labels(labels, refused_labels(labels))
    console.note_labels(judged, always=True)
    return bool(judged["energy_ev"].notna().any())


def _note_next(store: Path, *, any_label: bool) -> None:
    fit = f"mace-bounds fit {store} HEAD, or " if any_label else ""
    console.note(f"next: {fit}mace-bounds audit {store} REPORT")


def count(records: Iterator[Record]) -> tuple[Iterator[Record], int | None]:
    """Read ahead to learn how many records there are; None for more than :data:`MAX_COUNTED`."""
    first = list(islice(records, MAX_COUNTED + 1))
    return chain(first, records), len(first) if len(first) <= MAX_COUNTED else None
