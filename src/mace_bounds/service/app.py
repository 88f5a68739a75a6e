"""The application: routes from requests to the worker and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from mace_bounds.bounds import BoundsPredictor, TableFormat, table_bytes
from mace_bounds.errors import nearest
from mace_bounds.examples import example_files
from mace_bounds.service.cards import flags_said, head_card, models_of
from mace_bounds.service.config import ServiceConfig
from mace_bounds.service.decision_routes import DecisionRoutes
from mace_bounds.service.gate import Gate, ServiceState, n_coming, visit_of
from mace_bounds.service.handling import RequestHandler
from mace_bounds.service.job_routes import JobRoutes
from mace_bounds.service.jobs import Jobs
from mace_bounds.service.keys import Keyring, read_keys
from mace_bounds.service.metrics import Metrics
from mace_bounds.service.parameters import (
    MEDIA,
    EnergyColumnsParameter,
    FormatParameter,
    HeadParameter,
    LevelParameter,
    only,
)
from mace_bounds.service.problems import CODES, Problem
from mace_bounds.service.results import Results
from mace_bounds.service.schemas import BODY_WITH_ENERGIES, ERRORS, ROWS
from mace_bounds.service.worker import Task, Worker, load_predictors
from mace_bounds.structures import Record, reasons_in_short
from mace_bounds.tables import records, to_json
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    import pandas as pd

PAGE = Path(__file__).parent / "page"
_READERS = 2  # threads that parse; they share one interpreter with the model

ColumnsParameter = Annotated[
    Literal["all", "basic"], Query(description="All columns, or those that a person reads.")
]
NeighboursParameter = Annotated[
    int, Query(ge=1, le=50, description="How many of the nearest labelled crystals are named.")
]


def create_app(config: ServiceConfig, predictors: Mapping[str, BoundsPredictor] | None = None) -> FastAPI:
    """Make the application of a service; nothing is loaded before it starts.

    Parameters
    ----------
    config : ServiceConfig
        What it serves and within which limits.
    predictors : mapping of str to BoundsPredictor, optional
        Predictors by the names of their heads, where they are loaded already.

    Returns
    -------
    FastAPI
        An ASGI application, for uvicorn or tests. The model is loaded in a thread when its lifespan begins; until then
        ``/readyz`` says 503.

    Raises
    ------
    ServiceError
        If the file of keys cannot be used.
    """
    rates = None if config.scratch is None or config.processes == 1 else config.scratch / "rates"
    keyring = None if config.keys is None else Keyring(read_keys(config.keys), config.rate_per_minute, rates)
    metrics = Metrics()
    visits: dict[int, Any] = {}
    load = partial(load_predictors, config) if predictors is None else lambda: predictors
    worker = Worker(load, config.window_ms / 1000, lambda: n_coming(visits), metrics)
    jobs = None if config.state is None else Jobs(config.state, worker, config, metrics)
    state = ServiceState(config, keyring, worker, metrics, visits)
    results = Results(config.shared_folder("results"), 3600 * config.keep_hours, config.kept_bytes)
    readers = ThreadPoolExecutor(_READERS, "reader")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        results.start()
        if jobs is not None:
            jobs.start()
        yield
        if jobs is not None:
            await asyncio.to_thread(jobs.stop)
        await asyncio.to_thread(worker.stop)
        readers.shutdown(cancel_futures=True)
        results.stop()

    app = FastAPI(
        title="mace-bounds",
        version=__version__,
        summary="Error bounds with measured coverage for the energies of machine-learned interatomic potentials.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Gate, state=state)
    app.add_exception_handler(HTTPException, _http_problem)
    _add_validation(app)
    handler = RequestHandler(state, readers)
    Routes(handler, results).add_to(app)
    DecisionRoutes(handler).add_to(app)
    if jobs is not None:
        JobRoutes(jobs, handler).add_to(app)
    _add_page(app)
    return app


class Routes:
    """The routes of energies and of what the service says of itself."""

    def __init__(self, handler: RequestHandler, results: Results) -> None:
        self._results = results
        self._handler, self._state, self._config = handler, handler.state, handler.state.config
        self._worker = handler.state.worker

    def add_to(self, app: FastAPI) -> None:
        """Add them to an application."""
        post: dict[str, Any] = {"openapi_extra": BODY_WITH_ENERGIES, "responses": ERRORS}
        app.post("/v1/score", response_model=ROWS, **post)(self.score)
        app.post("/v1/explain", response_model=dict[str, Any], **post)(self.explain)
        app.get(
            "/v1/results/{name}",
            response_model=ROWS,
            responses={s: ERRORS[s] for s in (401, 404, 421, 422, 429)},
        )(self.result)
        read: dict[str, Any] = {"responses": {s: ERRORS[s] for s in (401, 421, 429, 503)}}
        app.get("/v1/models", **read)(self.models)
        app.get("/v1/heads", **read)(self.heads)
        app.get("/v1/flags", **read)(self.flags)
        app.get("/v1/limits", **read)(self.limits)
        app.get("/healthz")(self.healthz)
        app.get("/readyz", responses={503: {"description": "The model is not loaded, or the service ends."}})(
            self.readyz
        )
        app.get("/metrics", response_class=Response)(self.metrics)

    async def score(
        self,
        request: Request,
        head: HeadParameter = None,
        level: LevelParameter = "0.95",
        format: FormatParameter = "json",
        columns: ColumnsParameter = "all",
        *,
        given: EnergyColumnsParameter,
    ) -> Response:
        """Bound the DFT energy of structures: the rows that `mace-bounds score --format json` writes."""
        only(request, "head", "level", "format", "columns", "energy_column", "id_column")
        name, number = self._handler.head_and_level(head, level)
        structures, energies = await self._handler.brought(request, name, given)
        task = Task(name, structures, number, energies=energies)
        table: pd.DataFrame = await self._handler.from_worker(request, task)
        failed = table["reason"].notna()
        self._state.metrics.structures(int((~failed).sum()), int(failed.sum()))
        visit_of(request.scope).about |= {"structures": len(table), "failed": int(failed.sum())}
        if failed.all():
            raise Problem(
                422, reasons_in_short([str(reason) for reason in table["reason"]]), rows=records(table)
            )
        asked = f"{name} {number} {energies}"

        def written() -> tuple[bytes, str | None]:
            rows = to_json(table).encode()
            link = self._results.keep(rows, structures, asked)
            plain = format == "json" and columns == "all"
            return rows if plain else _written(table, format, structures, columns), link

        body, link = await self._handler.in_thread(written)
        answer = Response(body, media_type=MEDIA[format])
        if link is not None:
            answer.headers["x-result"] = f"/v1/results/{link}"
        return answer

    async def result(
        self,
        request: Request,
        name: str,
        format: FormatParameter = "json",
        columns: ColumnsParameter = "all",
    ) -> Response:
        """Give the answer of an earlier request again: the header X-Result of that names it, for a stated time."""
        only(request, "format", "columns")

        def written() -> bytes:
            kept = self._results.get(name)
            return _written(kept.table, format, kept.structures, columns)

        return Response(await self._handler.in_thread(written), media_type=MEDIA[format])

    async def explain(
        self,
        request: Request,
        head: HeadParameter = None,
        level: LevelParameter = "0.95",
        neighbours: NeighboursParameter = 5,
        *,
        given: EnergyColumnsParameter,
    ) -> JSONResponse:
        """Say why the bounds of one structure are as wide as they are, as `mace-bounds explain --format json` does."""
        only(request, "head", "level", "neighbours", "energy_column", "id_column")
        name, number = self._handler.head_and_level(head, level)
        structures, energies = await self._handler.brought(request, name, given)
        if len(structures) != 1:
            raise Problem(
                422, f"The request holds {len(structures)} structures, and explain takes one", "Send one."
            )
        task = Task(name, structures, number, neighbours, energies)
        table, explained = await self._handler.from_worker(request, task)
        visit_of(request.scope).about |= {"structures": 1, "failed": int(isinstance(explained, str))}
        if isinstance(explained, str):
            raise Problem(422, explained, rows=records(table))
        return JSONResponse(explained.to_dict())

    async def models(self) -> list[dict[str, Any]]:
        """List the models that the service was started with, and their heads."""
        return models_of(self._handler.predictors)

    async def heads(self) -> list[dict[str, Any]]:
        """List the heads that requests may name: what they bound, and the coverage that was measured."""
        return [head_card(predictor) for predictor in self._handler.predictors.values()]

    async def flags(self) -> dict[str, str]:
        """List every flag of a row with what it means."""
        return flags_said()

    async def limits(self) -> dict[str, float]:
        """Tell what one request may have."""
        c = self._config
        return {
            "bytes": c.max_bytes,
            "unpacked_bytes": c.max_unpacked_bytes,
            "structures": c.max_structures,
            "atoms": c.max_total_atoms,
            "atoms_of_one_structure": c.extract.max_atoms,
            "seconds": c.max_seconds,
            "keep_hours": c.keep_hours,
        }

    async def healthz(self) -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "alive"}

    async def readyz(self) -> JSONResponse:
        """Say whether structures are scored."""
        worker = self._worker
        if worker.ready:
            return JSONResponse({"status": "ready"})
        status = "failed" if worker.failure else "ending" if worker.loaded.is_set() else "loading"
        answer = {"status": status, **({"reason": worker.failure} if worker.failure else {})}
        return JSONResponse(answer, 503, headers={"retry-after": "3"})

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(self._state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _written(table: pd.DataFrame, kind: TableFormat, structures: Sequence[Record], columns: str) -> bytes:
    return table_bytes(table, kind, structures, basic=columns == "basic")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    remedy = "GET /openapi.json lists what there is." if error.status_code in (404, 405) else ""
    status = error.status_code if error.status_code in CODES else 400
    return _answer(request, Problem(status, str(error.detail), remedy), dict(error.headers or {}))


def _add_validation(app: FastAPI) -> None:
    from fastapi.exceptions import RequestValidationError

    async def not_valid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"][1:]) or "request"
        return _answer(request, Problem(422, f"The parameter {what:.80} cannot be used: {first['msg']:.200}"))

    app.add_exception_handler(RequestValidationError, not_valid)


def _answer(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    body = problem.body(visit_of(request.scope).id)
    return Response(body, problem.status, {**(headers or {}), **problem.headers})


def _add_page(app: FastAPI) -> None:
    examples = {path.stem: path for path in example_files()}

    @app.get("/v1/examples")
    async def list_examples() -> list[str]:
        """List the crystals that ship with the package."""
        return list(examples)

    @app.get("/v1/examples/{name}", response_class=Response)
    async def example(name: str) -> Response:
        """Give one of them as CIF."""
        if name not in examples:
            raise Problem(
                404, f"There is no example {name!r:.80}{nearest(name[:80], examples)}", "GET /v1/examples."
            )
        return Response(examples[name].read_bytes(), media_type="chemical/x-cif")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        """The page."""
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE, check_dir=False), name="page")
