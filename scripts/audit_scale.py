"""Many labelled structures audited in one run, killed on the way: memory against a short run, seconds of each stage.

    python scripts/audit_scale.py [--n 50000] [--few 5000] [--kills 2] [--workers 2] [--folder FOLDER]

Makes crystals of thousands of chemical systems (textbook prototypes with other elements, strained, three in four rattled),
takes the embedded model's energies with heavy-tailed noise as labels, half of the hull distances as zero, and audits the
first ``few`` of them, all of them, and all of them again with SIGKILL to the whole process group at random moments (the last
after the features are there) and a new start each time. The files of the last two, but for times in ``summary.json``, are compared. Needs
psutil (it comes with the extra ``dask``). Tells on stderr what each run took and prints one JSON object; exits with 1 if a
structure is missing, a file differs, or the peak of memory is above 1.1 times that of the short run.

Memory is the largest sum over all processes of the run seen every tenth of a second: their own pages (those that they share
counted once) and the pages of files, libraries above all, of the process that has most of these. That is not the sum of
proportional shares (PSS), which grows when strangers who use the same libraries end.
``parent_mib`` is the largest resident memory of the command's own process, as the kernel has noted it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import psutil

from scale_study import SHARD_ROWS, shards, told_by, watched

TOLERATED = 1.10
MIB = 2**20
ELEMENTS = (
    *range(3, 10),
    *range(11, 18),
    *range(19, 36),
    *range(37, 43),
    *range(44, 54),
    *range(55, 58),
    *range(72, 76),
    77,
    78,
    79,
    81,
    82,
)


TIMES = ("started", "finished", "seconds")


def crystals(n: int, seed: int) -> Iterator:
    """``n`` crystals; the k-th depends on ``seed`` and k alone."""
    from ase.data import covalent_radii

    from mace_bounds.examples import example_files
    from mace_bounds.structures import read

    prototypes = [record.crystal.to_atoms() for record in read(example_files())]
    apart = [nearest(atoms) for atoms in prototypes]
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        which = rng.integers(len(prototypes))
        atoms = prototypes[which].copy()
        kinds = np.unique(atoms.numbers)
        chosen = rng.choice(ELEMENTS, len(kinds), replace=False)
        atoms.numbers = chosen[np.searchsorted(kinds, atoms.numbers)]
        wanted = 1.15 * max(
            covalent_radii[a] + covalent_radii[b] for a, b in combinations([*chosen, *chosen], 2)
        )
        atoms.set_cell(atoms.cell * (wanted / apart[which] * rng.uniform(0.95, 1.1)), scale_atoms=True)
        if k % 4:
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        hull = 0.0 if rng.random() < 0.5 else float(rng.exponential(0.1))
        atoms.info = {
            "id": f"s{k:07d}",
            "run_type": ("GGA", "GGA+U")[k % 5 == 0],
            "e_above_hull": round(hull, 4),
        }
        yield atoms


def nearest(atoms) -> float:
    """Shortest distance between atoms, periodic images included."""
    from ase.neighborlist import neighbor_list

    return float(neighbor_list("d", atoms, 6.0).min())


def write_sources(folder: Path, sizes: list[int], seed: int, workers: int) -> list[Path]:
    """Labelled files of the first ``sizes`` crystals, of the same name, which is in the rows."""
    from ase.io.extxyz import write_xyz

    from mace_bounds import extract, load_model, read
    from mace_bounds.features import ExtractSettings

    paths = [folder / str(size) / "crystals.extxyz" for size in sizes]
    if all(path.exists() for path in paths):
        return paths
    bare, store = folder / "bare.extxyz", folder / "bare"
    with bare.open("w") as handle:
        for atoms in crystals(max(sizes), seed):
            write_xyz(handle, [atoms])
    rows = extract(
        read(bare), store, load_model("mini", device="cpu"), ExtractSettings(workers=workers)
    ).rows()
    energies = np.concatenate([part.table["energy_model_ev"].to_numpy(dtype=float) for part in rows])
    noise = 0.1 * np.random.default_rng(seed).standard_t(3, max(sizes))
    for size, path in zip(sizes, paths, strict=True):
        path.parent.mkdir()
        with bare.open() as frames, path.open("w") as handle:
            for energy, error in zip(energies[:size], noise, strict=False):
                n_atoms = int(head := next(frames))
                label = f" REF_energy={energy + n_atoms * error:.8f}" if np.isfinite(energy) else ""
                handle.write(head + next(frames).rstrip() + label + "\n")
                handle.writelines(islice(frames, n_atoms))
    return paths


def run(source: Path, out: Path, workers: int, kill_at: int | None, rng: random.Random) -> dict:
    """Start the audit; kill its group soon after there are ``kill_at`` shards. What it took."""
    command = ["mace-bounds", "audit", str(source), str(out), "--model", "mini", "--device", "cpu"]
    command += ["--workers", str(workers)]
    started, peak, parent, at_peak = time.monotonic(), 0, 0, ""
    seen = []
    for pid, there in watched(command, out / "features", kill_at, rng, 0.1):
        size, parent = memory(pid), max(parent, own_peak(pid))
        seen.append((round(time.monotonic() - started, 1), there, round(size / MIB), stage(out)))
        if size > peak:
            peak, at_peak = size, stage(out)
    told = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(peak / MIB),
        "peak_while": at_peak,
    }
    told |= {
        "parent_mib": round(parent / MIB),
        "shards": len(shards(out / "features")),
    }
    if kill_at is None:
        summary = json.loads((out / "summary.json").read_text())
        told |= {
            "stages": summary["seconds"],
            "counts": summary["counts"],
            "atlas": summary["atlas"],
        }
    told["by_stage_mib"] = {
        name: max(s[2] for s in seen if s[3] == name) for name in dict.fromkeys(s[3] for s in seen)
    }
    return told


def stage(out: Path) -> str:
    """What the folder shows of how far a run is."""
    if (out / "plots").is_dir():
        return "plots and report"
    if (out / "bounds.parquet").is_file():
        return "statistics"
    return "bounds" if any(out.glob(".bounds.parquet.*.mace-bounds")) else "features"


def memory(pid: int) -> int:
    """Bytes of a process and all it started."""
    own, files = 0, [0]
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            shares = numbers(Path(f"/proc/{process.pid}/smaps_rollup"))
            own += shares.get("Pss_Anon", 0) + shares.get("Pss_Shmem", 0)
            files.append(numbers(Path(f"/proc/{process.pid}/status")).get("RssFile", 0))
    except (psutil.NoSuchProcess, OSError):
        pass
    return own + max(files)


def numbers(path: Path) -> dict[str, int]:
    """Bytes by name from a file of the kernel that tells kilobytes."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[-1:] == ["kB"]}


def own_peak(pid: int) -> int:
    """Largest resident memory that a process has had, bytes."""
    try:
        return numbers(Path(f"/proc/{pid}/status")).get("VmHWM", 0)
    except OSError:
        return 0


def digests(out: Path) -> dict[str, str]:
    """What the files of an audit hold, but for the times in its summary."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        content = path.read_bytes()
        if path.name == "summary.json":
            values = json.loads(content)
            content = json.dumps({k: v for k, v in values.items() if k not in TIMES}).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def told(what: str, session: dict) -> dict:
    """Say on the way what a run took."""
    print(what, json.dumps(session), file=sys.stderr, flush=True)
    return session


def study(args: argparse.Namespace, folder: Path) -> dict:
    rng = random.Random(args.seed)
    few, many = write_sources(folder, [args.few, args.n], args.seed, args.workers)
    short = told("short", run(few, folder / "few", args.workers, None, rng))
    whole = told("whole", run(many, folder / "whole", args.workers, None, rng))
    n_shards = -(-args.n // SHARD_ROWS)
    kills = sorted(rng.sample(range(1, n_shards), max(args.kills - 1, 0))) + [n_shards] * bool(args.kills)
    broken = [
        told("killed", run(many, folder / "many", args.workers, kill_at, rng))
        for kill_at in ([*kills, None] if kills else [])
    ]
    peak = max(session["peak_mib"] for session in [whole, *broken])
    return {
        "few": args.few,
        "n": args.n,
        "workers": args.workers,
        "complete": whole["counts"]["structures"] == args.n,
        "killed_run_identical": digests(folder / "many") == digests(folder / "whole") if broken else None,
        "memory_ratio": round(peak / short["peak_mib"], 3),
        "parent_memory_ratio": round(whole["parent_mib"] / short["parent_mib"], 3),
        "parent_bytes_per_structure": round(
            (whole["parent_mib"] - short["parent_mib"]) * MIB / (args.n - args.few)
        ),
        "short": short,
        "whole": whole,
        "killed": broken,
    }


def main() -> int:
    result = told_by(study, __doc__.splitlines()[0], n=50_000, kills=2)
    good = result["complete"] and result["killed_run_identical"] in (None, True)
    return 0 if good and result["memory_ratio"] <= TOLERATED else 1


if __name__ == "__main__":
    sys.exit(main())
