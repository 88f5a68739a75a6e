"""The engine of one worker: this process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from mace_bounds.features.engines.work import Task, perform
from mace_bounds.threads import one_thread

if TYPE_CHECKING:
    from mace_bounds.backbones import Backbone


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
