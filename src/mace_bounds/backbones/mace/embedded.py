"""Models kept as safetensors + JSON: ``mini``, which ships in the package.  No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

MINI = "mini"
MINI_FOLDER = Path(__file__).parents[2] / "data" / "models" / "mini"
WEIGHTS, CONFIG, CARD = "weights.safetensors", "config.json", "README.md"
SEEN = "training_compositions"
_IRREPS = ("hidden_irreps", "MLP_irreps")
_BLOCKS = ("interaction_cls", "interaction_cls_first")


@dataclass(frozen=True, eq=False)
class EmbeddedModel:
    """A model read from a folder: the module (float64, CPU), what it has seen."""

    module: torch.nn.Module
    training_compositions: NDArray[np.uint64] | None


def build(
    architecture: dict[str, Any], atomic_numbers: list[int], atomic_energies_ev: Any
) -> torch.nn.Module:
    """Build a ``ScaleShiftMACE`` in float64 from plain values (as :data:`CONFIG` keeps them)."""
    modules = _mace.import_mace()
    import numpy as np
    import torch
    from e3nn import o3

    options = dict(architecture)
    options |= {key: o3.Irreps(options[key]) for key in _IRREPS}
    options |= {key: modules.interaction_classes[options[key]] for key in _BLOCKS}
    with _mace.default_dtype(torch.float64), _mace.quiet(), _mace.without_torchscript():
        module: torch.nn.Module = modules.ScaleShiftMACE(
            **options,
            num_elements=len(atomic_numbers),
            gate=torch.nn.functional.silu,
            atomic_energies=np.asarray(atomic_energies_ev, dtype=np.float64),
            atomic_numbers=atomic_numbers,
        )
    return module


def save(
    folder: Path, module: torch.nn.Module, config: dict[str, Any], card: str, seen: NDArray[np.uint64]
) -> None:
    """Write the parameters of ``module`` (float32) and what is needed to rebuild it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().to(torch.float32).contiguous() for name, p in module.named_parameters()}
    tensors[SEEN] = torch.from_numpy(seen.view("int64").copy())
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / CARD).write_text(card)


def folder_of(model: str | Path) -> Path | None:
    """The folder that a name or path stands for; None where it is no such folder."""
    folder = MINI_FOLDER if str(model) == MINI else Path(model)
    return folder if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file() else None


def load(folder: Path) -> EmbeddedModel:
    """Read a model folder: rebuild the network from the configuration, fill in the weights."""
    import torch
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        module = build(config["architecture"], config["atomic_numbers"], config["atomic_energies_ev"])
    except Exception as error:  # mace raises what it likes where an architecture is none
        raise ModelError(
            f"{folder} cannot be read as a model folder with {WEIGHTS} and {CONFIG} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); point to a complete folder."
        ) from error
    seen = tensors.pop(SEEN, None)
    parameters = dict(module.named_parameters())
    if {k: v.shape for k, v in parameters.items()} != {k: v.shape for k, v in tensors.items()}:
        raise ModelError(
            f"names or shapes of the weights in {folder} do not fit its {CONFIG}; make or install it anew."
        )
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)
    return EmbeddedModel(module, None if seen is None else seen.numpy().view("uint64"))
