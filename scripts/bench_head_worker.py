"""One measurement of the head's benchmark, in a process of its own; prints one JSON object.

    python scripts/bench_head_worker.py WHO FOLDER DTYPE N P [TEST_FOLDER M REFERENCE_MB]

WHO: ``reference`` (popsregression, rows in memory), ``ours`` (rows in memory) or ``ours-disk`` (rows read at each pass).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench_head_data import RowFile

Array = NDArray[np.float64]


class Method(Protocol):
    """What is measured: taking hold of the rows, the fit, and prediction with bounds."""

    def load(self, rows: RowFile, n: int) -> None: ...

    def fit(self) -> None: ...

    def batch_rows(self, n_rows: int) -> int: ...

    def predict(self, x: Array) -> Any: ...


class Ours:
    """mace-bounds with its defaults."""

    def __init__(self, on_disk: bool) -> None:
        from mace_bounds import head

        self.head, self.on_disk = head, on_disk

    def load(self, rows: RowFile, n: int) -> None:
        self.chunks: Callable[[], Any]
        self.chunks = (lambda: rows.chunks(n)) if self.on_disk else self.head.array_chunks(*rows.read(n))

    def fit(self) -> None:
        self.fitted = self.head.fit_pops(self.chunks)

    def batch_rows(self, n_rows: int) -> int:
        return n_rows

    def predict(self, x: Array) -> Any:
        return self.head.predict(self.fitted.head, x)


class Reference:
    """popsregression with its defaults, but for the clipping of the box, which is ours."""

    def __init__(self, limit_mb: float) -> None:
        from popsregression import POPSRegression

        self.model, self.limit_mb = POPSRegression(percentile_clipping=0.5), limit_mb

    def load(self, rows: RowFile, n: int) -> None:
        self.x, self.y = rows.read(n)

    def fit(self) -> None:
        self.model.fit(self.x, self.y)

    def batch_rows(self, n_rows: int) -> int:
        """Rows per call: it holds one float64 for every row and every draw, of which there are as many as training rows."""
        return max(1, min(n_rows, int(self.limit_mb * 1e6 / (8 * self.model.posterior_samples_.shape[1]))))

    def predict(self, x: Array) -> Any:
        size = self.batch_rows(len(x))
        parts = [x[start : start + size] for start in range(0, len(x), size)]
        return [self.model.predict(part, return_std=True, return_bounds=True) for part in parts]


def resident_mb(name: str) -> float:
    """``VmRSS``: resident memory of this process now, MB; ``VmHWM``: its largest so far.

    ``ru_maxrss``, which stands in for both where /proc is missing, can start from that of the process that started this one.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1.024e-3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1e-6 if sys.platform == "darwin" else 1.024e-3
    )


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(method: Method, rows: RowFile, n: int, test: Array | None) -> dict[str, Any]:
    """Fit, then predict; memory is counted from here on, over what imports (and the test rows) took."""
    out: dict[str, Any] = {"start_mb": resident_mb("VmRSS")}
    method.load(rows, n)
    out["data_mb"] = resident_mb("VmRSS") - out["start_mb"]
    out["fit_s"], out["fit_cpu_s"] = timed(method.fit)
    out["process_mb"] = resident_mb("VmHWM")
    out["fit_mb"] = out["process_mb"] - out["start_mb"]
    if test is not None:
        method.predict(test[:8])
        out["predict_s"], out["predict_cpu_s"] = timed(lambda: method.predict(test))
        out["batch_rows"] = method.batch_rows(len(test))
    return out


def main(who: str, folder: str, dtype: str, n: str, p: str, *test: str) -> None:
    """Read the command line and print the measurement."""
    rows, limit_mb, x = RowFile(Path(folder), int(p), dtype), 0.0, None
    if test:
        x, _ = RowFile(Path(test[0]), int(p)).read(int(test[1]))
        limit_mb = float(test[2])
    method: Method = Reference(limit_mb) if who == "reference" else Ours(who == "ours-disk")
    with threadpool_limits(1):
        print(json.dumps(measure(method, rows, int(n), x)))


if __name__ == "__main__":
    main(*sys.argv[1:])
