"""Routes of jobs: bring many structures, look how far they are, fetch the table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from mace_bounds.bounds import table_bytes
from mace_bounds.service.gate import visit_of
from mace_bounds.service.parameters import (
    MEDIA,
    EnergyColumnsParameter,
    HeadParameter,
    LevelParameter,
    ResultFormatParameter,
    only,
)
from mace_bounds.service.problems import Problem
from mace_bounds.service.schemas import BODY_WITH_ENERGIES, ERRORS
from mace_bounds.tables import read_table

if TYPE_CHECKING:
    from mace_bounds.service.handling import RequestHandler
    from mace_bounds.service.jobs import Jobs

_LINKS = {
    operation: {"operationId": operation, "parameters": {"name": "$response.body#/id"}}
    for operation in ("get_job", "get_job_result", "cancel_job")
}
"""What can be asked of a job that was made, for the description of the interface."""


class JobRoutes:
    """The routes below ``/v1/jobs``.

    Parameters
    ----------
    jobs : Jobs
    handler : RequestHandler
        What reads requests.
    """

    def __init__(self, jobs: Jobs, handler: RequestHandler) -> None:
        self._jobs, self._handler = jobs, handler

    def add_to(self, app: FastAPI) -> None:
        """Add them to an application."""
        errors: dict[str, Any] = {"responses": {s: ERRORS[s] for s in (401, 404, 422, 429, 503)}}
        made = {202: {"description": "The job, which waits.", "links": _LINKS}, **ERRORS}
        app.post("/v1/jobs", status_code=202, openapi_extra=BODY_WITH_ENERGIES, responses=made)(self.add)
        app.get("/v1/jobs", **errors)(self.all)
        job: dict[str, Any] = {"path": "/v1/jobs/{name}", **errors}
        app.get(operation_id="get_job", **job)(self.get)
        app.delete(operation_id="cancel_job", **job)(self.cancel)
        result: dict[str, Any] = {"path": "/v1/jobs/{name}/result", "response_class": Response, **errors}
        app.get(operation_id="get_job_result", **result)(self.result)

    async def add(
        self,
        request: Request,
        head: HeadParameter = None,
        level: LevelParameter = "0.95",
        *,
        given: EnergyColumnsParameter,
    ) -> JSONResponse:
        """Make a job of files or JSON: any number of structures, scored beside all other requests."""
        only(request, "head", "level", "energy_column", "id_column")
        name, number = self._handler.head_and_level(head, level)
        files, totals = await self._handler.parted(request, name, given, many=True)
        predictor = self._handler.predictors[name]
        if totals is None and predictor.energy_model is not predictor.model:
            raise Problem(
                422,
                f"A job of the head {name} would need a second model for the energies",
                "Send the energies with it (field predictions, energy_column=NAME), or ask /v1/score.",
            )
        job = await asyncio.to_thread(self._jobs.add, files, name, number, _owner(request), totals)
        where = f"/v1/jobs/{job.id}"
        return JSONResponse(job.to_dict(), 202, {"location": where})

    async def all(self, request: Request) -> list[dict[str, Any]]:
        """List your jobs, the latest first."""
        return [job.to_dict() for job in await asyncio.to_thread(self._jobs.all_of, _owner(request))]

    async def get(self, request: Request, name: str) -> dict[str, Any]:
        """Tell how far a job is."""
        return (await asyncio.to_thread(self._jobs.get, name, _owner(request))).to_dict()

    async def result(
        self, request: Request, name: str, format: ResultFormatParameter = "parquet"
    ) -> Response:
        """Give the bounds of a job that is done."""
        only(request, "format")
        path = await asyncio.to_thread(self._jobs.result, name, _owner(request))
        if format == "parquet":
            return FileResponse(path, media_type=MEDIA["parquet"], filename="bounds.parquet")
        body = await asyncio.to_thread(lambda: table_bytes(read_table(path), format))
        return Response(body, media_type=MEDIA[format])

    async def cancel(self, request: Request, name: str) -> dict[str, Any]:
        """End a job that waits or runs; forget one that has ended, with its files."""
        return (await asyncio.to_thread(self._jobs.cancel, name, _owner(request))).to_dict()


def _owner(request: Request) -> str:
    """Who sees a job: the key that made it."""
    return visit_of(request.scope).key
