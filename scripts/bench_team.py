"""The processes behind one row of the benchmark: start them, give them crystals, time them, watch their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mace_bounds.structures import Crystal

WORKER = str(Path(__file__).resolve().with_name("bench_peers.py"))
BEST_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_MAX_": "0"}


class FailedError(Exception):
    """A process that could not do its work, with the reason."""


@dataclass(frozen=True)
class Contestant:
    """A row of the table: what runs (a name in ``bench_peers.CONTESTANTS``) and in which precision."""

    letter: str
    label: str
    worker: str
    dtype: str

    @property
    def loops(self) -> bool:
        return self.worker == "calculator"

    @property
    def ours(self) -> bool:
        return self.worker == "ours"


@dataclass(frozen=True)
class Sample:
    """The crystals of a run, their sizes (atoms, edges), and the file that workers read them from."""

    crystals: list[Crystal]
    n_atoms: np.ndarray
    n_edges: np.ndarray
    file: Path


@dataclass(frozen=True)
class Turn:
    """What one contestant did with some crystals."""

    indices: list[int]
    energies_ev: list[float]
    seconds: float
    core_seconds: float
    stages: dict[str, float]


class Team:
    """The processes of one contestant; each gets its part of the crystals."""

    def __init__(
        self, who: Contestant, processes: int, threads: int, checkpoint: Path, sample: Sample
    ) -> None:
        self.sample, self.processes, self.threads = sample, processes, threads
        self.peak_mb = 0.0
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        words = ["work", who.worker, who.dtype, str(checkpoint), str(sample.file), str(threads)]
        self.workers = [
            subprocess.Popen(
                [sys.executable, WORKER, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                env=environment(threads, best_allocator=not who.ours),
                text=True,
            )
            for _ in range(processes)
        ]

    def run(self, indices: Sequence[int], batch_atoms: int, split: bool = False, repeat: int = 1) -> Turn:
        """One turn, the mean of several: all processes start at once, the last one to finish decides."""
        parts = deal(indices, self.sample.n_edges, self.processes)
        start = time.perf_counter()
        for worker, part in zip(self.workers, parts, strict=True):
            command = {"indices": part, "batch_atoms": batch_atoms, "split": split, "repeat": repeat}
            try:
                print(json.dumps(command), file=worker.stdin, flush=True)
            except BrokenPipeError as error:
                raise self.failure() from error
        answers = [self.answer(worker) for worker in self.workers]
        seconds = time.perf_counter() - start
        self.peak_mb = sum(a["peak_mb"] for a in answers)
        return Turn(
            indices=[i for part in parts for i in part],
            energies_ev=[e for a in answers for e in a["energies_ev"]],
            seconds=seconds / repeat,
            core_seconds=sum(a["core_seconds"] for a in answers) / repeat,
            stages={s: sum(a["stages"].get(s, 0.0) for a in answers) for s in answers[0]["stages"]},
        )

    def warm_up(self, indices: Sequence[int], batch_atoms: int) -> None:
        """Run a batch of each process's largest crystals: caches and heap are then as in the middle of a run."""
        chosen: list[int] = []
        for part in deal(indices, self.sample.n_edges, self.processes):
            largest = sorted(part, key=lambda i: -self.sample.n_edges[i])
            room = np.cumsum(self.sample.n_atoms[largest]) <= batch_atoms
            chosen += largest[: max(1, int(room.sum()))]
        self.run(chosen, batch_atoms)

    def answer(self, worker: subprocess.Popen[str]) -> dict[str, Any]:
        line = worker.stdout.readline() if worker.stdout else ""
        if not line:
            raise self.failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def failure(self) -> FailedError:
        """Say why a process ended; the others end with it."""
        self.close()
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["no message"])[-1]
        killed = any(worker.returncode == -9 for worker in self.workers)
        return FailedError("killed, most likely for its memory" if killed else last[:160])

    def close(self) -> None:
        for worker in self.workers:
            if worker.stdin and not worker.stdin.closed:
                worker.stdin.close()
        for worker in self.workers:
            worker.wait()


def environment(threads: int, best_allocator: bool = False) -> dict[str, str]:
    """The environment of a worker: its threads, and glibc's allocator as it comes or keeping its memory."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    plain |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return plain | (BEST_ALLOCATOR if best_allocator else {})


def deal(indices: Sequence[int], size: np.ndarray, n_parts: int) -> list[list[int]]:
    """Parts of like total size: the largest first, each to the part that has least."""
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    totals = [0.0] * n_parts
    for i in sorted(indices, key=lambda i: -size[i]):
        least = totals.index(min(totals))
        parts[least].append(i)
        totals[least] += float(size[i])
    return [sorted(part) for part in parts]


def run_json(script: str, *words: str, threads: int = 1, copies: int = 1) -> list[Any]:
    """Run a script in this folder, so many at once, and read the JSON object that each prints.

    Raises
    ------
    FailedError
        If it ends with an error.
    """
    call = [sys.executable, str(Path(WORKER).with_name(script)), *words]
    running = [
        subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(threads), text=True
        )
        for _ in range(copies)
    ]
    answers = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode:
            raise FailedError(
                f"{script} {' '.join(words)}: {(errors.strip().splitlines() or ['failed'])[-1][:160]}"
            )
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


def watch_memory(process: subprocess.Popen[Any], every_s: float = 0.05) -> float | None:
    """Wait for a process; the largest sum of resident memory over it and its descendants, MB (Linux only).

    A page that several processes share (the code of torch) is counted once, divided among them.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        process.wait()
        return None
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(resident_mb(pid) for pid in family(process.pid)))
        time.sleep(every_s)
    return peak


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    members = [pid]
    for member in members:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += map(int, children.read_text().split())
            except OSError:
                continue
    return members


def resident_mb(pid: int) -> float:
    """A process's proportional share of resident memory, MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
