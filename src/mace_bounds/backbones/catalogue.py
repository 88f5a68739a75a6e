"""Which models can be named."""

from __future__ import annotations

from dataclasses import dataclass

from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace import embedded as _embedded


@dataclass(frozen=True)
class ModelInfo:
    """A model that :func:`mace_bounds.backbones.mace.load_model` knows by name.

    Attributes
    ----------
    name : str
    here : bool
        Whether its weights are on this machine.
    description : str
    """

    name: str
    here: bool
    description: str


def list_models() -> list[ModelInfo]:
    """List ``mini`` and the foundation models that mace downloads, in mace's order."""
    mini = ModelInfo(
        _embedded.MINI,
        (_embedded.MINI_FOLDER / _embedded.WEIGHTS).is_file(),
        "small MACE of this project, for trying things out; ships with the package",
    )
    return [
        mini,
        *(ModelInfo(name, _mace.cache_file(name)[0].is_file(), _described(name)) for name in _mace.names()),
    ]


def _described(name: str) -> str:
    return "MACE-MPA-0, the default" if name == _mace.DEFAULT_NAME else "foundation model of mace"
