"""Train ``mini``, the small MACE that ships inside mace-bounds.

Run on every core, one process each (gradients are averaged over processes)::

    python -m torch.distributed.run --nproc-per-node 2 scripts/train_mini.py \
        --data ../shared/data --out runs/mini --minutes 100

Most energies are those of better models (a foundation potential on substituted and strained cells, MACE-MPA-0 on
WBM crystals), the others DFT's; forces and stresses come from the sources that sample them off equilibrium.
The teacher on made-up cells has a small linear readout of its own for what it says differently from DFT; it is
thrown away in the end.  Compositions whose hash falls above ``BACKBONE_FRACTION`` are
never shown to the network: they belong to the head (DESIGN 6, three-way split).
The learning rate is constant for the first part of the budget of processor time and then falls; in the last part
the teacher is seen less often than DFT.

``--weights`` takes the weights of an earlier run of the same architecture: its folder, or a packaged model. So this goes on
from what ships, with the other three of six hours of processor time::

    python -m torch.distributed.run --nproc-per-node 2 scripts/train_mini.py \
        --data ../shared/data --out runs/mini-4 --weights mini --minutes 90

The same command again goes on after a kill, from a checkpoint that is at most two minutes of processor time old.
``scripts/package_mini.py runs/mini-4`` makes the folder that ships of it, and a head has to be fitted anew.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from mace import data as mace_data
from mace import modules
from mace.tools import AtomicNumberTable, torch_geometric

from fused_convolution import Fused
from mini_batches import epoch_batches, make_batches
from mini_checkpoint import EVERY_S, Start, read_checkpoint, read_start, write_checkpoint
from mini_frames import (
    ATOMIC_NUMBERS,
    Frame,
    element_likeness,
    fit_atomic_energies,
    read_frames,
    read_teacher_frames,
    split_fraction,
)

BACKBONE_FRACTION, VALIDATION_FRACTION = 0.78, 0.02
SOURCE_WEIGHT = {
    "alexandria_pressure_P025": 0.5,
    "alexandria_pressure_P050": 0.5,
    "tp": 0.3,
    "mp_entries": 2.0,
    "teacher": 0.7,
    "mpa0_scan": 0.7,
}
ELEMENT_WEIGHT = 2.0  # of DFT frames of one element: there are few
ARCHITECTURE = {
    "r_max": 5.0,
    "num_bessel": 8,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "32x0e+32x1o",
    "MLP_irreps": "16x0e",
    "correlation": 2,
    "radial_type": "bessel",
    "radial_MLP": [32, 32],
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
    "use_reduced_cg": False,
}
DTYPE = torch.float32
LEARNING_RATE, WEIGHT_DECAY, SHRINKAGE, EMA_DECAY, CLIP = 0.0025, 5e-3, 0.05, 0.9995, 10.0
WARM_UP_S, CONSTANT_FRACTION, TEACHER_FRACTION = 60.0, 0.12, 0.7
TEACHER_ROWS = 4000  # to which its readout is fitted where weights are taken from an earlier run


def build_model(atomic_energies: np.ndarray, scale: float, neighbours: float) -> torch.nn.Module:
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPE)
    from e3nn import o3

    options = dict(ARCHITECTURE)
    for key in ("hidden_irreps", "MLP_irreps"):
        options[key] = o3.Irreps(options[key])
    for key in ("interaction_cls", "interaction_cls_first"):
        options[key] = modules.interaction_classes[options[key]]
    return modules.ScaleShiftMACE(
        **options,
        num_elements=len(ATOMIC_NUMBERS),
        gate=torch.nn.functional.silu,
        atomic_energies=atomic_energies,
        avg_num_neighbors=neighbours,
        atomic_numbers=ATOMIC_NUMBERS,
        atomic_inter_scale=scale,
        atomic_inter_shift=0.0,
    )


def learning_rate(spent: float, budget: float) -> float:
    if spent < WARM_UP_S:
        return LEARNING_RATE * spent / WARM_UP_S
    fall = (spent / budget - CONSTANT_FRACTION) / (1 - CONSTANT_FRACTION)
    return LEARNING_RATE * max(1e-3, 0.5 * (1 + math.cos(math.pi * min(max(fall, 0.0), 1.0))))


class Trainer:
    """Model, its running average, optimiser and graphs of one process."""

    def __init__(self, frames: list[Frame], train: np.ndarray, start: Start | None = None) -> None:
        self.frames = frames
        position = {z: i for i, z in enumerate(ATOMIC_NUMBERS)}
        counts = np.zeros((len(frames), len(ATOMIC_NUMBERS)))
        for row, frame in zip(counts, frames, strict=True):
            np.add.at(row, [position[z] for z in frame.atoms.numbers], 1)
        self.n_atoms = counts.sum(1)
        energies = np.array([f.energy_ev for f in frames])
        calm = train[[f.source not in ("tp",) for f in (frames[i] for i in train)]]
        self.atomic_energies = (
            start.atomic_energies_ev if start else fit_atomic_energies(counts[calm], energies[calm])
        )
        self.target = (energies - counts @ self.atomic_energies) / self.n_atoms
        self.plausible = np.abs(self.target) < 6.0
        scale = float(np.sqrt(np.mean(np.minimum(self.target[train] ** 2, 4.0))))
        torch.set_default_dtype(DTYPE)
        table = AtomicNumberTable(ATOMIC_NUMBERS)
        self.graphs = [
            mace_data.AtomicData.from_config(
                mace_data.config_from_atoms(f.atoms), z_table=table, cutoff=ARCHITECTURE["r_max"]
            )
            for f in frames
        ]
        self.edges = np.array([g.edge_index.shape[1] for g in self.graphs])
        neighbours = float(self.edges[train].sum() / self.n_atoms[train].sum())
        if start:
            scale, neighbours = (start.architecture[k] for k in ("scale", "avg_num_neighbors"))
        self.config = {"scale": scale, "avg_num_neighbors": neighbours}
        self.model = build_model(self.atomic_energies, scale, neighbours)
        if start:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(start.weights[name])
        self.average = copy.deepcopy(self.model)
        self.fused = Fused(self.model)
        channels = int(ARCHITECTURE["hidden_irreps"].split("x")[0])
        self.scalars = [*range(channels), *range(4 * channels, 5 * channels)]  # of both layers
        self.teacher_readout = torch.nn.Linear(len(self.scalars) + len(ATOMIC_NUMBERS), 1, bias=False)
        torch.nn.init.zeros_(self.teacher_readout.weight)
        decayed = [
            p
            for n, p in self.model.named_parameters()
            if p.requires_grad and ("products" in n or "skip" in n)
        ]
        others = [p for p in self.model.parameters() if p.requires_grad and all(p is not q for q in decayed)]
        decayed.append(self.teacher_readout.weight)
        self.parameters = decayed + others
        self.likeness = torch.tensor(element_likeness(), dtype=DTYPE)
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
            lr=LEARNING_RATE,
            amsgrad=True,
        )
        if start:
            self.fit_teacher_readout(train)

    def parts(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        """What changes in a run."""
        names = ("model", "average", "teacher_readout", "optimizer")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def fit_teacher_readout(self, train: np.ndarray) -> None:
        """Ridge regression of what the teacher says more than the network, which is not kept with weights."""
        teacher = [i for i in train if self.frames[i].source == "teacher" and self.plausible[i]]
        rows, wanted = [], []
        for batch in make_batches(np.array(teacher[:: max(len(teacher) // TEACHER_ROWS, 1)]), self.edges):
            data = torch_geometric.Batch.from_data_list([self.graphs[i] for i in batch]).to_dict()
            out = self.model(data, compute_force=False)
            inputs = torch.cat([out["node_feats"][:, self.scalars], data["node_attrs"]], dim=1).double()
            n_atoms = torch.tensor(self.n_atoms[batch])[:, None]
            cells = torch.zeros(len(batch), inputs.shape[1]).double().index_add(0, data["batch"], inputs)
            rows.append(cells / n_atoms)
            wanted.append(torch.tensor(self.target[batch]) - out["interaction_energy"] / n_atoms[:, 0])
        x, y = torch.cat(rows), torch.cat(wanted).double().clamp(-0.5, 0.5)
        gram = x.T @ x + torch.eye(x.shape[1]).double()
        self.teacher_readout.weight.copy_(torch.linalg.solve(gram, x.T @ y)[None])

    def loss(self, batch: list[int]) -> torch.Tensor:
        frames = [self.frames[i] for i in batch]
        forces = frames[0].forces_ev_a is not None
        data = torch_geometric.Batch.from_data_list([self.graphs[i] for i in batch]).to_dict()
        with nullcontext() if forces else self.fused:
            out = self.model(data, training=True, compute_force=forces, compute_stress=forces)
        n_atoms = torch.tensor(self.n_atoms[batch], dtype=DTYPE)
        target = torch.tensor(self.target[batch], dtype=DTYPE)
        weight = torch.tensor([self.weight(f) for f in frames], dtype=DTYPE)
        huber = torch.nn.functional.huber_loss
        energy = out["interaction_energy"] + self.teacher_difference(data, out["node_feats"], frames)
        error = huber(energy / n_atoms, target, delta=0.03, reduction="none")
        loss = 100.0 * (weight * error).mean()
        if forces:
            wanted = torch.tensor(np.concatenate([f.forces_ev_a for f in frames]), dtype=DTYPE)
            loss = loss + 5.0 * huber(out["forces"], wanted, delta=0.1)
            known = torch.tensor([f.stress_ev_a3 is not None for f in frames])
            if known.any():
                stress = torch.tensor(
                    np.array([f.stress_ev_a3 for f in frames if f.stress_ev_a3 is not None]), dtype=DTYPE
                )
                loss = loss + 200.0 * huber(out["stress"][known], stress.reshape(-1, 3, 3), delta=0.01)
        return loss

    @staticmethod
    def weight(frame: Frame) -> float:
        lone = frame.source != "teacher" and len(set(frame.atoms.numbers)) == 1
        return SOURCE_WEIGHT.get(frame.source, 1.0) * (ELEMENT_WEIGHT if lone else 1.0)

    def teacher_difference(
        self, data: dict[str, torch.Tensor], node_feats: torch.Tensor, frames: list[Frame]
    ) -> torch.Tensor:
        """What the teacher says more than DFT, eV per cell: linear in the last features and the composition."""
        inputs = torch.cat([node_feats[:, self.scalars], data["node_attrs"]], dim=1)
        atoms = self.teacher_readout(inputs)[:, 0]
        cells = torch.zeros(len(frames), dtype=DTYPE).index_add(0, data["batch"], atoms)
        return cells * torch.tensor([f.source == "teacher" for f in frames], dtype=DTYPE)

    def step(self, batch: list[int], rate: float, ranks: int) -> None:
        gradients = torch.autograd.grad(self.loss(batch), self.parameters, allow_unused=True)
        flat = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for p, g in zip(self.parameters, gradients, strict=True)
            ]
        )
        if ranks > 1:
            dist.all_reduce(flat)
            flat /= ranks
        if not torch.isfinite(flat).all():
            return
        for parameter, piece in zip(
            self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True
        ):
            parameter.grad = piece.view_as(parameter)
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.shrink(rate)
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - EMA_DECAY)

    @torch.no_grad()
    def shrink(self, rate: float) -> None:
        """Pull the weights of each element towards those of its neighbours in the periodic table."""
        n = len(ATOMIC_NUMBERS)
        for name, weight in self.model.named_parameters():
            if "symmetric_contractions" in name or name == "node_embedding.linear.weight":
                table = weight.view(n, -1)  # (element, ...)
                table.lerp_(self.likeness @ table, rate * SHRINKAGE)
            elif "skip_tp" in name:
                channels = int(ARCHITECTURE["hidden_irreps"].split("x")[0])
                table = weight.view(-1, channels, n, channels)  # (path, in, element, out)
                table.lerp_(torch.einsum("ef,pifo->pieo", self.likeness, table), rate * SHRINKAGE)

    def errors_mev_per_atom(self, indices: np.ndarray) -> np.ndarray:
        """Errors of the averaged model on frames, in the order of ``indices``."""
        errors = np.zeros(len(self.frames))
        with torch.no_grad():
            for batch in make_batches(indices, self.edges):
                data = torch_geometric.Batch.from_data_list([self.graphs[i] for i in batch]).to_dict()
                energy = self.average(data, compute_force=False)["interaction_energy"].double().numpy()
                errors[batch] = 1e3 * (energy / self.n_atoms[batch] - self.target[batch])
        return errors[indices]

    def error_table(self, indices: np.ndarray) -> dict[str, dict[str, float]]:
        errors = self.errors_mev_per_atom(indices)
        sources = np.array([self.frames[i].source for i in indices])
        return {
            str(source): {
                "n": int((k := sources == source).sum()),
                "mae_mev_per_atom": round(float(np.abs(errors[k]).mean()), 2),
                "rmse_mev_per_atom": round(float(np.sqrt((errors[k] ** 2).mean())), 2),
                "median_mev_per_atom": round(float(np.median(np.abs(errors[k]))), 2),
            }
            for source in sorted(set(sources))
        }


def log(path: Path, text: str) -> None:
    print(text, flush=True)
    with path.open("a") as handle:
        handle.write(text + "\n")


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100.0, help="processor time of each process")
    parser.add_argument(
        "--weights", help="weights to begin with: mini, a packaged folder, or that of an earlier run"
    )
    args = parser.parse_args()
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, journal = args.out / "checkpoint.pt", args.out / "log.txt"
    frames = read_frames(args.data) + read_teacher_frames(args.data)
    fraction = np.array([split_fraction(f.formula) for f in frames])
    train = np.flatnonzero(fraction < BACKBONE_FRACTION)
    trainer = Trainer(frames, train, read_start(args.weights) if args.weights else None)
    train = train[trainer.plausible[train]]
    held_out = np.flatnonzero((fraction >= BACKBONE_FRACTION + VALIDATION_FRACTION) & trainer.plausible)
    watched = np.flatnonzero(
        (fraction >= BACKBONE_FRACTION)
        & (fraction < BACKBONE_FRACTION + VALIDATION_FRACTION)
        & trainer.plausible
    )
    place = read_checkpoint(checkpoint, trainer)
    if rank == 0:
        n_parameters = sum(p.numel() for p in trainer.parameters)
        log(
            journal,
            f"frames {len(frames)} train {len(train)} held out {len(held_out)} parameters {n_parameters}",
        )
    budget = 60 * args.minutes
    while place.spent_s < budget:
        if place.step == 0:
            place.late = place.spent_s > TEACHER_FRACTION * budget
        rng = np.random.default_rng((1, place.epoch))
        batches = epoch_batches(train, frames, trainer.edges, rng, ranks, place.late)
        written_s = place.spent_s
        for step in batches[place.step :]:
            started = time.process_time()
            trainer.step(step[rank], learning_rate(place.spent_s, budget), ranks)
            elapsed = torch.tensor([time.process_time() - started])
            if ranks > 1:
                dist.all_reduce(elapsed, dist.ReduceOp.MAX)
            place.spent_s += float(elapsed)
            place.step, place.steps = place.step + 1, place.steps + 1
            if place.spent_s >= budget:
                break
            if rank == 0 and place.spent_s - written_s > EVERY_S:
                write_checkpoint(checkpoint, trainer, place)
                written_s = place.spent_s
        place.epoch, place.step = place.epoch + 1, 0
        if rank == 0:
            table = json.dumps(trainer.error_table(watched))
            log(journal, f"epoch {place.epoch} steps {place.steps} spent {place.spent_s:.0f} s {table}")
            write_checkpoint(checkpoint, trainer, place)
    if rank == 0:
        result = {
            "architecture": ARCHITECTURE | trainer.config,
            "atomic_numbers": ATOMIC_NUMBERS,
            "atomic_energies_ev": trainer.atomic_energies.tolist(),
            "epochs": place.epoch,
            "steps": place.steps,
            "minutes": round(place.spent_s / 60, 1),
            "processes": ranks,
            "n_train": len(train),
            "frames": dict(Counter(frames[i].source for i in train)),
            "backbone_fraction": BACKBONE_FRACTION,
            "validation_fraction": VALIDATION_FRACTION,
            "train_formulas": sorted({frames[i].formula for i in train}),
            "unseen": trainer.error_table(held_out),
            "seen": trainer.error_table(np.random.default_rng(0).permutation(train)[:3000]),
        }
        log(journal, json.dumps({k: v for k, v in result.items() if k != "train_formulas"}))
        (args.out / "result.json").write_text(json.dumps(result, indent=1))
        torch.save(trainer.average.state_dict(), args.out / "average.pt")
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
