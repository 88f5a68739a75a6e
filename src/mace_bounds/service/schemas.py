"""The types of answers, for the description of the interface (OpenAPI)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, create_model

from mace_bounds.columns import BOUNDS, Column
from mace_bounds.service.problems import CODES

_TYPES = {"text": str, "float": float, "integer": int, "boolean": bool}


def _field(column: Column) -> tuple[Any, Any]:
    unit: Any = {"unit": column.unit} if column.unit else None
    return (_TYPES[column.dtype] | None, Field(description=column.meaning, json_schema_extra=unit))


_FIELDS: dict[str, Any] = {column.name: _field(column) for column in BOUNDS}
BoundsRow = create_model("BoundsRow", __doc__="A row of the bounds table: one structure.", **_FIELDS)
ROWS: Any = list[BoundsRow]  # type: ignore[valid-type]
"""The type of a bounds table."""


class ErrorSaid(BaseModel):
    """What went wrong, and what to do."""

    code: str = Field(description="A word for programs.", examples=list(CODES.values()))
    sentence: str = Field(description="What came and what is wanted.")
    remedy: str = Field(description="What to do.")
    request_id: str = Field(description="As in the header X-Request-ID and the log of the service.")


class ErrorAnswer(BaseModel):
    """The answer to every request that cannot be answered."""

    error: ErrorSaid
    rows: list[BoundsRow] | None = Field(  # type: ignore[valid-type]
        default=None, description="Rows with their reasons, where structures were read."
    )


EXAMPLE = {
    "@module": "pymatgen.core.structure",
    "@class": "Structure",
    "lattice": {"matrix": [[0.0, 2.82, 2.82], [2.82, 0.0, 2.82], [2.82, 2.82, 0.0]]},
    "sites": [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0.0, 0.0, 0.0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}
"""Rock salt as pymatgen writes it."""

ASE_EXAMPLE = {
    "numbers": [11, 17],
    "positions": [[0.0, 0.0, 0.0], [2.82, 2.82, 2.82]],
    "cell": [[0.0, 2.82, 2.82], [2.82, 0.0, 2.82], [2.82, 2.82, 0.0]],
    "pbc": [True, True, True],
}
"""Rock salt as ase writes it."""

_ONE_OR_MANY = {
    "oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
    "description": "A structure, an entry or an ase object as JSON, or a list of them.",
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}


def _body(fields: dict[str, str], examples: dict[str, Any]) -> dict[str, Any]:
    """What a request that brings structures looks like, with more fields of files and examples of JSON."""
    properties: dict[str, Any] = {
        "files": {**_FILES, "description": "CIF, POSCAR, extxyz, JSON and others, packed or not."},
        "text": {"type": "string", "description": "The text of a file."},
        **{name: {**_FILES, "description": meaning} for name, meaning in fields.items()},
    }
    shown = {
        "pymatgen": EXAMPLE,
        "ase": ASE_EXAMPLE,
        "several": [EXAMPLE, ASE_EXAMPLE],
        **examples,
    }
    content = {
        "multipart/form-data": {"schema": {"type": "object", "properties": properties}},
        "application/json": {
            "schema": _ONE_OR_MANY,
            "examples": {name: {"value": value} for name, value in shown.items()},
        },
    }
    return {"requestBody": {"required": True, "content": content}}


BODY = _body({}, {})
"""What a request that brings structures looks like."""

BODY_WITH_ENERGIES = _body(
    {
        "predictions": "One table of total energies, eV, for heads of another model's; energy_column names its column."
    },
    {"energies": {"structures": [EXAMPLE], "energies": [-27.1]}},
)
"""And energies of another model with them."""

BODY_WITH_PHASES = _body({"phases": "Competing phases, as structures or entries."}, {})
"""And competing phases with them."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": CODES[status].replace("_", " ")}
    for status in (400, 401, 403, 404, 408, 413, 415, 421, 422, 429, 500, 503)
}
