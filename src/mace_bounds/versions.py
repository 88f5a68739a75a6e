"""What a run was made with and when."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

__version__ = version("mace-bounds")
PACKAGES = ("mace-bounds", "mace-torch", "torch", "e3nn", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def now() -> str:
    """Time of day, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
