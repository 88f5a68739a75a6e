"""Parameters of requests that several routes have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query, Request

from mace_bounds.errors import nearest
from mace_bounds.service.problems import Problem

MEDIA = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "markdown": "text/markdown; charset=utf-8",
    "extxyz": "chemical/x-xyz; charset=utf-8",
    "cif": "chemical/x-cif; charset=utf-8",
}
"""Types of content of the formats of tables."""

HeadParameter = Annotated[
    str | None, Query(description="Name of a head, one of /v1/heads; the first where none is named.")
]
LevelParameter = Annotated[
    str, Query(description="Nominal coverage, one of the head's levels, as 0.95 or 95.", examples=["0.95"])
]
FormatParameter = Annotated[
    Literal["json", "csv", "tsv", "parquet", "markdown", "extxyz", "cif"],
    Query(description="Format of the answer, as of mace-bounds score."),
]
TableFormatParameter = Annotated[
    Literal["json", "csv", "tsv", "parquet", "markdown"], Query(description="Format of the table.")
]
ResultFormatParameter = Annotated[
    Literal["parquet", "csv", "tsv", "json"], Query(description="Format of the table.")
]


@dataclass(frozen=True)
class EnergyColumns:
    """Columns of a table of energies that comes with a request, for heads that bound another model's."""

    energy: str | None
    ids: str | None


def _energy_columns(
    energy_column: Annotated[
        str | None,
        Query(
            description="Column of total energies, eV, in the table of the field predictions.", max_length=200
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        Query(description="Its column of ids; id, material_id, mat_id or entry_id.", max_length=200),
    ] = None,
) -> EnergyColumns:
    return EnergyColumns(energy_column, id_column)


EnergyColumnsParameter = Annotated[EnergyColumns, Depends(_energy_columns)]


def only(request: Request, *known: str) -> None:
    """Refuse parameters that there are not: a misspelt one would be a wrong answer."""
    for name in request.query_params:
        if name not in known:
            raise Problem(
                422,
                f"There is no parameter {name!r:.80}{nearest(name[:80], known)}",
                f"The parameters are {', '.join(known) or 'none'}.",
            )
