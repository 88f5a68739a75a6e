"""The engine of one worker: this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_bounds.features.engines.work import Task, perform

if TYPE_CHECKING:
    from mace_bounds.backbones import FeatureKind
    from mace_bounds.backbones.mace import FrozenModel


class InProcess:
    """Does each task when it is waited for, on one thread as the workers of other engines do.

    Sums over several threads are rounded differently; one thread makes the store the same for every engine.
    """

    slots, patience = 1, 1

    def __init__(self, model: FrozenModel, kind: FeatureKind) -> None:
        import torch

        self._model, self._kind = model, kind
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def submit(self, task: Task) -> None:
        """Keep the task."""
        self._task = task

    def wait(self) -> tuple[Task, int | None]:
        """Do the task."""
        return self._task, perform(self._task, self._model, self._kind)

    def close(self) -> None:
        """Give this process its threads back."""
        import torch

        torch.set_num_threads(self._threads)
