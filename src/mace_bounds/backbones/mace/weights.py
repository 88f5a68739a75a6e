"""Where the weights of a model are, or where they would come from, without loading them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace import embedded as _embedded
from mace_bounds.errors import ModelError

MPA_0_BYTES = 79_462_305  # a known fact, never measured by this project


@dataclass(frozen=True)
class Weights:
    """The file of a model's weights.

    Attributes
    ----------
    model : str
        What the user called it: a name, or a path.
    path : Path
        Where the file is, or where mace will put it.
    here : bool
        Whether it is there.
    url : str or None
        Where mace fetches it from; None for what is never fetched.
    size_bytes : int or None
        Of the file; where it is not here, what is known of it.
    """

    model: str
    path: Path
    here: bool
    url: str | None
    size_bytes: int | None


def find_weights(model: str | Path) -> Weights:
    """Say where the weights of a model are; nothing is fetched.

    Parameters
    ----------
    model : str or Path
        ``"mini"``, a name that mace knows, the path of a checkpoint, or a folder as ``mini`` is kept in.

    Raises
    ------
    ModelError
        If it is none of these.
    """
    path = _embedded.MINI_FOLDER if str(model) == _embedded.MINI else Path(model)
    path = path / _embedded.WEIGHTS if path.is_dir() else path
    if path.is_file():
        return Weights(str(model), path, True, None, path.stat().st_size)
    # A path is never tried as a name: mace would fall back to its default model.
    if re.fullmatch(r"[\w-]+", str(model)) is None or str(model) not in _mace.names():
        raise ModelError(
            f"expected mini, a name that mace knows or an existing file, got {str(model)!r}; "
            "mace-bounds models lists what there is."
        )
    path, url = _mace.cache_file(str(model))
    here = path.is_file()
    known = MPA_0_BYTES if str(model) == _mace.DEFAULT_NAME else None
    return Weights(str(model), path, here, url, path.stat().st_size if here else known)


def fetch_weights(model: str | Path) -> Weights:
    """Let mace download the weights of a named model into its cache, once; others must be here.

    Raises
    ------
    ModelError
        If the model is not known, or the download fails.
    """
    weights = find_weights(model)
    if weights.here:
        return weights
    path = _mace.fetch(weights.model)
    return replace(weights, path=path, here=True, size_bytes=path.stat().st_size)
