"""``mace-bounds features``: structures to a feature store; stopped at any instant, resumed by the same command."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mace_bounds.cli import console as _console
from mace_bounds.cli.download import local
from mace_bounds.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    EnergyKeyOption,
    Kind,
    MaxAtomsOption,
    MemoryOption,
    ModelOption,
    SchedulerOption,
    ShardOption,
    ShardRowsOption,
    SourceArgument,
    WorkersOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mace_bounds.structures import Record

COUNTED = 20_000  # sources up to this size are read before the run, so that the end is in sight

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the store.")]
HeadNameOption = Annotated[
    str | None,
    typer.Option("--head-name", metavar="NAME", help="Which of the model's own heads, where it has several."),
]
KindOption = Annotated[
    Kind, typer.Option("--kind", help="readout: the energy is linear in them; descriptors: all invariants.")
]


AtomsOption = Annotated[
    bool,
    typer.Option(
        "--atoms", help="Keep the features of every atom too, so that a head from this store grades atoms."
    ),
]
SymmetryOption = Annotated[
    bool,
    typer.Option(
        "--symmetry",
        help="Keep the space groups of labelled structures too, so that an audit tells them apart.",
    ),
]


def features(
    source: SourceArgument,
    out: OutArgument,
    model: ModelOption = None,
    head_name: HeadNameOption = None,
    kind: KindOption = Kind.readout,
    atoms: AtomsOption = False,
    symmetry: SymmetryOption = False,
    energy_key: EnergyKeyOption = None,
    max_atoms: MaxAtomsOption = 500,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.float32,
    shard_rows: ShardRowsOption = 256,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    shard: ShardOption = None,
) -> None:
    """Extract the frozen model's features of many structures into a feature store.

    The run can be stopped at any time; the same command finishes it. Structures that cannot be used are
    rows with a reason. The store is the same to the byte however many workers, machines or parts made it.
    """
    from mace_bounds.backbones import DEFAULT_MODEL, load_model
    from mace_bounds.features import ExtractSettings, extract
    from mace_bounds.structures import read
    from mace_bounds.versions import now, versions

    started, part = now(), parse_part(shard)
    local(source)
    read(source, energy_key=energy_key) if source != "-" else None  # a wrong path is said at once
    frozen = load_model(
        model or DEFAULT_MODEL,
        head=head_name,
        device=device.value,
        dtype=dtype.value,
        memory_bytes=memory,
    )
    for warning in frozen.warnings:
        _console.note(f"note: {warning}")
    elements = frozenset(frozen.atomic_numbers)
    records = read(source, energy_key=energy_key, max_atoms=max_atoms, elements=elements)
    records, total = count(records)
    n_done = n_failed = 0
    with _console.progress("structures", None if part else total) as update:

        def note(done: int, failed: int) -> None:
            nonlocal n_done, n_failed
            n_done, n_failed = done, failed
            update(done, failed)

        store = extract(
            records,
            out,
            frozen,
            ExtractSettings(
                kind=kind.value,
                atoms=atoms,
                symmetry=symmetry,
                shard_rows=shard_rows,
                workers=workers,
                scheduler=scheduler,
                part=part,
            ),
            progress=note,
        )
    manifest, good = store.manifest, n_done - n_failed
    suffix = f".part-{part[0]}-of-{part[1]}" if part else ""
    path = out.with_name(f"{out.name}{suffix}.summary.json")
    _console.write_summary(
        path,
        {
            "command": "features",
            "source": source,
            "settings": {
                "kind": kind.value,
                "atoms": atoms,
                "symmetry": symmetry,
                "energy_key": energy_key,
                "max_atoms": max_atoms,
                "dtype": dtype.value,
                "device": frozen.device,
                "shard_rows": shard_rows,
                "shard": shard,
                "memory_bytes": memory,
            },
            "versions": versions(),
            "model": {"name": frozen.name, "digest": frozen.digest, "head": frozen.head},
            "counts": {"structures": n_done, "scored": good, "failed": n_failed},
            "started": started,
            "finished": now(),
        },
    )
    failed = f", {n_failed:,} with a reason instead" if n_failed else ""
    _console.out().print(
        f"{good:,} structures with {len(manifest.columns)} features of {frozen.name} in {out}{failed}.",
        soft_wrap=True,
        markup=False,
    )
    if part:
        _console.note(
            f"next, when all {part[1]} parts are done: mace-bounds merge {out}, or merge NEW PART..."
        )
    else:
        _console.note(f"next: mace-bounds fit {out} HEAD, or mace-bounds audit {out} REPORT")


def parse_part(text: str | None) -> tuple[int, int] | None:
    """``"2/4"`` to (2, 4)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise typer.BadParameter(f"expected I/N with I from 1 to N, got {text!r}.", param_hint="--shard")
    return int(i), int(n)


def count(records: Iterator[Record]) -> tuple[Iterator[Record], int | None]:
    """Read ahead to learn how many records there are; None where they are more than :data:`COUNTED`."""
    from itertools import chain

    first = list(islice(records, COUNTED + 1))
    return chain(first, records), len(first) if len(first) <= COUNTED else None
