"""The engine's seam, and what every engine shares: a bounded window of shards, and care for workers that die."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from mace_bounds.errors import EngineError
from mace_bounds.features.engines.work import Shard, Task

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator


class Engine(Protocol):
    """Where tasks are done."""

    @property
    def slots(self) -> int:
        """How many tasks may be submitted and not yet done."""

    @property
    def patience(self) -> int:
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
    care = _Care(engine.patience, again)
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
                care.died(task)
            elif task.span is not None:
                care.passed(task)
            else:
                care.filled(task)
                yield task.shard, n_failed
    finally:
        engine.close()


def _next(again: deque[Task], source: Iterator[Shard]) -> Task | None:
    if again:
        return again.popleft()
    shard = next(source, None)
    return None if shard is None else Task(shard)


@dataclass
class _Suspect:
    """A shard over which workers died."""

    deaths: int = 0
    open_spans: int = 0
    killers: list[int] = field(default_factory=list)
    alone: Counter[int] = field(default_factory=Counter)


class _Care:
    """Try a shard again; then halve it until the records that kill stand alone; then fill it without these."""

    def __init__(self, patience: int, again: deque[Task]) -> None:
        self._patience, self._again = patience, again
        self._suspects: dict[int, _Suspect] = {}

    def died(self, task: Task) -> None:
        suspect = self._suspects.setdefault(task.shard.index, _Suspect())
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
        if suspect.alone[first] < self._patience:
            self._again.append(task)
        else:
            suspect.killers.append(first)
            self.passed(task)

    def passed(self, task: Task) -> None:
        suspect = self._suspects[task.shard.index]
        suspect.open_spans -= 1
        if not suspect.open_spans:
            self._again.append(Task(replace(task.shard, killers=tuple(sorted(suspect.killers)))))

    def filled(self, task: Task) -> None:
        self._suspects.pop(task.shard.index, None)

    def _died_whole(self, shard: Shard, suspect: _Suspect) -> None:
        if suspect.deaths == self._patience:
            n, middle = len(shard.records), len(shard.records) // 2
            self._try(shard, suspect, *([(0, middle), (middle, n)] if middle else [(0, n)]))
        elif suspect.deaths < 2 * self._patience:
            self._again.append(Task(shard))
        else:
            raise EngineError(
                f"expected to blame single structures, but workers die over {shard.path.name} as a whole, "
                "probably for want of memory; use fewer workers, then run the same command again."
            )

    def _try(self, shard: Shard, suspect: _Suspect, *spans: tuple[int, int]) -> None:
        suspect.open_spans += len(spans)
        self._again.extend(Task(shard, span) for span in spans)
