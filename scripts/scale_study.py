"""Many structures into one store, interrupted on the way: throughput, memory, completeness.

    python scripts/scale_study.py [--n 100000] [--few 5000] [--kills 5] [--workers 2] [--folder FOLDER]

Writes perturbed crystals (the package's textbook crystals and ase's elemental ones) to an extxyz file, extracts the
first ``few`` of them undisturbed (twice before, once after), and all of them with SIGKILL to the whole process group at
random moments and a new start each time. Needs psutil (it comes with the extra ``dask``). Prints one JSON object; exits with 1 if a
structure is missing or there twice, the shards that both stores share differ, memory grows by more than a tenth from the
first fifth of the run to the last, or the long run's throughput is below 95 % of the short one's.

Throughput is structures per second between shards that one process wrote, without its first six: those were read
while the workers started, and fly by. The short runs' median is compared with the whole long run; the long run's rate in
each fifth of the store shows whether it slows down. By the clock from command to end, start and re-reading included, the
runs are told apart as ``seconds`` and ``seconds_to_first_shard``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

SHARD_ROWS = 256
READ_AHEAD = 6  # shards in flight and waiting when the workers are ready
TOLERATED_GROWTH, WANTED_THROUGHPUT = 1.10, 0.95


def crystals(n: int, seed: int) -> Iterator:
    """``n`` crystals, each strained by up to 4 % and rattled by 0.03 Å; the k-th depends on ``seed`` and k alone."""
    from ase.collections import dcdft

    from mace_bounds.examples import example_files
    from mace_bounds.structures import read

    known = [record.crystal.to_atoms() for record in read(example_files())]
    known += [atoms for atoms in (dcdft[name] for name in dcdft.names) if len(atoms) <= 4]
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        atoms = known[rng.integers(len(known))].copy()
        atoms.set_cell(atoms.cell * rng.uniform(0.96, 1.04), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        atoms.info = {"id": f"s{k:07d}"}
        yield atoms


def write_source(path: Path, n: int, seed: int) -> None:
    from ase.io.extxyz import write_xyz

    with path.open("w") as handle:
        for atoms in crystals(n, seed):
            write_xyz(handle, [atoms])


def shards(store: Path) -> list[Path]:
    return sorted(store.glob("shard-*.parquet"))


@dataclass
class Session:
    """One process from start to end or kill: what it wrote and what it took."""

    seconds: float = 0.0
    seconds_to_first_shard: float = 0.0
    shards_before: int = 0
    shards_after: int = 0
    steps: list[tuple[int, float]] = field(
        default_factory=list
    )  # (shards that are there, seconds for the last)
    memory: list[tuple[int, int]] = field(default_factory=list)  # (shards that are there, bytes)

    def told(self) -> dict[str, float]:
        plain = {key: round(value, 2) for key, value in vars(self).items() if not isinstance(value, list)}
        return plain | {"structures_per_second": round(rate(self.steps), 1)}


def run(source: Path, store: Path, workers: int, kill_at: int | None, rng: random.Random) -> Session:
    """Start the command; kill its group soon after there are ``kill_at`` shards."""
    session = Session(shards_before=len(shards(store)))
    before = set(shards(store))
    command = ["mace-bounds", "features", str(source), str(store), "--model", "mini", "--device", "cpu"]
    command += ["--workers", str(workers), "--shard-rows", str(SHARD_ROWS)]
    started, wall = time.monotonic(), time.time()
    for pid, there in watched(command, store, kill_at, rng, 0.5):
        session.memory.append((there, memory(pid)))
    session.seconds = time.monotonic() - started
    new = sorted(path.stat().st_mtime for path in shards(store) if path not in before)
    session.shards_after = len(shards(store))
    if new:
        session.seconds_to_first_shard = new[0] - wall
    there = session.shards_before + READ_AHEAD
    session.steps = [(there + k, b - a) for k, (a, b) in enumerate(pairwise(new[READ_AHEAD:]), 2)]
    return session


def watched(
    command: list[str], store: Path, kill_at: int | None, rng: random.Random, pause_s: float
) -> Iterator[tuple[int, int]]:
    """Start a command; yield its process id and how many shards there are, until it ends.

    With ``kill_at``, SIGKILL to its group up to two seconds after there are so many; else it has to end well.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    while process.poll() is None:
        there = len(shards(store))
        yield process.pid, there
        if kill_at is not None and there >= kill_at:
            time.sleep(rng.uniform(0, 2))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            break
        time.sleep(pause_s)
    reader.join()
    if kill_at is None and process.returncode != 0:
        raise SystemExit(f"expected the run to end well, but it said: {errors[0].decode()}")


def rate(steps: list[tuple[int, float]]) -> float:
    """Structures per second over these shards."""
    return SHARD_ROWS * len(steps) / max(sum(seconds for _, seconds in steps), 1e-9)


def memory(pid: int) -> int:
    """Bytes of a process and all it started; pages that they share are counted once (proportionally)."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total


def peaks(sessions: list[Session], n_shards: int, bins: int = 5) -> list[float]:
    """Largest memory in MiB while the store had each fifth of its shards."""
    found = [0] * bins
    for session in sessions:
        for there, size in session.memory:
            place = min(bins * there // n_shards, bins - 1)
            found[place] = max(found[place], size)
    return [round(value / 2**20, 1) for value in found]


def ids(store: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [name for path in shards(store) for name in pq.read_table(path, columns=["id"])["id"].to_pylist()]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def study(args: argparse.Namespace, folder: Path) -> dict:
    rng = random.Random(args.seed)
    many, few = folder / "long" / "crystals.extxyz", folder / "short" / "crystals.extxyz"
    for path, n in ((many, args.n), (few, args.few)):  # of the same name, which is in the rows
        path.parent.mkdir()
        write_source(path, n, args.seed)
    short = [run(few, folder / f"few-{k}", args.workers, None, rng) for k in range(2)]
    n_shards = -(-args.n // SHARD_ROWS)
    kills = sorted(rng.sample(range(1, n_shards), args.kills))
    long = [run(many, folder / "many", args.workers, kill_at, rng) for kill_at in [*kills, None]]
    short.append(run(few, folder / "few-2", args.workers, None, rng))
    found, wanted = ids(folder / "many"), [f"s{k:07d}" for k in range(args.n)]
    shared = [p.name for p in shards(folder / "few-0")[: args.few // SHARD_ROWS]]
    same = all(digest(folder / "few-0" / name) == digest(folder / "many" / name) for name in shared)
    manifest = json.loads((folder / "many" / "manifest.json").read_text())
    fast = statistics.median(rate(session.steps) for session in short)
    steps = [step for session in long for step in session.steps]
    fifths = [[s for s in steps if min(5 * s[0] // n_shards, 4) == k] for k in range(5)]
    memory_mib = peaks(long, n_shards)
    return {
        "n": args.n,
        "workers": args.workers,
        "complete": bool(manifest["complete"]) and sorted(found) == wanted,
        "in_order": found == wanted,
        "twice": len(found) - len(set(found)),
        "missing": len(set(wanted) - set(found)),
        "failed": manifest["n_failed"],
        "left_over_files": sorted(p.name for p in (folder / "many").iterdir() if p.name.startswith(".")),
        "shards_shared_with_short_run_identical": same,
        "short_structures_per_second": round(fast, 1),
        "long_structures_per_second": round(rate(steps), 1),
        "throughput_ratio": round(rate(steps) / fast, 3),
        "structures_per_second_by_fifth": [round(rate(fifth), 1) for fifth in fifths],
        "peak_memory_mib_by_fifth": memory_mib,
        "memory_growth": round(memory_mib[-1] / max(memory_mib[0], 1e-9), 3),
        "short": [session.told() for session in short],
        "long": [session.told() for session in long],
    }


def told_by(
    study: Callable[[argparse.Namespace, Path], dict], description: str, *, n: int, kills: int
) -> dict:
    """Run a study as the command line asks; print what it tells."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="an empty folder to work in and to keep; a temporary one by default"
    )
    args = parser.parse_args()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            result = study(args, Path(folder))
    else:
        args.folder.mkdir(parents=True, exist_ok=True)
        result = study(args, args.folder)
    print(json.dumps(result, indent=1))
    return result


def main() -> int:
    result = told_by(study, __doc__.splitlines()[0], n=100_000, kills=5)
    good = result["complete"] and result["in_order"] and not result["twice"] and not result["left_over_files"]
    good = good and result["shards_shared_with_short_run_identical"]
    good = (
        good
        and result["memory_growth"] <= TOLERATED_GROWTH
        and result["throughput_ratio"] >= WANTED_THROUGHPUT
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
