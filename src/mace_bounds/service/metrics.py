"""What a service counts, for Prometheus: no names, no structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mace_bounds.bounds import BoundsPredictor

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
        self._batches = Histogram(
            f"{name}batch_structures",
            "Structures that went through the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=to,
        )
        self._model_seconds = Counter(f"{name}model_seconds", "Time in the model and heads.", registry=to)
        self.waiting = Gauge(f"{name}waiting", "Requests that wait for the model.", registry=to)
        self.under_way = Gauge(f"{name}under_way", "Requests that have been let in.", registry=to)
        self._hits = Gauge(
            f"{name}cached_structures", "Structures whose features were remembered.", registry=to
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def structures(self, scored: int, failed: int) -> None:
        """Count structures."""
        self._structures.labels("scored").inc(scored)
        self._structures.labels("failed").inc(failed)

    def batch(self, structures: int, seconds: float) -> None:
        """Count what went through the model together."""
        self._batches.observe(structures)
        self._model_seconds.inc(seconds)

    def watch(self, predictors: Callable[[], Mapping[str, BoundsPredictor]]) -> None:
        """Read the memories of the models whenever metrics are read."""

        def hits() -> float:
            models = {id(p.model): p.model for p in predictors().values()}
            return float(sum(getattr(model, "hits", 0) for model in models.values()))

        self._hits.set_function(hits)

    def text(self) -> bytes:
        """All of them, in the format of Prometheus."""
        return generate_latest(self.registry)
