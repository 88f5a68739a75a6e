"""MACE as a training_keys: loading, exact split of the readout, re-arranged forward."""

from mace_bounds.backbones.mace.embedded import (
    training_compositions,
    weights_digest,
)
from mace_bounds.backbones.mace.frozen import (
    DEFAULT_MODEL,
    FrozenModel,
    load_model,
)
from mace_bounds.backbones.mace.weights import (
    Weights,
    fetch_weights,
    find_weights,
)

__all__ = [
    "DEFAULT_MODEL",
    "FrozenModel",
    "Weights",
    "fetch_weights",
    "find_weights",
    "load_model",
    "training_compositions",
    "weights_digest",
]
