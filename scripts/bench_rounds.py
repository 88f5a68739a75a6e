"""The rounds of the benchmark: choose each contestant's form, give it its turns, draw ratios from them."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench_team import Contestant, FailedError, Sample, Team, Turn, deal

BATCH_ATOMS = (64, 256)
SHORTEST_TURN_S = (
    1.0  # what takes less is repeated: the noise of a turn of milliseconds is larger than what is measured
)


@dataclass
class Row:
    """A contestant on its way through the rounds; with a reason if it could not run or go on."""

    who: Contestant
    team: Team | None = None
    batch_atoms: int = BATCH_ATOMS[-1]
    turns: list[Turn] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


def enter(who: Contestant, checkpoint: Path, sample: Sample, cores: int) -> Row:
    """Start a contestant in the form that is fastest on a few crystals, where it has a choice."""
    row = Row(who, batch_atoms=1 if who.loops else BATCH_ATOMS[-1])
    few = deal(range(len(sample.crystals)), sample.n_edges, max(1, len(sample.crystals) // 10))[0]
    forms = [(cores, 1)] if who.ours or cores == 1 else [(cores, 1), (1, cores)]
    sizes = [row.batch_atoms] if who.ours or who.loops else list(BATCH_ATOMS)
    best = np.inf
    for processes, threads in forms:
        try:
            team = Team(who, processes, threads, checkpoint, sample)
            team.run(few, row.batch_atoms)  # TorchScript compiles in its first calls
            seconds, size = np.inf, row.batch_atoms
            if len(forms) * len(sizes) > 1:
                seconds, size = min((team.run(few, size).seconds, size) for size in sizes)
        except FailedError as error:
            row.reason = str(error)
            continue
        if row.team is not None and seconds >= best:
            team.close()
            continue
        if row.team is not None:
            row.team.close()
        best, row.team, row.batch_atoms = seconds, team, size
    if row.team is not None:
        row.reason = None
    return row


def run_rounds(rows: list[Row], sample: Sample, rounds: int) -> None:
    """Give every contestant its turn in every round; the order is turned from round to round."""
    everything = list(range(len(sample.crystals)))
    shares = deal(everything, sample.n_edges, rounds)
    for k, share in enumerate(shares):
        for row in rows[k % len(rows) :] + rows[: k % len(rows)]:
            if row.reason is not None or row.team is None:
                continue
            crystals = share if row.who.loops else everything
            try:
                row.team.warm_up(crystals, row.batch_atoms)
                turn = row.team.run(crystals, row.batch_atoms)
                repeat = ceil(SHORTEST_TURN_S / turn.seconds)
                row.turns.append(
                    turn if repeat == 1 else row.team.run(crystals, row.batch_atoms, repeat=repeat)
                )
            except FailedError as error:
                row.reason = str(error)
        print(f"round {k + 1} of {rounds} done", file=sys.stderr, flush=True)
    for row in rows:
        if row.reason is None and row.team is not None:
            turn = row.team.run(everything, row.batch_atoms, split=True) if row.who.ours else row.turns[-1]
            row.stages = {s: t / sum(turn.stages.values()) for s, t in turn.stages.items()}


def summary(rows: list[Row], sample: Sample) -> list[dict[str, Any]]:
    """The table's numbers."""
    loop = next((r for r in rows if r.who.letter == "a"), None)
    reference = energies(next((r for r in rows if r.turns and r.who.dtype == "float64"), rows[0]), sample)
    results = []
    for row in rows:
        result: dict[str, Any] = {**asdict(row.who), "reason": row.reason}
        results.append(result)
        if row.reason is not None or row.team is None:
            continue
        rates = atoms_per_s(row, sample)
        ours = next((r for r in rows if r.who.ours and r.who.dtype == row.who.dtype), None)
        result |= {
            "processes": row.team.processes,
            "threads": row.team.threads,
            "batch_atoms": None if row.who.loops or row.who.ours else row.batch_atoms,
            "atoms_per_s": median(rates),
            "atoms_per_s_by_round": rates,
            "structures_per_s": median(rates) / float(sample.n_atoms.mean()),
            "atoms_per_core_s": median(atoms_per_s(row, sample, per_core_s=True)),
            "times_a": ratio(row, loop, sample),
            "times_a_per_core_s": ratio(row, loop, sample, per_core_s=True),
            "ours_times_this": ratio(ours, row, sample),
            "peak_mb": row.team.peak_mb,
            "max_energy_difference_mev_per_atom": 1e3
            * float(np.nanmax(np.abs(energies(row, sample) - reference) / sample.n_atoms)),
            "stages": row.stages,
        }
    return results


def atoms_per_s(row: Row, sample: Sample, *, per_core_s: bool = False) -> list[float]:
    """Atoms per second of each turn, or per second of processor time: the same whatever else the machine does."""
    return [
        float(sample.n_atoms[t.indices].sum() / (t.core_seconds if per_core_s else t.seconds))
        for t in row.turns
    ]


def ratio(row: Row | None, other: Row | None, sample: Sample, *, per_core_s: bool = False) -> float | None:
    """How many times faster a contestant was than another one in the same round: the median."""
    if row is None or other is None or row.reason is not None or other.reason is not None:
        return None
    pairs = zip(*(atoms_per_s(which, sample, per_core_s=per_core_s) for which in (row, other)), strict=True)
    return median(one / two for one, two in pairs)


def energies(row: Row, sample: Sample) -> np.ndarray:
    values = np.full(len(sample.crystals), np.nan)
    for turn in row.turns:
        values[turn.indices] = turn.energies_ev
    return values
