"""A worker of the benchmark: one contestant in a process of its own, driven by bench_features.py.

    python scripts/bench_peers.py work CONTESTANT DTYPE CHECKPOINT CRYSTALS THREADS
    python scripts/bench_peers.py store CHECKPOINT CRYSTALS WORKERS   fill a feature store, for its peak memory

``work`` reads one JSON object a line, ``{"indices": [...], "batch_atoms": 256, "split": false, "repeat": 1}``, runs these
crystals and answers with one line. What is timed begins with crystals in memory (``ase.Atoms`` for the peers) and ends with an energy and
invariant features for each; neighbour lists are part of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from mace_bounds.backbones.mace import checkpoint as _mace


class Clock:
    """Seconds spent in named stages."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextlib.contextmanager
    def __call__(self, stage: str):
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def around(self, stage: str, function):
        """The same function, timed."""

        def timed(*args, **kwargs):
            with self(stage):
                return function(*args, **kwargs)

        return timed


class Calculator:
    """Energy and descriptors of one crystal after the other, as users ask for them."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        from mace.calculators import MACECalculator

        self.calculator = MACECalculator(model_paths=str(checkpoint), device="cpu", default_dtype=dtype)
        self.prepare = self.calculator._atoms_to_batch

    def run(self, crystals: list, batch_atoms: int, clock: Clock) -> list[float]:
        del batch_atoms  # one crystal at a time is the point
        self.calculator._atoms_to_batch = clock.around("neighbour lists and graph", self.prepare)
        energies = []
        with clock("all"):
            for atoms in crystals:
                atoms.calc = self.calculator
                energies.append(atoms.get_potential_energy())
                self.calculator.get_descriptors(atoms)
                atoms.calc = None
        clock.seconds["forwards and backwards"] = clock.seconds.pop("all") - sum(clock.seconds.values())
        return energies


class Batched:
    """mace's own forward on batches, energies only; its ``node_feats`` come along."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        from mace import data
        from mace.tools import AtomicNumberTable
        from mace.tools.torch_geometric import Batch

        self.data, self.join = data, Batch.from_data_list
        self.model = _mace.load_checkpoint(checkpoint, trusted=True).to(getattr(torch, dtype)).eval()
        self.model.requires_grad_(False)
        self.table = AtomicNumberTable([int(z) for z in self.model.atomic_numbers])
        torch.set_default_dtype(getattr(torch, dtype))  # mace makes its tensors in it

    def graph(self, atoms):
        return self.data.AtomicData.from_config(
            self.data.config_from_atoms(atoms), z_table=self.table, cutoff=float(self.model.r_max)
        )

    def run(self, crystals: list, batch_atoms: int, clock: Clock) -> list[float]:
        energies = []
        for batch in packed(crystals, batch_atoms):
            with clock("neighbour lists and graph"):
                graph = self.join([self.graph(atoms) for atoms in batch]).to_dict()
            with clock("forward"), torch.no_grad():
                energies += self.model(graph, compute_force=False)["energy"].tolist()
        return energies


class TorchSim:
    """torch-sim's MaceModel on batches, energies only (and without the gradients that it would keep)."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        import torch_sim
        from torch_sim.models.mace import MaceModel
        from torch_sim.neighbors import vesin_nl_ts

        self.state, self.lists = torch_sim.initialize_state, vesin_nl_ts
        self.dtype = getattr(torch, dtype)
        torch.set_default_dtype(self.dtype)
        self.model = MaceModel(
            _mace.load_checkpoint(checkpoint, trusted=True).requires_grad_(False),
            device=torch.device("cpu"),
            dtype=self.dtype,
            compute_forces=False,
            compute_stress=False,
        )

    def run(self, crystals: list, batch_atoms: int, clock: Clock) -> list[float]:
        self.model.neighbor_list_fn = clock.around("neighbour lists", self.lists)
        energies = []
        with clock("all"), torch.no_grad():
            for batch in packed(crystals, batch_atoms):
                energies += self.model(self.state(batch, torch.device("cpu"), self.dtype))["energy"].tolist()
        clock.seconds["graph and forward"] = clock.seconds.pop("all") - sum(clock.seconds.values())
        return energies


class Ours:
    """``MaceBackbone.extract``: the features that energies are linear in, and energies."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        from mace_bounds import load_model

        self.frozen = load_model(checkpoint, dtype=dtype, device="cpu")

    def run(self, crystals: list, batch_atoms: int, clock: Clock) -> list[float]:
        del batch_atoms  # it packs its own batches
        with clock("extract"):
            return self.frozen.extract(crystals).energy_ev.tolist()

    def split(self, crystals: list, clock: Clock) -> None:
        """Where its time goes, apart from the timed runs."""
        from mace_bounds.backbones.mace.backbone import build_graph

        with clock("neighbour lists"):
            for crystal in crystals:
                build_graph(crystal, self.frozen.cutoff_a)
        with clock("all"):
            self.frozen.extract(crystals)
        clock.seconds["forward"] = clock.seconds.pop("all") - sum(clock.seconds.values())


CONTESTANTS = {"calculator": Calculator, "batched": Batched, "torch-sim": TorchSim, "ours": Ours}


def packed(crystals: list, max_atoms: int):
    """Runs of crystals of at most so many atoms together; a larger one stands alone."""
    batch: list = []
    for crystal in crystals:
        if batch and sum(map(len, batch)) + len(crystal) > max_atoms:
            yield batch
            batch = []
        batch.append(crystal)
    if batch:
        yield batch


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB.  Linux counts a parent's in ``ru_maxrss``."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def give_memory_back() -> None:
    """Between turns, so that contestants that wait leave the machine's memory to the one that runs."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def work(contestant: str, dtype: str, checkpoint: str, crystals: str, threads: str) -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # mace prints
    torch.set_num_threads(int(threads))
    _mace.import_mace()
    with _mace.quiet():
        runner = CONTESTANTS[contestant](Path(checkpoint), dtype)
    sample = pickle.loads(Path(crystals).read_bytes())
    if contestant != "ours":
        sample = [crystal.to_atoms() for crystal in sample]
    for line in sys.stdin:
        command = json.loads(line)
        chosen, clock = [sample[i] for i in command["indices"]], Clock()
        start, used = time.perf_counter(), time.process_time()
        if command["split"] and contestant == "ours":
            runner.split(chosen, clock)
            energies = []
        else:
            for _ in range(command["repeat"]):
                energies = runner.run(chosen, command["batch_atoms"], clock)
        answer = {
            "seconds": time.perf_counter() - start,
            "core_seconds": time.process_time() - used,
            "energies_ev": energies,
            "stages": clock.seconds,
            "peak_mb": peak_mb(),
        }
        give_memory_back()
        print(json.dumps(answer), file=answers, flush=True)


def write_checkpoint(model: str, path: Path) -> dict[str, float]:
    """A checkpoint as users have it, the whole module; its number of parameters, and its cutoff, Å."""
    from mace_bounds.backbones.mace import embedded as _embedded
    from mpa0_architecture import MPA_0, build

    module = build(MPA_0) if model == "mpa-0" else _embedded.load(_embedded.MINI_FOLDER).module
    torch.save(module, path)
    n_parameters = sum(p.numel() for p in module.parameters())
    return {"parameters": n_parameters, "cutoff_a": float(module.r_max)}


def store(checkpoint: str, crystals: str, workers: str) -> None:
    """Fill a feature store with the crystals, reading and model included."""
    from mace_bounds import load_model
    from mace_bounds.features import ExtractSettings, extract
    from mace_bounds.structures import Record

    sample = pickle.loads(Path(crystals).read_bytes())
    records = (Record(id=str(i), source="benchmark", crystal=c) for i, c in enumerate(sample))
    with tempfile.TemporaryDirectory() as folder:
        extract(
            records,
            Path(folder, "store"),
            load_model(checkpoint, device="cpu"),
            ExtractSettings(workers=int(workers)),
        )


if __name__ == "__main__":
    {"work": work, "store": store}[sys.argv[1]](*sys.argv[2:])
