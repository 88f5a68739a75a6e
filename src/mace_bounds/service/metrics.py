"""What a service counts, for Prometheus: no names, no structures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # read by the client when it is imported
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name, to = "mace_bounds_", self.registry
        self._requests = Counter(
            f"{name}requests", "Requests by route and status.", ["route", "status"], registry=to
        )
        self._seconds = Histogram(
            f"{name}request_seconds", "Time of requests.", ["route"], buckets=_SECONDS, registry=to
        )
        self._structures = Counter(f"{name}structures", "Structures by outcome.", ["outcome"], registry=to)
        self._jobs = Counter(
            f"{name}jobs", "Jobs that this service has run, by outcome.", ["outcome"], registry=to
        )
        self._batches = Histogram(
            f"{name}batch_structures",
            "Structures that went through the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=to,
        )
        self._model_seconds = Counter(f"{name}model_seconds", "Time in the model and heads.", registry=to)
        of_all: Any = {"registry": to, "multiprocess_mode": "livesum"}
        self.ready = Gauge(f"{name}ready", "Processes that score.", **of_all)
        self.waiting = Gauge(f"{name}waiting", "Requests that wait for the model.", **of_all)
        self.under_way = Gauge(f"{name}under_way", "Requests that have been let in.", **of_all)
        self._hits = Gauge(f"{name}cached_structures", "Structures whose features were remembered.", **of_all)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def structures(self, scored: int, failed: int) -> None:
        """Count structures."""
        self._structures.labels("scored").inc(scored)
        self._structures.labels("failed").inc(failed)

    def job(self, outcome: str) -> None:
        """Count a job that has ended."""
        self._jobs.labels(outcome).inc()

    def batch(self, structures: int, seconds: float) -> None:
        """Count what went through the model together."""
        self._batches.observe(structures)
        self._model_seconds.inc(seconds)

    def remembered(self, hits: int) -> None:
        """Say how many structures of this process had features that were remembered."""
        self._hits.set(hits)

    def text(self) -> bytes:
        """All of them, in the format of Prometheus; those of all processes of a service together."""
        if _FOLDER not in os.environ:
            return generate_latest(self.registry)
        for pid in {
            path.stem.rpartition("_")[2] for path in Path(os.environ[_FOLDER]).glob("gauge_live*.db")
        }:
            if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
                mark_process_dead(pid)  # type: ignore[no-untyped-call]  # its gauges count no more
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def share_counts(scratch: Path | None) -> None:
    """Have the processes that are started from now on count together, in files of a folder."""
    folder = Path(scratch or ".") / "metrics"
    folder.mkdir()
    os.environ[_FOLDER] = str(folder)
