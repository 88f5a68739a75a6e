"""Honest error bounds for MACE energies.

The verbs are those of the command line: :func:`score`, :func:`fit`, :func:`audit`, :func:`compare`,
:func:`plot`, :func:`build`; below them lie the rooms ``structures``, ``features``, ``head``, ``calibration``,
``baselines``, ``audit`` and ``build``. Names are imported on first use, so ``import mace_bounds`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds import errors

if TYPE_CHECKING:
    from mace_bounds.audit import (
        AuditResult,
        CompareReport,
        FitReport,
        audit,
        compare,
        fit,
        list_heads,
        plot,
        score,
    )
    from mace_bounds.build import BuildResult, build
    from mace_bounds.calibration import CalibratedHead, FitConfig, load_head
    from mace_bounds.features import FeatureStore, extract, list_models, load_model
    from mace_bounds.structures import read

_HOMES = {
    "audit": (
        "AuditResult",
        "CompareReport",
        "FitReport",
        "audit",
        "compare",
        "fit",
        "list_heads",
        "plot",
        "score",
    ),
    "build": ("BuildResult", "build"),
    "calibration": ("CalibratedHead", "FitConfig", "load_head"),
    "features": ("FeatureStore", "extract", "list_models", "load_model"),
    "structures": ("read",),
}
_CALLABLE = ("audit", "build")
_HOME = {name: room for room, names in _HOMES.items() for name in names}

__all__ = [
    "AuditResult",
    "BuildResult",
    "CalibratedHead",
    "CompareReport",
    "FeatureStore",
    "FitConfig",
    "FitReport",
    "__version__",
    "audit",
    "build",
    "compare",
    "errors",
    "extract",
    "fit",
    "list_heads",
    "list_models",
    "load_head",
    "load_model",
    "plot",
    "read",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mace-bounds")
    if name not in _HOME:
        raise AttributeError(f"module 'mace_bounds' has no attribute {name!r}")
    from importlib import import_module

    room = import_module(f"mace_bounds.{_HOME[name]}")
    return room if name in _CALLABLE else getattr(room, name)  # a room and a verb of one name


def __dir__() -> list[str]:
    return sorted(__all__)
