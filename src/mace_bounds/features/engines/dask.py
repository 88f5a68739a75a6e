"""The engine of a cluster: a Dask scheduler, whose workers see the same folder.

On a cluster with SLURM, `dask-jobqueue <https://jobqueue.dask.org>`_ submits the workers as jobs; here eight jobs
of sixteen single-threaded workers. Run on a login node or in a small job, in a folder that all nodes see::

    from dask_jobqueue import SLURMCluster
    from mace_bounds import extract, load_model, read
    from mace_bounds.features import ExtractSettings

    if __name__ == "__main__":
        cluster = SLURMCluster(
            cores=16,
            processes=16,
            memory="64GB",
            walltime="04:00:00",
            queue="compute",
            job_script_prologue=["source .venv/bin/activate", "export OMP_NUM_THREADS=1"],
        )
        cluster.scale(jobs=8)
        model = load_model("medium-mpa-0", device="cpu")
        settings = ExtractSettings(scheduler=cluster.scheduler_address)
        extract(read("entries.json.gz"), "store", model, settings)

Any other scheduler serves as well (``mace-bounds features SOURCE OUT --scheduler tcp://HOST:8786``). Give workers one
thread each: a worker holds one model and does one shard at a time.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from distributed import Client, Future, KilledWorker, WorkerPlugin, as_completed, get_worker

from mace_bounds.backbones import Backbone
from mace_bounds.errors import EngineError
from mace_bounds.features.engines.work import Task, one_line, perform, unpack_model
from mace_bounds.features.manifest import is_store
from mace_bounds.threads import one_thread

SECONDS_TO_CONNECT = 30
PACKAGES = ("mace-bounds", "mace-torch", "torch", "numpy", "numba")  # with others the last bits may differ
_one_at_a_time = threading.Lock()  # a forward may set things of the whole process, as torch's default dtype


class Dask:
    """Tasks on the workers of a Dask scheduler.

    ``model``: from :func:`pack_model`; ``address``: of the scheduler: ``"tcp://HOST:8786"``.
    """

    max_deaths = 1  # the scheduler itself tries a task on several workers before it gives up

    def __init__(self, model: bytes, address: str) -> None:
        try:
            self._client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"no Dask scheduler answers at {address} ({type(error).__name__}); "
                "start one, or check the address."
            ) from error
        self._name = f"mace-bounds-{uuid4().hex}"
        try:
            self._client.register_plugin(_Kept(model), name=self._name)
        except Exception as error:  # distributed wraps what a worker raised
            self._client.close()
            raise EngineError(
                f"a Dask worker cannot take the model ({one_line(error)}); install the same version there."
            ) from error
        self._finished = as_completed(loop=self._client.loop)
        self._tasks: dict[Future, Task] = {}

    @property
    def slots(self) -> int:
        """Two tasks for each thread of the workers that are there now, so that none waits for the next."""
        try:
            threads: dict[str, int] = self._client.nthreads()
        except OSError as error:
            raise _lost() from error
        return max(2, 2 * sum(threads.values()))

    def submit(self, task: Task) -> None:
        """Send the task to the scheduler."""
        future = self._client.submit(
            _perform, task, self._name, pure=False, key=f"{self._name}-{uuid4().hex}"
        )
        self._tasks[future] = task
        self._finished.add(future)

    def wait(self) -> tuple[Task, int | None]:
        """Wait until a task is done or given up."""
        future = next(self._finished)
        task = self._tasks.pop(future)
        if future.status == "cancelled":
            raise _lost()
        try:
            return task, int(future.result())
        except KilledWorker:
            return task, None

    def close(self) -> None:
        """Cancel what is in flight and leave the scheduler, if it is still there."""
        with suppress(OSError):
            self._client.cancel(list(self._tasks))
            self._client.unregister_worker_plugin(self._name)
        self._client.close()


def _lost() -> EngineError:
    return EngineError(
        "the Dask scheduler is gone, or has cancelled its tasks; run the same command again when it is back."
    )


class _Kept(WorkerPlugin):  # type: ignore[misc]
    """What every worker keeps for a run, also one that comes later: the model, unpacked by its first task."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.versions = {name: _version(name) for name in PACKAGES}
        self.model: Backbone | None = None

    def open(self) -> Backbone:
        """Load the model once; EngineError if this worker's packages are others, whose numbers might differ."""
        if self.model is None:
            for name, wanted in self.versions.items():
                if _version(name) != wanted:
                    raise EngineError(
                        f"a Dask worker has {name} {_version(name)} and this process {wanted}; install the same there."
                    )
            self.model = unpack_model(self.data)
        return self.model


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _perform(task: Task, name: str) -> int:
    """Do a task on a worker."""
    if not is_store(task.shard.path.parent):
        raise EngineError(
            f"a Dask worker finds no store in {task.shard.path.parent}; "
            "choose a folder on a shared file system."
        )
    kept = get_worker().plugins[name]
    with _one_at_a_time:
        model = kept.open()
        with one_thread():
            return perform(task, model)
