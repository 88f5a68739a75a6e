"""What every engine shares: the seam, a bounded window of shards, care for workers that die; and this very process."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

from mace_bounds.backbones import Backbone
from mace_bounds.errors import EngineError
from mace_bounds.features.engines.work import Shard, Task, perform
from mace_bounds.threads import one_thread


class Engine(Protocol):
    """Where tasks are done."""

    @property
    def slots(self) -> int:
        """How many tasks may be submitted and not yet done."""

    @property
    def max_deaths(self) -> int:
        """How many deaths of a worker over the same task are needed before the task is to blame."""

    def submit(self, task: Task) -> None:
        """Take a task; returns at once."""

    def wait(self) -> tuple[Task, int | None]:
        """Wait for any task; returns it with its failed rows, or with None if its worker died over it."""

    def close(self) -> None:
        """Stop at once, whatever is in flight."""


def run_shards(engine: Engine, shards: Iterable[Shard]) -> Generator[tuple[Shard, int]]:
    """Fill shards, at most ``engine.slots`` at a time, and close the engine at the end or on any exception.

    Parameters
    ----------
    engine : Engine
    shards : iterable of Shard
        Taken only when there is a slot for the next.

    Yields
    ------
    Shard, int
        A finished shard and how many of its rows have a reason instead of features, in any order.

    Raises
    ------
    EngineError
        If the workers die and no structure is to blame.
    """
    source, again, in_flight = iter(shards), deque[Task](), 0
    bisector = _CrashBisector(engine.max_deaths, again)
    try:
        while True:
            while in_flight < engine.slots and (task := _next(again, source)) is not None:
                engine.submit(task)
                in_flight += 1
            if not in_flight:
                return
            task, n_failed = engine.wait()
            in_flight -= 1
            if n_failed is None:
                bisector.died(task)
            elif task.span is not None:
                bisector.passed(task)
            else:
                bisector.filled(task)
                yield task.shard, n_failed
    finally:
        engine.close()


def _next(again: deque[Task], source: Iterator[Shard]) -> Task | None:
    if again:
        return again.popleft()
    shard = next(source, None)
    return None if shard is None else Task(shard)


@dataclass
class _SuspectShard:
    """A shard over which workers died."""

    deaths: int = 0
    open_spans: int = 0
    crashing_rows: list[int] = field(default_factory=list)
    alone: Counter[int] = field(default_factory=Counter)


class _CrashBisector:
    """Try a shard again; then halve it until the records that kill stand alone; then fill it without these."""

    def __init__(self, max_deaths: int, again: deque[Task]) -> None:
        self._max_deaths, self._again = max_deaths, again
        self._suspects: dict[int, _SuspectShard] = {}

    def died(self, task: Task) -> None:
        suspect = self._suspects.setdefault(task.shard.index, _SuspectShard())
        if task.span is None:
            suspect.deaths += 1
            self._died_whole(task.shard, suspect)
            return
        first, end = task.span
        if end - first > 1:
            suspect.open_spans -= 1
            self._try(task.shard, suspect, (first, (first + end) // 2), ((first + end) // 2, end))
            return
        suspect.alone[first] += 1
        if suspect.alone[first] < self._max_deaths:
            self._again.append(task)
        else:
            suspect.crashing_rows.append(first)
            self.passed(task)

    def passed(self, task: Task) -> None:
        suspect = self._suspects[task.shard.index]
        suspect.open_spans -= 1
        if not suspect.open_spans:
            self._again.append(Task(replace(task.shard, crashing_rows=tuple(sorted(suspect.crashing_rows)))))

    def filled(self, task: Task) -> None:
        self._suspects.pop(task.shard.index, None)

    def _died_whole(self, shard: Shard, suspect: _SuspectShard) -> None:
        if suspect.deaths == self._max_deaths:
            n, middle = len(shard.records), len(shard.records) // 2
            self._try(shard, suspect, *([(0, middle), (middle, n)] if middle else [(0, n)]))
        elif suspect.deaths < 2 * self._max_deaths:
            self._again.append(Task(shard))
        else:
            raise EngineError(
                f"workers keep dying on {shard.path.name}, and on no structure of it alone, probably out of memory; "
                "use fewer workers, then run the same command again."
            )

    def _try(self, shard: Shard, suspect: _SuspectShard, *spans: tuple[int, int]) -> None:
        suspect.open_spans += len(spans)
        self._again.extend(Task(shard, span) for span in spans)


class InProcess:
    """Does each task when it is waited for, on one thread as the workers of other engines do.

    Sums over several threads are rounded differently; one thread makes the store the same for every engine.
    """

    slots, max_deaths = 1, 1

    def __init__(self, model: Backbone) -> None:
        self._model = model
        self._threads = ExitStack()
        self._threads.enter_context(one_thread())

    def submit(self, task: Task) -> None:
        """Keep the task."""
        self._task = task

    def wait(self) -> tuple[Task, int | None]:
        """Do the task."""
        return self._task, perform(self._task, self._model)

    def close(self) -> None:
        """Give this process its threads back."""
        self._threads.close()
