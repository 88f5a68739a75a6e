"""The options that commands share: each is declared once."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.structures import help_text


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(StrEnum):
    """Precision of the model's forward."""

    float32 = "float32"
    float64 = "float64"


class Kind(StrEnum):
    """Which features."""

    readout = "readout"
    descriptors = "descriptors"


class Table(StrEnum):
    """How bounds are written."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


class Posterior(StrEnum):
    """The POPS posterior."""

    hypercube = "hypercube"
    ensemble = "ensemble"
    ellipsoid = "ellipsoid"


class SplitBy(StrEnum):
    """What never straddles two splits."""

    formula = "formula"
    chemical_system = "chemical_system"


class Conformal(StrEnum):
    """Which scores calibrate."""

    folds = "cross"
    held_out = "split"


class Groups(StrEnum):
    """What gets quantiles of its own."""

    none = "none"
    chemistry = "chemistry"
    elements = "elements"
    all = "all"


class PlotFormat(StrEnum):
    """File format of plots."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


def parse_memory(text: str) -> float:
    """``"512"``, ``"512MB"`` or ``"1.5 GB"`` to bytes; without a unit it is MB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = float(match[1]) * 1024.0 ** ("kmgt".index(match[2] or "m") + 1) if match else 0.0
    if size < 2**20:
        raise typer.BadParameter(f"expected a size of 1MB or more, such as 512MB or 2GB, got {text!r}.")
    return size


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="The frozen model: mini (ships with the package), a name that mace knows, or a path. "
        "Default: the head's model, else medium-mpa-0.",
    ),
]
HeadOption = Annotated[
    str | None,
    typer.Option(
        "--head", metavar="NAME|PATH", help="The calibrated head. Default: the first that fits the model."
    ),
]
LevelOption = Annotated[
    float, typer.Option("--level", "-l", min=0.01, max=0.999, help="Nominal coverage of the bounds.")
]
EnergyKeyOption = Annotated[
    str | None,
    typer.Option("--energy-key", metavar="KEY", help="Where labels are kept: an extxyz, ase or entry key."),
]
MaxAtomsOption = Annotated[
    int, typer.Option("--max-atoms", min=1, help="Larger cells are refused with a reason.")
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the model runs.")]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Precision of the model's forward.")]
ShardRowsOption = Annotated[
    int, typer.Option("--shard-rows", min=1, help="Structures per shard of the store.")
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=parse_memory,
        help="Memory for a batch in every process, beside the model: MB, or with a unit (2GB). Results depend on it by "
        "round-off only.",
        show_default="256MB, on CUDA 8GB",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Processes on this machine; with 1, and on CUDA, there is only this one.",
        show_default="one for each usable core",
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask scheduler (tcp://HOST:8786) whose workers see the same folders; instead of processes here.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only the I-th of N parts, for arrays of jobs; mace-bounds merge joins them.",
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help=f"A file ({help_text()}), a folder, a glob, - for standard input, or a Materials Project query such as "
        "mp:Li-Fe-P-O.",
    ),
]
AuditSourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A file, a folder, a glob, - for standard input, mp:QUERY, or a feature store."
    ),
]
StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="A feature store, from mace-bounds features.")
]
PlotsOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots, also into the report.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output instead of a table.")]
