"""Where shards are computed: in this process, in processes on this machine, on the workers of a Dask scheduler.

Whatever the engine, a shard is computed by the same function on one thread from the same records, and written whole
by whoever computed it; so the store is the same to the byte.
"""

from __future__ import annotations

import os
from pathlib import Path

from mace_bounds.backbones import Backbone
from mace_bounds.errors import EngineError
from mace_bounds.features.engines.processes import Processes
from mace_bounds.features.engines.run import Engine, InProcess, run_shards
from mace_bounds.features.engines.work import Shard, pack_model

__all__ = ["Shard", "open_engine", "run_shards", "usable_cores"]


def open_engine(model: Backbone, *, workers: int | None = 1, scheduler: str | None = None) -> Engine:
    """Choose the engine.

    Parameters
    ----------
    model : Backbone
    workers : int, optional
        Processes on this machine; None for one on each usable core. With 1, and on CUDA, the work is done in this
        process.
    scheduler : str, optional
        Address of a Dask scheduler, to be used instead.

    Raises
    ------
    EngineError
        If Dask is missing, or its scheduler does not answer.
    """
    if scheduler is not None:
        try:
            from mace_bounds.features.engines.dask import Dask
        except ImportError as error:
            raise EngineError(
                "a scheduler needs Dask, which is not installed here; "
                'install it with pip install "mace-bounds[dask]".'
            ) from error
        return Dask(pack_model(model), scheduler)
    workers = workers or usable_cores()
    if workers == 1 or model.device == "cuda":
        return InProcess(model)
    return Processes(pack_model(model), workers, getattr(model, "worker_imports", ()))


def usable_cores() -> int:
    """Cores that this process may use: its affinity (SLURM sets it) and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
