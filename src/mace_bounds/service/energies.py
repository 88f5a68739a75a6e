"""Energies that come with a request, for heads that bound another model's: a table beside files, or a part of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mace_bounds.bounds import BoundsPredictor
from mace_bounds.errors import LabelError
from mace_bounds.fitting import read_predictions
from mace_bounds.service.problems import Problem
from mace_bounds.structures import Upload, to_energy

TABLE, LISTED = "predictions", "energies"
"""Parts of a request that hold energies: the field of a form for a table, the key of a JSON body."""

_STRUCTURES = "structures"
_HOW = (
    "Send a table of them in the field predictions with energy_column=NAME, or JSON of the form "
    '{"structures": [...], "energies": [...]}.'
)


@dataclass(frozen=True)
class GivenTotals:
    """Total energies of cells, eV: by id, or one for each structure in order."""

    values: Mapping[str, float] | Sequence[Any]

    def by_id(self, ids: Sequence[str]) -> dict[str, float]:
        """Energies by the ids of the structures of the request, as far as there are any.

        Raises
        ------
        LabelError
            If a list has not one for each structure.
        """
        if isinstance(self.values, Mapping):
            found = {name: to_energy(self.values.get(name)) for name in ids}
        elif len(self.values) == len(ids):
            found = {name: to_energy(value) for name, value in zip(ids, self.values, strict=True)}
        else:
            raise LabelError(
                f"energies has {len(self.values):,} values for {len(ids):,} structures; give one for each, in order, "
                "null where there is none, or an object with ids as keys."
            )
        return {name: energy for name, energy in found.items() if energy is not None}

    def to_json(self) -> bytes:
        """For :meth:`from_json`."""
        return orjson.dumps(self.values)

    @classmethod
    def from_json(cls, data: bytes) -> GivenTotals:
        """Energies as a list or an object; Problem 422 if they are something else."""
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            values = None
        if not isinstance(values, (list, dict)):
            raise Problem(422, "The energies are neither a list nor an object", _HOW)
        return cls(values)


def split_json(body: bytes) -> tuple[bytes, bytes]:
    """Structures and energies of a JSON body that names both; all of it, and nothing, of any other."""
    if b'"energies"' not in body:
        return body, b""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body, b""  # the reader of structures says what is wrong with it
    if not isinstance(content, dict) or set(content) != {_STRUCTURES, LISTED}:
        return body, b""
    return orjson.dumps(content[_STRUCTURES]), orjson.dumps(content[LISTED])


def energies_of(
    uploads: Sequence[tuple[str, Upload]], energy_column: str | None, id_column: str | None
) -> tuple[list[Upload], GivenTotals | None]:
    """Part the structures of a request from its energies.

    Parameters
    ----------
    uploads : sequence of (str, Upload)
        With their fields.
    energy_column, id_column : str or None
        Columns of the table, if one is there.

    Raises
    ------
    Problem
        If there are two tables, or a table and its column of energies do not come together.
    LabelError
        If the table cannot be read.
    """
    tables = [upload for field, upload in uploads if field == TABLE]
    listed = [upload for field, upload in uploads if field == LISTED]
    structures = [upload for field, upload in uploads if field not in (TABLE, LISTED)]
    if not structures:
        raise Problem(422, "The request holds no structures", "Send them in the field files.")
    if len(tables) + len(listed) > 1:
        raise Problem(422, "The request holds energies more than once", "Send one table.")
    if bool(tables) != (energy_column is not None) or (id_column is not None and not tables):
        raise Problem(422, "A table of energies and the name of its energy column belong together", _HOW)
    if listed:
        return structures, GivenTotals.from_json(listed[0].data)
    if not tables:
        return structures, None
    series = read_predictions(tables[0], str(energy_column), id_column)
    return structures, GivenTotals({str(key): float(energy) for key, energy in series.items()})


def check_wanted(predictor: BoundsPredictor, given: GivenTotals | None) -> None:
    """Problem 422 if energies are wanted and none came, or came and are not wanted."""
    own = predictor.head.identity
    if given is None and predictor.energy_model is None:
        raise Problem(
            422,
            f"The head {predictor.head.name} bounds energies of {own.model}, which have to be given",
            _HOW,
        )
    if given is not None and not predictor.head.published:
        raise Problem(
            422,
            f"The head {predictor.head.name} bounds the energies that {own.model} computes itself, no given ones",
            "Leave them out, or name a head of the energies of their model.",
        )
