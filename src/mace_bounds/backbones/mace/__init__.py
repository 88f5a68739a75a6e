"""MACE: loading, the exact split of the readout, a re-arranged forward.

Nothing here imports mace or torch before a model is loaded, or mace's list of names is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.backbones.mace import files as _files
from mace_bounds.backbones.mace import identity as _identity
from mace_bounds.backbones.mace.backbone import MaceBackbone, load_mace

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mace_bounds.backbones.base import ModelInfo, WeightsFile

__all__ = ["MaceBackbone", "MaceFamily", "load_mace"]


class MaceFamily:
    """``mini``, mace's foundation models, checkpoints as mace writes them, and model objects."""

    def knows(self, model: object) -> bool:
        """Any name, path or torch module; one that is none of ours is refused when it is looked for."""
        return isinstance(model, (str, Path)) or hasattr(model, "state_dict")

    def load(
        self,
        model: str | Path | torch.nn.Module,
        *,
        head: str | None,
        dtype: str,
        device: str,
        memory_bytes: float | None,
    ) -> MaceBackbone:
        """Load a model, split its readout off, and check the split on a small cell."""
        return load_mace(model, head=head, dtype=dtype, device=device, memory_bytes=memory_bytes)

    def list_models(self) -> list[ModelInfo]:
        """``mini`` and the foundation models that mace downloads, in mace's order."""
        return _files.list_models()

    def find_weights(self, model: str | Path) -> WeightsFile:
        """Where the weights are, also those that mace would download."""
        return _files.find_weights(model)

    def fetch_weights(self, model: str | Path) -> WeightsFile:
        """The weights, downloaded by mace into its own cache where they are not here."""
        return _files.fetch_weights(model)

    def digest_of(self, model: str | Path) -> str | None:
        """Known for ``mini``, for folders like it, and for what this process has loaded."""
        return _identity.digest_of(model)

    def training_compositions(self, model: str | Path, digest: str) -> NDArray[np.uint64] | None:
        """Known for ``mini`` and for folders like it that say so."""
        return _identity.training_compositions(model, digest)
