"""Which MACE a model is, and what its training has seen: told from small files where that is possible."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import file_sha256
from mace_bounds.backbones.base import tensor_digest
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace.embedded import CONFIG, SEEN, WEIGHTS, folder_of
from mace_bounds.errors import ModelError
from mace_bounds.structures import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_loaded: dict[tuple[str, int, int], str] = {}


def module_digest(module: Any) -> str:
    """:func:`mace_bounds.backbones.base.tensor_digest` of what training, or whoever built the model, has set.

    The tensors are all parameters under their names, and ``atomic_numbers`` (n_elements,), ``atomic_energies_ev``
    (n_heads, n_elements), ``scale`` and ``shift_ev`` (n_heads,) and ``cutoff_a`` (). Other buffers follow from the
    architecture: they are computed anew, with other round-off on other machines.
    """
    import torch

    n_heads = len(_mace.head_names(module))
    tensors = dict(module.named_parameters()) | {
        "atomic_numbers": module.atomic_numbers,
        "atomic_energies_ev": module.atomic_energies_fn.atomic_energies.reshape(n_heads, -1),
        "scale": module.scale_shift.scale.reshape(-1),
        "shift_ev": module.scale_shift.shift.reshape(-1),
        "cutoff_a": module.r_max.reshape(()),
    }
    return tensor_digest(tensors, lambda name: tensors[name].detach().to("cpu", torch.float32).numpy())


def module_layout(module: Any) -> str:
    """SHA-256 of the names and shapes of the parameters, hex."""
    text = "".join(f"{name}\0{tuple(tensor.shape)}\0" for name, tensor in sorted(module.named_parameters()))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(model: str | Path) -> str | None:
    """Digest of a folder as ``mini`` is kept in, or of a name or file that this process has loaded; else None."""
    folder = folder_of(model)
    if folder is not None:
        return _folder_digest(folder, file_sha256(folder / WEIGHTS), file_sha256(folder / CONFIG))
    return _loaded.get(_key(model))


def remember(model: str | Path, digest: str) -> None:
    """Keep the digest of a loaded model, so that it can be told again without loading it."""
    _loaded[_key(model)] = digest


def _key(model: str | Path) -> tuple[str, int, int]:
    path = Path(model)
    if not path.is_file():
        return str(model), 0, 0
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _folder_digest(folder: Path, weights_sha256: str, config_sha256: str) -> str:  # noqa: ARG001 - part of the key
    """What :func:`module_digest` gives for the model in a folder, from its files alone."""
    from safetensors import SafetensorError, safe_open

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        options = config["architecture"]
        constants = {
            "atomic_numbers": config["atomic_numbers"],
            "atomic_energies_ev": [config["atomic_energies_ev"]],
            "scale": [options["atomic_inter_scale"]],
            "shift_ev": [options["atomic_inter_shift"]],
            "cutoff_a": options["r_max"],
        }
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            names = [name for name in file.keys() if name != SEEN]  # noqa: SIM118 - it is no mapping
            return tensor_digest(
                [*constants, *names],
                lambda name: constants[name] if name in constants else file.get_tensor(name),
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(
            f"the model folder {folder} is damaged ({one_line(error)}); copy it again, with {WEIGHTS} and {CONFIG}."
        ) from error


def training_compositions(model: str | Path, digest: str) -> NDArray[np.uint64] | None:
    """Compositions that a model's training has seen, as :func:`mace_bounds.backbones.training_compositions`."""
    folder, found = folder_of(model), digest_of(model)
    if folder is None:
        return None
    if found != digest:
        raise ModelError(
            f"the model in {folder} ({str(found)[:12]}) is not the one that the features were extracted with "
            f"({digest[:12]}); use that one."
        )
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        return file.get_tensor(SEEN).view("uint64") if SEEN in file.keys() else None  # noqa: SIM118
