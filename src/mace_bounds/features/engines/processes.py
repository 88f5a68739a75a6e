"""The engine of this machine: worker processes of one thread, each with the model, each with one shard in hand."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import Backbone
from mace_bounds.errors import EngineError
from mace_bounds.features.engines.work import Task, perform, unpack_model
from mace_bounds.threads import one_thread

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

# Where fork is safe, workers come from a server that has imported much already: one that dies is replaced at once.
START = "forkserver" if sys.platform == "linux" else "spawn"
FALSE_STARTS = 3  # workers that die one after the other before they are ready
READY = "ready"


class _Worker:
    """A process, the pipe to it, and the task in its hand."""

    def __init__(self, model: bytes, imports: Sequence[str]) -> None:
        context = get_context(START)
        context.set_forkserver_preload([__name__, *imports])
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, model), daemon=True)  # type: ignore[attr-defined]
        try:
            with _hold_interrupts():
                self.process.start()
        except OSError as error:
            raise _no_start(f"{type(error).__name__}: {error}") from error
        theirs.close()  # else the end of the process would not close the pipe
        self.ready = False
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        """Hand a task over; a process that is dead already is found out by whoever waits for it."""
        self.task = task
        with suppress(OSError):
            self.pipe.send(task)

    def kill(self) -> int | None:
        """End the process; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


class Processes:
    """Worker processes, started as tasks come and replaced when they die.

    ``model``: from :func:`pack_model`; ``workers``: how many processes at most; ``imports``: modules that
    they all import: done once, where they are forked.
    """

    max_deaths = 2

    def __init__(self, model: bytes, workers: int, imports: Sequence[str] = ()) -> None:
        self._model, self._limit, self._imports = model, workers, imports
        self.slots = workers + 1  # one waits ready for whoever is first done
        self._waiting: deque[Task] = deque()
        self._workers: list[_Worker] = []
        self._false_starts = 0

    def submit(self, task: Task) -> None:
        """Hand the task to a worker, or queue it and start another."""
        self._waiting.append(task)
        self._assign()

    def wait(self) -> tuple[Task, int | None]:
        """Wait until a worker has done its task or died over it."""
        while True:
            by_pipe = {worker.pipe: worker for worker in self._workers}
            for pipe in connection.wait(list(by_pipe)):
                worker = by_pipe[pipe]  # type: ignore[index]
                task, told = worker.task, self._receive(worker)
                self._assign()
                if isinstance(told, BaseException):
                    raise told
                if task is not None:
                    return task, told

    def close(self) -> None:
        """Kill the workers: a shard is there whole or not at all."""
        while self._workers:
            self._workers.pop().kill()

    def _assign(self) -> None:
        """Fill empty hands, then start workers while there are more tasks than hands."""
        for worker in self._workers:
            if self._waiting and worker.ready and worker.task is None:
                worker.give(self._waiting.popleft())
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._limit, busy + len(self._waiting)):
            self._workers.append(_Worker(self._model, self._imports))

    def _receive(self, worker: _Worker) -> Any:
        """What a worker says: rows that failed or an exception; None if it died or has just begun."""
        try:
            told = worker.pipe.recv()
        except (EOFError, OSError):
            self._remove(worker)
            return None
        if told == READY:
            worker.ready, self._false_starts = True, 0
            return None
        worker.task = None
        return told

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        code = worker.kill()
        if worker.ready:
            return
        self._false_starts += 1
        if self._false_starts == FALSE_STARTS:
            raise _no_start(f"{FALSE_STARTS} died before they had loaded the model, exit code {code}")


def _no_start(why: str) -> EngineError:
    return EngineError(
        f"worker processes do not start ({why}); use fewer workers, and in a script call this under "
        "if __name__ == '__main__'."
    )


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Keep Ctrl-C for later while a process is started, which inherits that it hears none: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its own start would end the keeping
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection, model: bytes) -> None:
    """Do tasks that come through the pipe until it is closed; this is what a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        backbone = unpack_model(model)
    except Exception as error:
        pipe.send(_portable(error))
        return
    pipe.send(READY)
    with one_thread(), suppress(EOFError, ConnectionError):  # the other end is gone
        while True:
            pipe.send(_outcome(pipe.recv(), backbone))


def _outcome(task: Task, model: Backbone) -> int | Exception:
    try:
        return perform(task, model)
    except Exception as error:
        return _portable(error)


def _die_with_parent() -> None:
    """End this process when its parent is gone, however that ended, even amid a shard."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The exception with its traceback as a note, or one that can be sent in its place."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
