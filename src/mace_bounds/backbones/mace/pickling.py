"""Modules to bytes and back: pickle alone refuses TorchScript, and mace prints where it is imported."""

from __future__ import annotations

import io
import pickle
from typing import Any

from mace_bounds.backbones.mace import checkpoint as _mace


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        import torch

        if isinstance(thing, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            torch.jit.save(thing, buffer)
            return _load_script, (buffer.getvalue(),)
        return NotImplemented


def _load_script(data: bytes) -> Any:
    import torch

    return torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]


def pickled(state: Any) -> bytes:
    """Bytes of something that holds modules, scripted ones among them."""
    buffer = io.BytesIO()
    with _mace.quiet():
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(state)
    return buffer.getvalue()


def unpickled(data: bytes) -> Any:
    """Undo :func:`pickled`; only for bytes that this package has made itself."""
    _mace.import_mace()
    with _mace.quiet():
        return pickle.loads(data)
