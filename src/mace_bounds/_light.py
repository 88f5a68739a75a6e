"""Importing mace and scoringrules for the command line without what is never used here.

``import mace`` takes 5.4 s of processor time on a busy two-core machine; 2.4 s of them go to matplotlib,
torchmetrics, torch._dynamo and scipy.signal, which mace's training loop and its preparation for
``torch.compile`` want and inference never does. For a command that scores one crystal this is a third of the
wait, so :func:`lighten_imports` lets a process put stand-ins in their place while mace is imported. Only the
command line asks for it: in a library user's process mace is imported as it is.

``import scoringrules`` compiles its numba functions each time, for 5 s; here its numpy functions are used.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_LATE = ("scipy.signal", "torch._dynamo")  # imported for real when first used
_NAMES = {"torchmetrics": ("Metric",), "mace.cli.visualise_train": ("TrainingPlotter",)}  # never used here
_state = {"wanted": False}


class _Late(ModuleType):
    """A module that is imported when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def lighten_imports() -> None:
    """Let this process import mace without its training tools; for command lines, not for libraries."""
    _state["wanted"] = True


@contextmanager
def stand_ins() -> Iterator[None]:
    """Put the stand-ins in place while mace is imported, if the process asked for it; then take them away."""
    placed: dict[str, ModuleType] = {}
    if _state["wanted"] and "mace" not in sys.modules:
        placed = {name: _Late(name) for name in _LATE if name not in sys.modules}
        for name, classes in _NAMES.items():
            if name not in sys.modules:
                placed[name] = ModuleType(name)
                placed[name].__dict__.update({one: type(one, (), {}) for one in classes})
    sys.modules.update(placed)
    try:
        yield
    finally:
        for name, module in placed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_scoringrules() -> ModuleType:
    """Import scoringrules, without its numba functions if the process asked for light imports."""
    hidden = _state["wanted"] and "scoringrules" not in sys.modules
    before = sys.modules.get("numba")
    try:
        if hidden:
            sys.modules["numba"] = None  # type: ignore[assignment]
        return importlib.import_module("scoringrules")
    finally:
        if hidden:
            del sys.modules["numba"]
        if hidden and before is not None:
            sys.modules["numba"] = before
