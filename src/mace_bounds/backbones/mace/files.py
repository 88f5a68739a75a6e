"""Where the weights of a model are, or where they would come from, without loading them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mace_bounds.backbones.base import ModelInfo, WeightsFile
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace import embedded as _embedded
from mace_bounds.errors import ModelError, nearest

MPA_0_BYTES = 79_462_305  # a known fact, never measured by this project


PUBLISHED = {"mp-0": "medium", "mp-0a": "medium", "mp-0b": "medium-0b", "mp-0b2": "medium-0b2", "mp-0b3": "medium-0b3",
             "mpa-0": "medium-mpa-0", "omat-0": "medium-omat-0"}  # fmt: skip
"""Names of papers and leaderboards, without MACE, to mace's own: where there are several sizes, the medium one."""


def canonical(model: str | Path) -> str | Path:
    """Return mace's own name for any way to write it (``MACE-MPA-0``, ``mpa-0``, ``Mini``); all else as it is.

    Letter case, punctuation and the word MACE do not matter, nor does the order of size and name (``mp-0-small``).
    """
    given = str(model)
    if given in (_embedded.MINI, _mace.MPA_0) or Path(given).exists() or "/" in given:
        return model
    if given in _mace.names():
        return model
    return _aliases(tuple(_mace.names())).get(_bare(given), model)


@lru_cache(maxsize=1)
def _aliases(names: tuple[str, ...]) -> dict[str, str]:
    aliases = {_bare(published): name for published, name in PUBLISHED.items() if name in names}
    for published, medium in PUBLISHED.items():
        for size in ("small", "medium", "large"):
            if (name := medium.replace("medium", size)) in names:
                aliases |= {_bare(f"{size}-{published}"): name, _bare(f"{published}-{size}"): name}
    return aliases | {_bare(name): name for name in (*names, _embedded.MINI)}


def _bare(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()).removeprefix("mace")


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
    model = canonical(model)
    path = _embedded.MINI_FOLDER if str(model) == _embedded.MINI else Path(model)
    path = path / _embedded.WEIGHTS if path.is_dir() else path
    if not is_known_name(model):
        if path.is_file():
            return WeightsFile(str(model), path, True, None, path.stat().st_size)
        raise ModelError(
            f"{str(model)!r} is neither mini, nor a name that mace knows, nor an existing file"
            f"{nearest(str(model), [_embedded.MINI, *_mace.names()]) or '; mace-bounds models lists what there is.'}"
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
