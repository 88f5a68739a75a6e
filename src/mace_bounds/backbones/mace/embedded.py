"""Models kept as safetensors + JSON: ``mini``, which ships in the package.  No pickle."""

from __future__ import annotations

import hashlib
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
    """A model read from a folder: the module (float64, CPU), the digest of its weights, what it has seen."""

    module: torch.nn.Module
    digest: str
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


def load(folder: Path) -> EmbeddedModel:
    """Read a model folder: rebuild the network from the configuration, fill in the weights.

    Raises
    ------
    ModelError
        If the folder does not hold such a model, or weights and configuration disagree.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        module = build(config["architecture"], config["atomic_numbers"], config["atomic_energies_ev"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"expected a model folder with {WEIGHTS} and {CONFIG} in {folder}, but reading it failed "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); point to a complete folder."
        ) from error
    seen = tensors.pop(SEEN, None)
    parameters = dict(module.named_parameters())
    if {k: v.shape for k, v in parameters.items()} != {k: v.shape for k, v in tensors.items()}:
        raise ModelError(
            f"expected weights that fit {folder / CONFIG}, but names or shapes differ; reinstall it."
        )
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)
    return EmbeddedModel(module, digest, None if seen is None else seen.numpy().view("uint64"))


def training_compositions(model: str | Path, digest: str) -> NDArray[np.uint64] | None:
    """Compositions that the training of an embedded model has seen, without building the model.

    Parameters
    ----------
    model : str or path
        ``"mini"``, or the folder of a model of the same format; nothing is known of any other.
    digest : str
        SHA-256 that the weights must have.

    Returns
    -------
    ndarray of uint64 or None
        Sorted keys (:func:`mace_bounds.structures.composition_key`), or None where they are not known.

    Raises
    ------
    ModelError
        If the folder's weights are others than ``digest`` says.
    """
    folder = MINI_FOLDER if str(model) == MINI else Path(model)
    weights = folder / WEIGHTS
    if not weights.is_file():
        return None
    from safetensors import safe_open

    found = digest_of(folder)
    if found != digest:
        raise ModelError(
            f"expected the weights {digest[:12]} in {folder}, got {str(found)[:12]}; "
            "use the model that the features were extracted with."
        )
    with safe_open(weights, framework="numpy") as tensors:
        return tensors.get_tensor(SEEN).view("uint64") if SEEN in tensors.keys() else None  # noqa: SIM118


def digest_of(model: str | Path) -> str | None:
    """SHA-256 of the weights that a name or path stands for, read from disk; None for names of mace."""
    path = MINI_FOLDER if str(model) == MINI else Path(model)
    path = path / WEIGHTS if path.is_dir() else path
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
