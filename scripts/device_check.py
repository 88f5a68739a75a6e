"""Check and time this machine's accelerator in one command of at most eight minutes.

    python scripts/device_check.py [--device cuda] [--crystals N] [--rounds 3] [--seconds 450] [--tiny]

Accuracy: energies and features of ``mini`` and of the architecture of MACE-MPA-0 (random weights), in float64 and float32,
by the re-arranged forward and by mace's own, against mace's own float64 forward on the CPU. Speed: the same models and
crystals through mace-bounds, mace's own batched forward, and mace with cuequivariance where that is installed; neighbour
lists are timed with it. Without CUDA the same parts run on the CPU, which tests the script.

One JSON object goes to standard output, everything else to standard error. A part that fails or runs out of time is
listed with the reason under ``failed``. Exit code 1 if an accuracy check did not hold, or could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench_features import pick
from bench_peers import packed, peak_mb
from mace_bounds import load_model
from mace_bounds.backbones.mace import MaceBackbone
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.examples import example_files
from mace_bounds.structures import Crystal, read
from mace_bounds.versions import versions
from mpa0_architecture import MPA_0, build

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}  # of the largest value
ATOM_TOLERANCE = 1e-4  # single atoms are kept in float32, and their round-off is not averaged
SHARES = {"accuracy": 0.35, "speed": 0.6}  # of the time
BATCH_ATOMS = {"cpu": (64, 256), "cuda": (512, 2048, 8192)}  # among these mace's own gets what is best for it
TINY = {"hidden_irreps": "8x0e+8x1o", "correlation": 2, "max_ell": 2, "r_max": 4.0, "num_bessel": 6}


class Report:
    """What was found so far; written once, also where the time is up."""

    def __init__(self, out: int, seconds: float) -> None:
        self.values: dict[str, Any] = {"accuracy": [], "speed": [], "failed": {}}
        self._out, self._lock, self._begun, self._seconds = (
            out,
            threading.Lock(),
            time.perf_counter(),
            seconds,
        )
        self._watch = threading.Timer(seconds, self._late)
        self._watch.daemon = True
        self._watch.start()

    @contextlib.contextmanager
    def part(self, name: str, share: float) -> Iterator[None]:
        """Run a part in its share of the time; what it raises becomes its reason."""
        print(f"{time.perf_counter() - self._begun:6.1f} s  {name}", file=sys.stderr, flush=True)
        signal.setitimer(signal.ITIMER_REAL, share * self._seconds)
        try:
            yield
        except Exception as error:
            self.values["failed"][name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def write(self) -> int:
        """Write the JSON object; returns the exit code."""
        self._watch.cancel()
        with self._lock:
            checks, failed = self.values["accuracy"], self.values["failed"]
            passed = bool(checks) and all(row["passed"] for row in checks)
            passed &= not any(name.startswith("accuracy") for name in failed)
            self.values |= {"seconds": round(time.perf_counter() - self._begun, 1), "passed": passed}
            os.write(self._out, (json.dumps(self.values) + "\n").encode())
        return int(not passed)

    def _late(self) -> None:
        """A part hangs where no signal reaches it: write what there is, and end."""
        self.values["failed"]["accuracy or speed"] = f"not finished in {self._seconds:g} s"
        os._exit(self.write())


def _out_of_time(*_: object) -> None:
    raise TimeoutError("its share of the time is up")


def check(
    model: MaceBackbone, reference: MaceBackbone, crystals: Sequence[Crystal], about: dict[str, str]
) -> list:
    """Largest deviation from the reference, relative to the largest value, for each quantity."""
    rows = []
    got, wanted = model.extract(crystals, atoms=True), reference.extract(crystals, atoms=True)
    for name in ("features", "energy_ev", "fixed_energy_ev", "atoms"):
        a, b = np.asarray(getattr(got, name), float), np.asarray(getattr(wanted, name), float)
        error = float(np.abs(a - b).max() / np.abs(b).max())
        tolerance = ATOM_TOLERANCE if name == "atoms" else TOLERANCE[model.dtype]
        rows.append({**about, "quantity": name, "relative_error": error, "passed": error <= tolerance})
    return rows


def accuracy(
    report: Report, name: str, module: torch.nn.Module, device: str, crystals: list[Crystal]
) -> None:
    """Both forwards on the device against mace's own in float64 on the CPU."""
    reference = replace(load_model(module, dtype="float64", device="cpu"), fast=None)
    for dtype in TOLERANCE:
        model = load_model(module, dtype=dtype, device=device)
        for forward, tried in (("rearranged", model), ("mace", replace(model, fast=None))):
            if forward == "rearranged" and model.fast is None:
                raise RuntimeError("; ".join(model.warnings))
            about = {"model": name, "dtype": dtype, "forward": forward}
            report.values["accuracy"] += check(tried, reference, crystals, about)


def mace_batched(module: torch.nn.Module, dtype: str, device: str) -> Callable[[list, int], list[float]]:
    """mace's own graphs and forward on batches of so many atoms, energies only."""
    from mace import data
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import Batch

    precision = getattr(torch, dtype)
    module = module.to(device, precision).eval().requires_grad_(False)
    table = AtomicNumberTable([int(z) for z in module.atomic_numbers])
    cutoff = float(module.r_max)

    def run(crystals: list, batch_atoms: int) -> list[float]:
        energies: list[float] = []
        with _mace.default_dtype(precision), torch.no_grad():
            for batch in packed(crystals, batch_atoms):
                graphs = [
                    data.AtomicData.from_config(data.config_from_atoms(atoms), z_table=table, cutoff=cutoff)
                    for atoms in batch
                ]
                joined = Batch.from_data_list(graphs).to(device).to_dict()
                energies += module(joined, compute_force=False)["energy"].tolist()
        return energies

    return run


def with_cuequivariance(module: torch.nn.Module, dtype: str, device: str) -> torch.nn.Module:
    """mace's conversion; ImportError where cuequivariance is not installed."""
    if importlib.util.find_spec("cuequivariance_torch") is None:
        raise ImportError("cuequivariance_torch is not installed")
    from mace.cli.convert_e3nn_cueq import run as convert

    with _mace.default_dtype(getattr(torch, dtype)):
        return convert(module.to(device, getattr(torch, dtype)), device=device, return_model=True)


def timed(run: Callable[[list], list[float]], crystals: list, rounds: int, device: str) -> dict[str, Any]:
    """Median over rounds after one to warm up; results come to the CPU, so that the device has finished."""
    run(crystals)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        energies = run(crystals)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else None
    n_atoms = sum(len(crystal.numbers) for crystal in crystals)
    return {
        "atoms_per_s": round(n_atoms / statistics.median(seconds), 1),
        "seconds": [round(s, 4) for s in seconds],
        "peak_device_mb": peak,
        "energy_sum_ev": float(np.sum(energies)),
    }


def ours(
    module: torch.nn.Module, dtype: str, device: str, crystals: list[Crystal], rounds: int
) -> dict[str, Any]:
    """``MaceBackbone.extract``: features and energies."""
    model = load_model(module, dtype=dtype, device=device)
    return timed(lambda some: model.extract(some).energy_ev.tolist(), crystals, rounds, device)


def peer(
    module: torch.nn.Module, dtype: str, device: str, crystals: list[Crystal], rounds: int
) -> dict[str, Any]:
    """mace's own, in batches of the size that is best for it here."""
    run, atoms = mace_batched(module, dtype, device), [crystal.to_atoms() for crystal in crystals]
    found = []
    for batch_atoms in BATCH_ATOMS[device]:
        with contextlib.suppress(torch.OutOfMemoryError):
            row = timed(lambda some, size=batch_atoms: run(some, size), atoms, rounds, device)
            found.append({**row, "batch_atoms": batch_atoms})
    return max(found, key=lambda row: row["atoms_per_s"])


def speed(
    report: Report, models: dict[str, torch.nn.Module], device: str, crystals: list[Crystal], rounds: int
) -> None:
    """Every contestant on every model, each in an even share of the time."""
    contestants = [
        (m, who, d) for m in models for who in ("mace-bounds", "mace", "cuequivariance") for d in TOLERANCE
    ]
    for name, who, dtype in contestants:
        with report.part(f"speed of {who}, {name}, {dtype}", SHARES["speed"] / len(contestants)):
            with _mace.quiet():
                module = copy.deepcopy(models[name])
                if who == "cuequivariance":
                    module = with_cuequivariance(module, dtype, device)
            row = (ours if who == "mace-bounds" else peer)(module, dtype, device, crystals, rounds)
            report.values["speed"].append({"model": name, "by": who, "dtype": dtype, **row})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--crystals", type=int, help="how many are timed; default 1000 on CUDA, 40 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=450.0, help="after so many it ends, whatever is done"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny architecture in place of MPA-0's, for tests"
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    out = os.dup(1)
    os.dup2(2, 1)  # mace prints
    signal.signal(signal.SIGALRM, _out_of_time)
    report = Report(out, args.seconds)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    report.values["machine"] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "versions": versions(),
    }
    n = args.crystals or (1000 if device == "cuda" else 40)
    examples = [r.crystal for r in read([str(file) for file in example_files()]) if r.crystal is not None]
    crystals = pick(examples, n, seed=0)
    report.values["sample"] = {"crystals": n, "atoms": sum(len(c.numbers) for c in crystals)}
    models = {}
    with report.part("accuracy: models", SHARES["accuracy"] / 2), _mace.quiet():
        models["mini"] = load_model("mini", dtype="float64", device="cpu").module
        models["mpa-0 architecture"] = build(MPA_0 | (TINY if args.tiny else {}))
    for name, module in models.items():
        with report.part(f"accuracy of {name}", SHARES["accuracy"] / 2):
            accuracy(report, name, module, device, crystals[:8])
    speed(report, models, device, crystals, args.rounds)
    report.values["peak_process_mb"] = round(peak_mb(), 1)
    sys.exit(report.write())


if __name__ == "__main__":
    main()
