"""From a request to its answer: what all routes do with what came, and how they wait for the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect

from mace_bounds.bounds import BoundsPredictor, n_atoms_of
from mace_bounds.errors import LabelError, MaceBoundsError, nearest
from mace_bounds.levels import parse_level
from mace_bounds.service.energies import GivenTotals, check_wanted, energies_of
from mace_bounds.service.gate import ClientGone, ServiceState, visit_of
from mace_bounds.service.intake import Reading, uploads_of
from mace_bounds.service.pace import work_of
from mace_bounds.service.problems import Problem
from mace_bounds.structures import Record, Upload

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from fastapi import Request

    from mace_bounds.service.parameters import EnergyColumns
    from mace_bounds.service.worker import Task

T = TypeVar("T")


class RequestHandler:
    """Reads what a request brings and waits for the answer of the worker: what all routes share.

    Parameters
    ----------
    state : ServiceState
    readers : ThreadPoolExecutor
        Threads that parse and write.
    """

    def __init__(self, state: ServiceState, readers: ThreadPoolExecutor) -> None:
        self.state, self._config, self._worker = state, state.config, state.worker
        self._readers = readers

    @property
    def predictors(self) -> Mapping[str, BoundsPredictor]:
        """What the service was started with; Problem 503 before they are loaded."""
        if not self._worker.predictors:
            raise Problem(503, "The model is being loaded", "Ask again in a few seconds.", retry_after_s=3)
        return self._worker.predictors

    def head_and_level(self, head: str | None, level: str) -> tuple[str, float]:
        """Names that the service was started with, and levels that the head is calibrated for."""
        predictors = self.predictors
        name = next(iter(predictors)) if head is None else head
        if name not in predictors:
            raise Problem(
                422,
                f"There is no head of the name {head!r:.80}{nearest(name, predictors)}",
                "GET /v1/heads lists them.",
            )
        try:
            return name, predictors[name].head.levels.nearest(parse_level(level[:40]))
        except (ValueError, MaceBoundsError) as error:
            raise Problem(422, str(error)) from None

    async def uploads(self, request: Request, *, many: bool = False) -> list[tuple[str, Upload]]:
        """Files of a request with their fields."""
        try:
            return await uploads_of(request, self._config, many=many)
        except ClientDisconnect:
            raise ClientGone from None

    async def parted(
        self, request: Request, head: str, given: EnergyColumns, *, many: bool = False
    ) -> tuple[list[Upload], GivenTotals | None]:
        """Files of a request, and the energies that came with them, as the head wants them."""
        uploads = await self.uploads(request, many=many)
        try:
            files, totals = await self.in_thread(partial(energies_of, uploads, given.energy, given.ids))
        except LabelError as error:
            raise Problem(422, str(error)) from None
        check_wanted(self.predictors[head], totals)
        return files, totals

    async def brought(
        self, request: Request, head: str, given: EnergyColumns
    ) -> tuple[list[Record], dict[str, float] | None]:
        """Structures of a request, and the energies that came with them by their ids."""
        files, totals = await self.parted(request, head, given)
        structures = await self.read(request, files)
        try:
            return structures, None if totals is None else totals.by_id([record.id for record in structures])
        except LabelError as error:
            raise Problem(422, str(error)) from None

    async def read(self, request: Request, uploads: list[Upload]) -> list[Record]:
        """Records of files, read in a thread."""
        reading = Reading(uploads, self._config)
        try:
            return await self._while_there(request, self._readers.submit(reading.run))
        except MaceBoundsError as error:
            if isinstance(error, Problem):
                raise
            raise Problem(422, str(error)) from None
        finally:
            reading.stop()

    async def from_worker(self, request: Request, task: Task) -> Any:
        """Wait for a task in the line of the worker."""
        visit = visit_of(request.scope)
        if task.structures:
            n_atoms = sum(n_atoms_of(record) for record in task.structures)
            visit.about["atoms"], visit.work = n_atoms, work_of(n_atoms)
        try:
            answer = self._worker.submit(task)
            visit.submitted = True
            return await self._while_there(request, answer)
        except MaceBoundsError as error:
            if isinstance(error, Problem):
                raise
            raise Problem(422, str(error)) from None

    async def _while_there(self, request: Request, work: Future[T]) -> T:
        """Wait for work as long as somebody waits for the answer; what has not begun then costs nothing more."""
        answer = asyncio.wrap_future(work)
        gone = asyncio.ensure_future(_gone(request))
        left = self._config.max_seconds
        try:
            both: set[asyncio.Future[Any]] = {answer, gone}
            done, _ = await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answer in done:
                return answer.result()
            if gone in done:
                raise ClientGone
            raise Problem(
                503,
                f"The answer was not there within {left:g} s",
                "Send fewer structures at a time, or ask again later.",
                retry_after_s=self.state.retry_after_s(),
            )
        finally:
            gone.cancel()
            answer.cancel()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do work that is no forward beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
