"""Routes of decisions: which is lower, formation energies, reactions, distances from the hull."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response

from mace_bounds.bounds import HullSettings, table_bytes
from mace_bounds.errors import StructureError
from mace_bounds.service.gate import visit_of
from mace_bounds.service.parameters import (
    MEDIA,
    HeadParameter,
    LevelParameter,
    TableFormatParameter,
    only,
)
from mace_bounds.service.problems import Problem
from mace_bounds.service.schemas import BODY, BODY_WITH_PHASES, ERRORS
from mace_bounds.service.worker import Task
from mace_bounds.structures import Record

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.service.handling import RequestHandler

PHASES = "phases"
_MOST_REACTIONS = 1000
_MOST_DRAWS = 5000

OfParameter = Annotated[
    Literal["polymorphs", "volumes", "formation", "reactions"],
    Query(
        description="Pairs of one composition; of one crystal at several volumes (one composition and number of "
        "atoms); structures less the elements; or the reactions that are given."
    ),
]
ReactionParameter = Annotated[
    list[str] | None,
    Query(
        description="For reactions, several times for several: between ids or formulas of the structures.",
        examples=[["Li2O + Fe2O3 -> 2 LiFeO2"]],
    ),
]
EnergiesParameter = Annotated[
    Literal["mixed", "dft", "model"],
    Query(
        description="Energies of the competing phases: labels where there are any, labels only, or the model's."
    ),
]
CorrectionsParameter = Annotated[bool, Query(description="Apply the MP2020 corrections.")]
DrawsParameter = Annotated[int, Query(ge=50, le=_MOST_DRAWS, description="Draws of the joint errors.")]


def hull_settings(
    energies: EnergiesParameter = "mixed",
    corrections: CorrectionsParameter = True,
    draws: DrawsParameter = 1000,
) -> HullSettings:
    """The settings of a hull, from the parameters of a request."""
    return HullSettings(energies=energies, corrections=corrections, n_draws=draws)


class DecisionRoutes:
    """``/v1/differences`` and ``/v1/hull``: the rows of the commands of these names.

    Parameters
    ----------
    handler : RequestHandler
        What reads requests and asks the worker.
    """

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler

    def add_to(self, app: FastAPI) -> None:
        """Add them to an application."""
        post: dict[str, Any] = {"responses": ERRORS, "response_model": list[dict[str, Any]]}
        app.post("/v1/differences", openapi_extra=BODY, **post)(self.differences)
        app.post("/v1/hull", openapi_extra=BODY_WITH_PHASES, **post)(self.hull)

    async def differences(
        self,
        request: Request,
        of: OfParameter = "polymorphs",
        reaction: ReactionParameter = None,
        head: HeadParameter = None,
        level: LevelParameter = "0.95",
        format: TableFormatParameter = "json",
    ) -> Response:
        """Bound differences of energies, in which errors cancel, as `mace-bounds differences --format json` does."""
        only(request, "of", "reaction", "head", "level", "format")
        if (of == "reactions") != bool(reaction):
            raise Problem(422, "Reactions and of=reactions belong together", "Give both, or neither.")
        if len(reaction or ()) > _MOST_REACTIONS:
            raise Problem(413, f"There are more than {_MOST_REACTIONS} reactions", "Send fewer at a time.")
        name, number = self._handler.head_and_level(head, level)
        structures = await self._handler.read(request, [upload for _, upload in await self._uploads(request)])
        kind: Any = reaction if of == "reactions" else of

        def bounded() -> pd.DataFrame:
            predictor = self._handler.predictors[name]
            return predictor.differences(structures, kind, level=number)

        table = await self._decided(request, name, structures, bounded)
        return Response(
            await self._handler.in_thread(lambda: table_bytes(table, format)), media_type=MEDIA[format]
        )

    async def hull(
        self,
        request: Request,
        head: HeadParameter = None,
        level: LevelParameter = "0.95",
        format: TableFormatParameter = "json",
        *,
        settings: Annotated[HullSettings, Depends(hull_settings)],
    ) -> Response:
        """Bound distances from the convex hull: what `mace-bounds hull --format json` writes.

        Files of the field `phases` compete with the others; without any the structures compete with each other. Notes
        are in the header X-Notes, as a list in JSON.
        """
        only(request, "head", "level", "energies", "corrections", "draws", "format")
        name, number = self._handler.head_and_level(head, level)
        uploads = await self._uploads(request)
        first = await self._handler.read(request, [upload for field, upload in uploads if field != PHASES])
        competing = [upload for field, upload in uploads if field == PHASES]
        phases = await self._handler.read(request, competing) if competing else None
        notes: list[str] = []

        def bounded() -> pd.DataFrame:
            found = self._handler.predictors[name].hull(first, phases, settings, number)
            notes.extend(found.notes)
            return found.table

        table = await self._decided(request, name, [*first, *(phases or ())], bounded)
        body = await self._handler.in_thread(lambda: table_bytes(table, format))
        return Response(body, media_type=MEDIA[format], headers={"x-notes": json.dumps(notes)})

    async def _uploads(self, request: Request) -> list[Any]:
        uploads = await self._handler.uploads(request)
        if not any(field != PHASES for field, _ in uploads):
            raise Problem(422, "The request holds no structures", "Send them in the field files.")
        return uploads

    async def _decided(
        self, request: Request, name: str, structures: list[Record], bounded: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """Features piece by piece, so that none waits long; then what is decided from them, which are remembered."""
        if all(record.reason is not None for record in structures):
            raise Problem(422, str(structures[0].reason))
        if (predictor := self._handler.predictors[name]).energy_model is None:
            raise Problem(
                422,
                f"The head {name} bounds energies of {predictor.head.identity.model}, which does not run here",
                "Name a head whose model does; GET /v1/heads says of each whether it needs_energies.",
            )
        await self._handler.from_worker(request, Task(name, structures, self._handler.predictors[name].level))
        try:
            table: pd.DataFrame = await self._handler.from_worker(request, Task(name, [], 0.0, call=bounded))
        except StructureError as error:
            raise Problem(422, str(error)) from None
        visit_of(request.scope).about["structures"] = len(structures)
        return table
