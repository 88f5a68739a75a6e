"""Which frames an epoch of ``train_mini.py`` shows, and in which batches."""

from __future__ import annotations

import numpy as np

from mini_frames import Frame

EDGES_PER_BATCH, GRAPHS_PER_BATCH = 8000, 48
TEACHER_SHARE = (0.5, 0.15)  # of its frames in an epoch, before and after TEACHER_FRACTION
SCAN_SHARE = 0.5


def make_batches(indices: np.ndarray, edges: np.ndarray) -> list[list[int]]:
    batches, current, total = [], [], 0
    for i in indices:
        if current and (total + edges[i] > EDGES_PER_BATCH or len(current) >= GRAPHS_PER_BATCH):
            batches.append(current)
            current, total = [], 0
        current.append(int(i))
        total += edges[i]
    return [*batches, current] if current else batches


def share(frame: Frame, late: bool) -> float:
    """How much of a source an epoch shows.

    Half of the frames at pressure (they repeat the crystals at 0 GPa), and half of those with forces (they cost
    three times as much).
    """
    if frame.source == "teacher":
        return TEACHER_SHARE[late]
    if frame.source == "mpa0_scan":
        return SCAN_SHARE
    return 0.5 if frame.source.endswith(("P025", "P050")) or frame.forces_ev_a is not None else 1.0


def epoch_batches(
    indices: np.ndarray,
    frames: list[Frame],
    edges: np.ndarray,
    rng: np.random.Generator,
    ranks: int,
    late: bool,
) -> list[list[list[int]]]:
    """Steps of one epoch: a batch per rank, all of one kind (with or without forces)."""
    shares = np.array([share(frames[i], late) for i in indices])
    kept = rng.permutation(indices[rng.random(len(indices)) < shares])
    with_forces = np.array([frames[i].forces_ev_a is not None for i in kept])
    steps = []
    for group in (kept[with_forces], kept[~with_forces]):
        batches = make_batches(group, edges)
        steps += [batches[k : k + ranks] for k in range(0, len(batches) - ranks + 1, ranks)]
    return [steps[k] for k in rng.permutation(len(steps))]
