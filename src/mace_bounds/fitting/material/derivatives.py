"""Features and their derivatives of frames, computed once and kept: nearly all of the time of a fit goes there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import atomic
from mace_bounds.backbones import Backbone, require_gradients
from mace_bounds.features import ExtractSettings, FeatureStore, extract
from mace_bounds.fitting.material.frames import VOIGT, Frame

if TYPE_CHECKING:
    Array = NDArray[np.float64]

_SHARD_ATOMS = 400
FORCES, STRESS = "forces", "stress"

Progress = Callable[[str, int, int], None]
"""Called with what is computed, how many frames are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class GradientRows:
    """Rows of forces or of stress of one frame."""

    kind: str  # FORCES or STRESS
    frame: int
    x: Array  # shape (n, P): derivatives of the features
    y: Array  # shape (n,): label less the frozen model's, eV/Å or eV/Å³


@dataclass(frozen=True, eq=False)
class GradientShards:
    """Files of derivatives of frames, read one at a time."""

    paths: tuple[Path, ...]
    chosen: tuple[int, ...] = field(default=())  # frames that have some, in order

    def rows(self) -> Iterator[GradientRows]:
        """All rows, frame by frame in a definite order."""
        for path in self.paths:
            with np.load(path, allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
            for kind in (FORCES, STRESS):
                frames = arrays[f"{kind}_frame"]
                for frame in np.unique(frames):
                    own = frames == frame
                    x, y = (np.asarray(arrays[f"{kind}_{axis}"][own], dtype=np.float64) for axis in "xy")
                    yield GradientRows(kind, int(frame), x, y)


def feature_store(frames: Sequence[Frame], model: Backbone, folder: Path, progress: Progress) -> FeatureStore:
    """Features and energies of all frames, kept in a folder; a run that was stopped goes on."""
    settings = ExtractSettings(atoms=True, dtype="float64" if model.dtype == "float64" else "float32")
    return extract(
        (frame.record for frame in frames),
        folder,
        model,
        settings,
        progress=lambda done, _: progress("features", done, len(frames)),
    )


def gradient_shards(
    frames: Sequence[Frame], chosen: Sequence[int], model: Backbone, folder: Path, progress: Progress
) -> GradientShards:
    """Derivatives of some frames, kept in files of some hundred atoms; those that are there are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[list[int]] = [[]]
    n_atoms = 0
    for k in chosen:
        if parts[-1] and n_atoms + frames[k].n_atoms > _SHARD_ATOMS:
            parts.append([])
            n_atoms = 0
        parts[-1].append(k)
        n_atoms += frames[k].n_atoms
    done, paths = 0, []
    for part in filter(None, parts):
        key = _hash("\n".join([model.digest, model.dtype, *(_content(k, frames[k]) for k in part)]))
        path = folder / f"{key[:24]}.npz"
        if not path.is_file():
            arrays = _arrays(frames, part, model)
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)
        paths.append(path)
        done += len(part)
        progress("forces", done, len(chosen))
    return GradientShards(tuple(paths), tuple(chosen))


def _arrays(frames: Sequence[Frame], part: Sequence[int], model: Backbone) -> dict[str, Any]:
    crystals = [crystal for k in part if (crystal := frames[k].record.crystal) is not None]
    rows: dict[str, list[tuple[int, Array, Array]]] = {FORCES: [], STRESS: []}
    for k, found in zip(part, require_gradients(model).feature_gradients(crystals), strict=True):
        frame, n = frames[k], found.d_positions.shape[-1]
        if frame.forces_ev_per_a is not None:
            y = frame.forces_ev_per_a - found.forces_ev_a
            rows[FORCES].append((k, -found.d_positions.reshape(-1, n), y.reshape(-1)))
        if frame.stress_ev_per_a3 is not None:
            upper = tuple(np.array(VOIGT).T)
            y = (frame.stress_ev_per_a3 - found.stress_ev_a3)[upper]
            rows[STRESS].append((k, found.d_strain[upper] / found.volume_a3, y))
    n = len(model.columns())
    arrays: dict[str, Any] = {}
    for kind, own in rows.items():
        arrays[f"{kind}_frame"] = np.concatenate(
            [np.full(len(y), k) for k, _, y in own] or [np.empty(0, int)]
        )
        arrays[f"{kind}_x"] = np.concatenate([x for _, x, _ in own] or [np.empty((0, n))]).astype(np.float32)
        arrays[f"{kind}_y"] = np.concatenate([y for _, _, y in own] or [np.empty(0)])
    return arrays


def _content(k: int, frame: Frame) -> str:
    crystal = frame.record.crystal
    sha = hashlib.sha256(b"" if crystal is None else crystal.digest.encode())
    for label in (frame.forces_ev_per_a, frame.stress_ev_per_a3):
        sha.update(b"none" if label is None else np.ascontiguousarray(label, dtype="<f8").tobytes())
    return f"{k} {sha.hexdigest()}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
