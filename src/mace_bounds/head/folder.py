"""The folder of a head: ``head.safetensors``, ``config.json``, ``README.md``; reading it runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import atomic_folder
from mace_bounds.errors import HeadError

FORMAT = 1
"""The one format of a head folder that this version writes and reads."""
TENSORS, CONFIG, CARD = "head.safetensors", "config.json", "README.md"
BESIDE = ("joint.safetensors",)
"""Further files that a head folder may have; a head without them is whole."""
_MAX_TENSOR_BYTES = 1 << 30
_MAX_CONFIG_BYTES = 16 << 20
_DTYPES = ("float64", "float32", "int64", "int32", "uint8", "bool")
_BY_KIND = {"f": "float64", "i": "int64", "b": "bool", "u": "uint8"}
_LARGEST = 1e100  # no number of a head is near; what is larger overflows where it is squared
SMALLEST = 1 / _LARGEST
"""What is smaller is no width that could be divided by."""
_NARROWED = "float32"
"""Names of the arrays that a file keeps in float32 although they are float64."""
_NARROW_SIZE = 1024  # shorter ones take no room
RESERVED = ("format", "digest", _NARROWED)


def write_head(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    card: str,
    *,
    overwrite: bool = False,
    beside: Mapping[str, bytes] | None = None,
    narrow: bool = False,
) -> Path:
    """Write a head folder in one step: it is complete or not there.

    Parameters
    ----------
    folder : path
        Where the head goes; its parent is created.
    tensors : mapping of str to ndarray
        The numbers: float64, float32, int64, int32, uint8 or bool, no NaN.
    config : mapping
        JSON values; ``format`` and ``digest`` are added.
    card : str
        The model card, Markdown.
    overwrite : bool
        Replace a head that is already there; a folder that is not a head is never replaced.
    beside : mapping of str to bytes, optional
        Further files, by their names in :data:`BESIDE`.
    narrow : bool
        Keep long arrays of float64 in float32, for a file of half the size; they are float64 again when they are read.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    HeadError
        If the folder may not be replaced, or a tensor or setting cannot be stored.
    """
    from safetensors.numpy import save

    target = Path(folder)
    check_head_target(target, overwrite=overwrite)
    arrays = {name: _storable(name, array) for name, array in sorted(tensors.items())}
    narrowed = [name for name, array in arrays.items() if narrow and _may_be_narrow(array)]
    data = save(arrays | {name: arrays[name].astype(np.float32) for name in narrowed})
    reserved = [name for name in RESERVED if name in config]
    if reserved:
        raise HeadError(
            f"the head's config may not hold {reserved[0]!r}, which the file format sets; rename it."
        )
    content = {**config, "format": FORMAT} | ({_NARROWED: narrowed} if narrowed else {})
    content["digest"] = _digest(content, data)
    text = _json(content, indent=2) + b"\n"
    with atomic_folder(target) as made:
        written = {TENSORS: data, CONFIG: text, CARD: card.encode("utf-8"), **(beside or {})}
        for name, blob in written.items():
            (made / name).write_bytes(blob)
    return target


def read_beside(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """Further files of a head folder, those of :data:`BESIDE` that are there; unread."""
    path = Path(folder)
    return {name: _read(path / name, _MAX_TENSOR_BYTES) for name in BESIDE if (path / name).is_file()}


def read_head_folder(folder: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a head folder without running code from it.

    Parameters
    ----------
    folder : path
        A folder that :func:`write_head` made.

    Returns
    -------
    tensors : dict of str to ndarray
        The numbers.
    config : dict
        The settings, with ``format`` and ``digest``.

    Raises
    ------
    HeadError
        If the folder is no head, of another format, too large, truncated or changed since it was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder)
    if not path.is_dir():
        raise HeadError(f"there is no head folder at {path}; fit a head or check the path.")
    text = _read(path / CONFIG, _MAX_CONFIG_BYTES)
    data = _read(path / TENSORS, _MAX_TENSOR_BYTES)
    try:
        config = json.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise HeadError(f"{path / CONFIG} is not valid JSON; fit or download the head again.") from None
    if not isinstance(config, dict) or "format" not in config:
        raise HeadError(f"{path / CONFIG} does not describe a head; check the path.")
    if config["format"] != FORMAT or isinstance(config["format"], bool):
        raise HeadError(
            f"the head at {path} has format {config['format']!r}, and this version reads format {FORMAT}; "
            "fit it again, or use the version that wrote it."
        )
    if config.get("digest") != _digest(config, data):
        raise HeadError(
            f"the head at {path} is damaged or was changed after it was written; fit or download it again."
        )
    try:
        tensors: dict[str, NDArray[Any]] = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise HeadError(
            f"{path / TENSORS} is not a safetensors file; fit or download the head again."
        ) from None
    narrowed = config.get(_NARROWED)
    for name in [name for name in tensors if isinstance(narrowed, list) and name in narrowed]:
        tensors[name] = tensors[name].astype(np.float64)
    return {name: _storable(name, array) for name, array in sorted(tensors.items())}, config


def is_head_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder looks like a head (its config says so); says nothing about its contents."""
    try:
        config = json.loads(_read(Path(folder) / CONFIG, _MAX_CONFIG_BYTES))
    except (HeadError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "format" in config and "digest" in config


def check_head_target(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse (:class:`HeadError`) a folder that :func:`write_head` would not write, before there is a head to write."""
    target = Path(folder)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not is_head_folder(target):
        raise HeadError(f"{target} exists and is not a head folder; choose another place.")
    if not overwrite:
        raise HeadError(
            f"{target} already holds a head; choose another place or allow overwriting (--overwrite)."
        )


def read_tensor(
    tensors: Mapping[str, NDArray[Any]],
    name: str,
    shape: tuple[int | None, ...],
    kind: str = "f",
    *,
    infinite: bool = False,
) -> NDArray[Any]:
    """One tensor of a head, checked.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        All of them.
    name : str
        Which one.
    shape : tuple
        Its shape, None for a length that may be any.
    kind : str
        Kind of its dtype, as numpy abbreviates it: floating point by default. Numbers have 64 bits, but for unsigned
        ones, which have 8, and where it names another size (``"f4"``).
    infinite : bool
        Whether its values may be infinite.

    Raises
    ------
    HeadError
        If it is missing, of another shape or kind, or not finite.
    """
    if name not in tensors:
        raise HeadError(f"the head holds no tensor {name!r}; fit or download it again.")
    array = np.asarray(tensors[name])
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    wrong = array.dtype != _BY_KIND.get(kind, kind)
    if not fits or wrong or not (infinite or (np.abs(np.asarray(array, dtype=np.float64)) <= _LARGEST).all()):
        raise HeadError(
            f"the head's tensor {name!r} is not finite, or of another shape or type than {shape} {kind!r} "
            f"({array.shape} {array.dtype}); fit or download it again."
        )
    return array


def tensors_under(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Tensors whose names begin with ``prefix.``, by the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}


def tensors_named(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The same tensors under names that begin with ``prefix.``."""
    return {f"{prefix}.{name}": array for name, array in tensors.items()}


def _may_be_narrow(array: NDArray[Any]) -> bool:
    largest = np.finfo(np.float32).max
    return array.dtype == np.float64 and array.size >= _NARROW_SIZE and bool((np.abs(array) <= largest).all())


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    a = np.asarray(array)
    if a.dtype.name not in _DTYPES:
        raise HeadError(
            f"tensor {name!r} has dtype {a.dtype}, which a head cannot hold; convert it to one of {', '.join(_DTYPES)}."
        )
    if a.dtype.kind == "f" and np.isnan(a).any():
        raise HeadError(f"tensor {name!r} holds NaN; fit the head again.")
    return np.array(a, dtype=a.dtype.newbyteorder("="), order="C", copy=True)


def _read(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():
            raise HeadError(f"{path} cannot be read as a file of a head; check the path, or fit a head.")
        size = path.stat().st_size
        if size > limit:
            raise HeadError(f"{path} has {size} bytes, and a head has at most {limit}; check the path.")
        return path.read_bytes()
    except OSError:
        raise HeadError(
            f"{path} cannot be read as a file of a head; check the path, or fit a head."
        ) from None


def _json(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    try:
        text = json.dumps(content, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise HeadError(
            f"the head's config is not plain JSON ({error}); use numbers, texts, lists and mappings."
        ) from None


def _digest(content: Mapping[str, Any], data: bytes) -> str:
    """SHA-256 over the settings (without the digest) and the tensors."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    sha = hashlib.sha256(_json(rest))
    sha.update(hashlib.sha256(data).digest())
    return sha.hexdigest()
