"""MACE: loading, the exact split of the readout, a re-arranged forward.

Nothing here imports mace or torch before a model is loaded, or mace's list of names is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace import files, identity
from mace_bounds.backbones.mace.backbone import MaceBackbone, load_mace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MaceBackbone", "MaceFamily", "load_mace"]


class MaceFamily:
    """``mini``, mace's foundation models, checkpoints as mace writes them, and model objects."""

    def knows(self, model: object) -> bool:
        """Any name, path or torch module; one that is none of ours is refused when it is looked for."""
        return isinstance(model, (str, Path)) or hasattr(model, "state_dict")

    def load(self, model: Any, **options: Any) -> MaceBackbone:
        """:func:`load_mace`, also by the names of papers."""
        return load_mace(files.canonical(model) if isinstance(model, (str, Path)) else model, **options)

    def training_compositions(self, model: str | Path, digest: str) -> NDArray[np.uint64] | None:
        """:func:`identity.training_compositions`, also by the names of papers."""
        return identity.training_compositions(files.canonical(model), digest)

    list_models = staticmethod(files.list_models)
    find_weights = staticmethod(files.find_weights)
    fetch_weights = staticmethod(files.fetch_weights)
    digest_of = staticmethod(identity.digest_of)
