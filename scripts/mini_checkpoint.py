"""Where a run of ``train_mini.py`` begins and where it stands: weights of an earlier one, and checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mace_bounds._io import atomic
from mace_bounds.backbones.mace import embedded

if TYPE_CHECKING:
    from train_mini import Trainer

EVERY_S = 120.0  # processor time between checkpoints: what a kill can cost


@dataclass(frozen=True)
class Start:
    """What a run takes from an earlier one of the same architecture."""

    weights: dict[str, torch.Tensor]  # by the names of the network's parameters
    atomic_energies_ev: np.ndarray
    architecture: dict[str, Any]  # with ``scale`` and ``avg_num_neighbors``


def read_start(model: str) -> Start:
    """Weights of a packaged model (``mini``, or a folder of ``package_mini.py``), or of a finished run."""
    if folder := embedded.folder_of(model):
        config = json.loads((folder / embedded.CONFIG).read_text())
        architecture = dict(config["architecture"])
        architecture["scale"] = architecture.pop("atomic_inter_scale")
        weights = {name: p.detach() for name, p in embedded.load(folder).module.named_parameters()}
    else:
        config = json.loads((Path(model) / "result.json").read_text())
        architecture = config["architecture"]
        weights = torch.load(Path(model) / "average.pt", weights_only=True)
    return Start(weights, np.array(config["atomic_energies_ev"]), architecture)


@dataclass
class Place:
    """How far a run has come."""

    spent_s: float = 0.0  # processor time of each process
    steps: int = 0  # altogether
    epoch: int = 0  # epochs that are finished
    step: int = 0  # steps of the next that are done
    late: bool = False  # whether that one shows the teacher less often


def write_checkpoint(path: Path, trainer: Trainer, place: Place) -> None:
    """All of a run; a kill leaves the old file or the new one."""
    parts = {name: part.state_dict() for name, part in trainer.parts().items()}
    with atomic(path) as temporary:
        torch.save({**parts, "place": asdict(place)}, temporary)


def read_checkpoint(path: Path, trainer: Trainer) -> Place:
    """Bring a run to where it was; a new one stands at its beginning."""
    if not path.exists():
        return Place()
    state = torch.load(path, weights_only=True)
    for name, part in trainer.parts().items():
        part.load_state_dict(state[name])
    return Place(**state["place"])
