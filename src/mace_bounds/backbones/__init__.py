"""Frozen networks: crystals in, exact last-layer features and energies out.

Every family of models is a folder here and a line of :data:`FAMILIES`; nothing outside of a family's folder knows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds.backbones.base import (
    Backbone,
    Family,
    FeatureBlock,
    FeatureKind,
    ModelInfo,
    WeightsFile,
    tensor_digest,
)
from mace_bounds.backbones.chgnet import ChgnetFamily, mp2020_correction_ev
from mace_bounds.backbones.golden import FEW, Golden, golden_cells, golden_of
from mace_bounds.backbones.gradients import (
    Derivatives,
    DifferentiableBackbone,
    Evaluation,
    FeatureGradients,
    require_gradients,
)
from mace_bounds.backbones.mace import MaceFamily
from mace_bounds.errors import ModelError
from mace_bounds.structures import joined_keys, read_compositions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = [
    "DEFAULT_MODEL",
    "FEW",
    "Backbone",
    "Derivatives",
    "DifferentiableBackbone",
    "Evaluation",
    "FeatureBlock",
    "FeatureGradients",
    "FeatureKind",
    "Golden",
    "ModelInfo",
    "WeightsFile",
    "digest_of",
    "fetch_weights",
    "find_weights",
    "golden_cells",
    "golden_of",
    "list_models",
    "load_model",
    "mp2020_correction_ev",
    "require_gradients",
    "tensor_digest",
    "training_compositions",
]

DEFAULT_MODEL = "medium-mpa-0"

FAMILIES: dict[str, Family] = {"chgnet": ChgnetFamily(), "mace": MaceFamily()}
"""Asked in this order. mace comes last: it takes every name that no other knows."""


def load_model(
    model: str | Path | torch.nn.Module | Backbone = DEFAULT_MODEL,
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    memory_bytes: float | None = None,
) -> Backbone:
    """Load a model and take its readout off.

    Parameters
    ----------
    model : str, Path, torch.nn.Module or Backbone
        ``"mini"``, ``"chgnet"``, a name that mace knows (``"medium-mpa-0"``; downloaded once by mace), the path of a
        checkpoint or of a folder as ``mini`` is kept in, a mace model as an object, or a backbone, which is returned
        as it is.
    head : str, optional
        Which of several readouts; needed only where none is called ``"default"``.
    dtype : {"float32", "float64"}
        Precision of the forward.
    device : {"auto", "cpu", "cuda"}
        ``"auto"`` takes CUDA where there is one.
    memory_bytes : float, optional
        Memory for a batch beside the model; 256 MB on a CPU, 8 GB on CUDA. Numbers depend on it by round-off only.

    Returns
    -------
    Backbone

    Raises
    ------
    ModelError
        If it cannot be found, loaded or split.
    """
    if not isinstance(model, (str, Path)) and isinstance(model, Backbone):
        return model
    return _family(model).load(model, head=head, dtype=dtype, device=device, memory_bytes=memory_bytes)


def list_models() -> list[ModelInfo]:
    """List the models that can be named, those of mace first."""
    return [model for family in reversed(FAMILIES.values()) for model in family.list_models()]


def find_weights(model: str | Path) -> WeightsFile:
    """Say where the weights of a model are; nothing is fetched.

    Parameters
    ----------
    model : str or Path
        A name of :func:`list_models`, the path of a checkpoint, or a folder as ``mini`` is kept in.

    Raises
    ------
    ModelError
        If it is none of these.
    """
    return _family(model).find_weights(model)


def fetch_weights(model: str | Path) -> WeightsFile:
    """Download the weights of a named model into its family's cache, once; others must be here.

    Raises
    ------
    ModelError
        If the model is not known, or the download fails.
    """
    return _family(model).fetch_weights(model)


def digest_of(model: str | Path | Backbone) -> str | None:
    """:attr:`Backbone.digest` of a model where it is known without loading the model, else None."""
    return model.digest if isinstance(model, Backbone) else _family(model).digest_of(model)


def training_compositions(
    model: str | Path | Backbone, digest: str, trained_on: str | None = None
) -> NDArray[np.uint64] | None:
    """Compositions that the training of a model has seen, without loading the model.

    Parameters
    ----------
    model : str, Path or Backbone
        Whatever :func:`load_model` takes.
    digest : str
        :attr:`Backbone.digest` that it must have.
    trained_on : str, optional
        What the user says that it was trained on (:func:`mace_bounds.structures.read_compositions`).

    Returns
    -------
    ndarray of uint64 or None
        Sorted keys (:func:`mace_bounds.structures.composition_key`), or None where they are not known.

    Raises
    ------
    ModelError
        If what is found under this name is another model than ``digest`` says.
    SourceError
        If ``trained_on`` cannot be read.
    """
    given = None if trained_on is None else read_compositions(trained_on)
    if not isinstance(model, Backbone):
        return joined_keys(_family(model).training_compositions(model, digest), given)
    if model.digest != digest:
        raise ModelError(
            f"the model {model.name} ({model.digest[:12]}) is not the one that the features were extracted with "
            f"({digest[:12]}); pass that one."
        )
    return joined_keys(model.training_compositions, given)


def _family(model: object) -> Family:
    for family in FAMILIES.values():
        if family.knows(model):
            return family
    raise ModelError(
        f"a {type(model).__name__} is no model; give a name, a path, a torch module, or an object with the members of "
        "mace_bounds.backbones.Backbone."
    )
