"""Compare ways to get energies and features of many crystals: the peers and ours, side by side in one run.

    python scripts/bench_features.py [--crystals FILE] [--n 200] [--rounds 5] [--out FILE.json]

(a) MACECalculator, energy and get_descriptors, one crystal after the other, float64   (b) the same in float32
(c) mace's own forward on batches, energies only   (d) torch-sim's MaceModel on batches   (e) mace-bounds

Every contestant runs in processes of its own that stay alive; between turns they wait. Rounds interleave them, so that
noise on a shared machine hits all alike: in each round all have one turn, (c) to (e) over all crystals, as often as takes a
second, the slow loops (a) and (b) over one share of them, another in each round, dealt so that the shares have as many
edges. After the last round all have run the same n crystals, and their energies are compared. Rates and ratios are
medians over rounds; those per second of processor time hold on a machine that does other things beside.
Loading, reading and a warm-up before each turn are not timed; neighbour lists are. The peers choose on a few crystals
what is best for them (one process on all cores or one on each; small or large batches) and run with glibc's allocator
told to keep its memory. Ours runs one process on each core in a plain environment.

The last line is one JSON object: ratios to (a), atoms/s and peak memory, all of the first model.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bench_peers import write_checkpoint
from bench_rounds import enter, run_rounds, summary
from bench_table import print_rows, print_title
from bench_team import WORKER, Contestant, FailedError, Sample, environment, watch_memory
from mace_bounds.examples import example_files
from mace_bounds.structures import Crystal, read

MODELS = {"mpa-0": "MPA-0 architecture with random weights", "mini": "mini"}
CONTESTANTS = [
    Contestant("a", "MACECalculator loop", "calculator", "float64"),
    Contestant("b", "MACECalculator loop", "calculator", "float32"),
    *(Contestant("c", "mace, batched", "batched", d) for d in ("float64", "float32")),
    *(Contestant("d", "torch-sim, batched", "torch-sim", d) for d in ("float64", "float32")),
    *(Contestant("e", "mace-bounds", "ours", d) for d in ("float64", "float32")),
]


def pick(crystals: Sequence[Crystal], n: int, seed: int) -> list[Crystal]:
    """Evenly from small to large; where there are too few, again with atoms moved by some 0.02 Å."""
    rng = np.random.default_rng(seed)
    chosen: list[Crystal] = []
    for start in range(0, n, len(crystals)):
        order = sorted(rng.permutation(len(crystals)), key=lambda i: len(crystals[i].numbers))
        wanted = min(n - start, len(crystals))
        places = ((np.arange(wanted) + rng.random()) * len(crystals) / wanted).astype(int)
        for crystal in (crystals[order[p]] for p in places):
            moved = crystal.positions + (rng.normal(0, 0.02, crystal.positions.shape) if start else 0.0)
            chosen.append(Crystal(crystal.numbers, moved, crystal.cell))
    return [chosen[i] for i in rng.permutation(len(chosen))]


def make_sample(crystals: list[Crystal], cutoff_a: float, file: Path) -> Sample:
    """Write the crystals for the workers; count atoms and edges."""
    from matscipy.neighbours import neighbour_list

    edges = [
        len(neighbour_list("i", pbc=[True] * 3, cell=c.cell, positions=c.positions, cutoff=cutoff_a))
        for c in crystals
    ]
    file.write_bytes(pickle.dumps(crystals))
    return Sample(crystals, np.array([len(c.numbers) for c in crystals]), np.array(edges), file)


def peak_of_store(checkpoint: Path, crystals: list[Crystal], cores: int, folder: Path) -> float | None:
    """Peak memory of filling a feature store, MB over all its processes."""
    file = folder / "peak.pickle"
    file.write_bytes(pickle.dumps(crystals))
    call = [sys.executable, WORKER, "store", str(checkpoint), str(file), str(cores)]
    with (folder / "peak.log").open("w+") as log:
        process = subprocess.Popen(call, stdout=log, stderr=log, env=environment(1))
        peak = watch_memory(process)
        if process.returncode:
            log.seek(0)
            raise FailedError(log.read().strip().splitlines()[-1][:160])
    return peak


def run_model(model: str, crystals: list[Crystal], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything about one model: rows and peak memory; printed as soon as it is there."""
    checkpoint = folder / f"{model}.model"
    written = write_checkpoint(model, checkpoint)
    sample = make_sample(pick(crystals, args.n, args.seed), written.pop("cutoff_a"), folder / "sample.pickle")
    result: dict[str, Any] = {
        "model": model,
        **written,
        "crystals": args.n,
        "atoms": int(sample.n_atoms.sum()),
        "edges": int(sample.n_edges.sum()),
    }
    print_title(MODELS[model], result, args)
    rows = [enter(c, checkpoint, sample, args.cores) for c in CONTESTANTS if c.letter in args.only]
    try:
        run_rounds(rows, sample, args.rounds)
        result["rows"] = summary(rows, sample)
    finally:
        for row in rows:
            if row.team is not None:
                row.team.close()
    print_rows(result["rows"])
    if args.peak:
        result["peak_crystals"], result["peak_mb"] = args.peak, None
        many = pick(crystals, args.peak, args.seed)
        try:
            result["peak_mb"] = peak_of_store(checkpoint, many, args.cores, folder)
            said = (
                f"{result['peak_mb']:.0f} MB over all processes" if result["peak_mb"] else "not measured here"
            )
        except FailedError as error:  # the table is there already
            said = f"did not run: {error}"
        print(f"\npeak memory of filling a store with {args.peak} crystals, float32: {said}", flush=True)
    return result


def last_line(result: dict[str, Any]) -> dict[str, float | None]:
    """What is claimed: ours against the float64 loop, and ours alone in float32."""
    ours = {r["dtype"]: r for r in result["rows"] if r["letter"] == "e"}
    double, single = ours.get("float64", {}), ours.get("float32", {})
    rounded = {
        "ratio_float64": double.get("times_a"),
        "ratio_float32": single.get("times_a"),
        "ratio_float64_per_core_s": double.get("times_a_per_core_s"),
        "ratio_float32_per_core_s": single.get("times_a_per_core_s"),
        "atoms_per_s_float32": single.get("atoms_per_s"),
        "peak_mb": result.get("peak_mb", single.get("peak_mb")),
    }
    return {key: None if value is None else round(value, 1) for key, value in rounded.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--crystals", help="anything that mace_bounds.read takes; default: the shipped examples, repeated"
    )
    parser.add_argument("--n", type=int, default=200, help="crystals, evenly from small to large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", default="abcde", help="letters of the contestants")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--peak", type=int, default=2000, help="crystals for the peak memory; 0 leaves it out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with everything")
    args = parser.parse_args()
    if not 1 <= args.rounds <= args.n:
        parser.error("expected at least one crystal for every round; give fewer --rounds or more --n.")
    return args


def main() -> None:
    args = parse()
    source = args.crystals or [str(file) for file in example_files()]
    crystals = [r.crystal for r in read(source) if r.crystal is not None]
    with tempfile.TemporaryDirectory() as folder:
        results = [run_model(model, crystals, args, Path(folder)) for model in args.models]
    everything = {
        "machine": machine(args),
        "arguments": vars(args) | {"out": str(args.out)},
        "models": results,
    }
    if args.out:
        args.out.write_text(json.dumps(everything, indent=1) + "\n")
    print(json.dumps(last_line(results[0])))


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers hold for."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "mace-torch", "e3nn", "torch-sim-atomistic", "mace-bounds"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "platform": platform.platform(),
        "cores": args.cores,
        "load": os.getloadavg(),
        "versions": versions,
    }


if __name__ == "__main__":
    main()
