"""The weights of CHGNet 0.3.0, from the installed package ``chgnet``, whose code is not needed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds._io import file_sha256
from mace_bounds.errors import ModelError

if TYPE_CHECKING:
    import torch

NAME = "chgnet"
ALIASES = {"chgnet", "chgnet0.3.0", "chgnet0.3", "chgnetv0.3.0", "chgnetmptrj"}
"""Ways to write it, without blanks, hyphens, underscores and letter case."""

DIGEST = "08efb6ef2c111900343b62d514817130c83784036175b956b1b9adcf8e9ae5bd"
"""Digest of its tensors (:func:`mace_bounds.backbones.tensor_digest`)."""

_FILE = Path("pretrained", "0.3.0", "chgnet_0.3.0_e29f68s314m37.pth.tar")
_SHA256 = "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1"
INSTALL = 'pip install "mace-bounds[chgnet]"'


def is_chgnet(model: object) -> bool:
    """Whether a name is that of CHGNet 0.3.0, however it is written."""
    bare = "".join(c for c in str(model).casefold() if c not in " -_")
    return isinstance(model, (str, Path)) and bare in ALIASES


def find_file() -> Path | None:
    """The file of the weights; None where the package is not installed."""
    spec = find_spec("chgnet")  # nothing of it is imported
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / _FILE
    return path if path.is_file() else None


def require_file() -> Path:
    """The file of the weights; ModelError with what to install where it is not here."""
    path = find_file()
    if path is None:
        raise ModelError(f"CHGNet 0.3.0 comes with the package chgnet, which is not installed: {INSTALL}.")
    return path


def read_weights() -> dict[str, torch.Tensor]:
    """Tensors of the checkpoint by their names, on the CPU.

    The file is compared with a known hash, and read without running code from it.

    Raises
    ------
    ModelError
        If the package is not installed, or its file is another one.
    """
    import torch

    path = require_file()
    if file_sha256(path) != _SHA256:
        raise ModelError(
            f"{path} is not the file of CHGNet 0.3.0 that is known here; install chgnet again (0.4.0 or newer)."
        )
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["model"][
        "state_dict"
    ]
    return state
