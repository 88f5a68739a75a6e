"""MACE: loading, the exact split of the readout, a re-arranged forward.

Nothing here imports mace or torch before a model is loaded, or mace's list of names is needed.
"""

from pathlib import Path

from mace_bounds.backbones.mace import files, identity
from mace_bounds.backbones.mace.backbone import MaceBackbone, load_mace

__all__ = ["MaceBackbone", "MaceFamily", "load_mace"]


class MaceFamily:
    """``mini``, mace's foundation models, checkpoints as mace writes them, and model objects."""

    def knows(self, model: object) -> bool:
        """Any name, path or torch module; one that is none of ours is refused when it is looked for."""
        return isinstance(model, (str, Path)) or hasattr(model, "state_dict")

    load = staticmethod(load_mace)
    list_models = staticmethod(files.list_models)
    find_weights = staticmethod(files.find_weights)
    fetch_weights = staticmethod(files.fetch_weights)
    digest_of = staticmethod(identity.digest_of)
    training_compositions = staticmethod(identity.training_compositions)
