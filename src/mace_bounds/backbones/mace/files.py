"""Where the weights of a model are, or where they would come from, without loading them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from mace_bounds.backbones.base import ModelInfo, WeightsFile
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace import embedded as _embedded
from mace_bounds.errors import ModelError

MPA_0_BYTES = 79_462_305  # a known fact, never measured by this project


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
    return "MACE-MPA-0, the default" if name == _mace.MPA_0 else "foundation model of mace"


def is_known_name(model: str | Path) -> bool:
    """Whether mace downloads a model of this name; such a name never stands for a file that happens to be called so."""
    # A path is never tried as a name: mace would fall back to its default model.
    return re.fullmatch(r"[\w-]+", str(model)) is not None and str(model) in _mace.names()


def find_weights(model: str | Path) -> WeightsFile:
    """As :func:`mace_bounds.backbones.find_weights`."""
    path = _embedded.MINI_FOLDER if str(model) == _embedded.MINI else Path(model)
    path = path / _embedded.WEIGHTS if path.is_dir() else path
    if not is_known_name(model):
        if path.is_file():
            return WeightsFile(str(model), path, True, None, path.stat().st_size)
        raise ModelError(
            f"{str(model)!r} is neither mini, nor a name that mace knows, nor an existing file; "
            "mace-bounds models lists what there is."
        )
    path, url = _mace.cache_file(str(model))
    here = path.is_file()
    known = MPA_0_BYTES if str(model) == _mace.MPA_0 else None
    return WeightsFile(str(model), path, here, url, path.stat().st_size if here else known)


def fetch_weights(model: str | Path) -> WeightsFile:
    """As :func:`mace_bounds.backbones.fetch_weights`; mace downloads into its own cache."""
    weights = find_weights(model)
    if weights.here:
        return weights
    path = _mace.fetch(weights.model)
    return replace(weights, path=path, here=True, size_bytes=path.stat().st_size)
