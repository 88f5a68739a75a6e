"""The folder of a build: the names in it, and ``build.json`` with the settings and the finished stages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import visible, write_json
from mace_bounds.errors import StoreError

if TYPE_CHECKING:
    from mace_bounds.pipeline.config import BuildConfig

STATE, HEAD, AUDIT_FOLDER, JOINED = "build.json", "head", "audit", "features-joined"
_OURS = ("entries", "features", HEAD, AUDIT_FOLDER, STATE)


def entries_path(out: Path, place: int) -> Path:
    """File of the download of the source at this place: ``entries.jsonl.gz``, ``entries-2.jsonl.gz``."""
    return out / f"{_numbered('entries', place)}.jsonl.gz"


def features_path(out: Path, place: int) -> Path:
    """Feature store of the source at this place: ``features``, ``features-2``."""
    return out / _numbered("features", place)


def _numbered(name: str, place: int) -> str:
    return name if place == 0 else f"{name}-{place + 1}"


def digest(*parts: object) -> str:
    """SHA-256 over plain values: what a stage was made from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_folder(out: Path) -> None:
    """Raise :class:`StoreError` if a folder holds files of something else than a build."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file, and a build needs a folder; choose another place.")
    if not (out / STATE).exists():
        others = sorted(name for name in visible(out) if not name.startswith(_OURS))
        if others:
            raise StoreError(
                f"{out} is not the folder of a build, as it holds {others[0]}; choose a new folder."
            )


class State:
    """Settings and finished stages of a build, kept in ``build.json`` and written after every stage.

    ``out``: the folder of the build; nothing is written before :meth:`finish`; ``config``: resolved settings
    of this run.
    """

    def __init__(self, out: Path, config: BuildConfig) -> None:
        check_folder(out)
        self.out, self._config = out, config
        before = _read(out / STATE)
        self.values: dict[str, Any] = before or {"command": "build", "stages": {}}
        self.stages: dict[str, Any] = self.values["stages"]
        if before:
            self._compare(before["config"], config.decisive())
        self.values["config"] = config.decisive()

    def _compare(self, before: dict[str, Any], now: dict[str, dict[str, Any]]) -> None:
        done = {name.split("-")[0] for name in self.stages}
        defaults = type(self._config)().decisive()  # what a setting was that the older build did not know
        for stage, settings in now.items():
            for name, value in settings.items():
                old = before.get(stage, {}).get(name, defaults[stage][name])
                if stage in done and old != value:
                    raise StoreError(
                        f"{self.out} was built with {name}={_text(old)}, now {_text(value)}; use the same options or "
                        "a new folder."
                    )

    def finished(self, stage: str, inputs: str) -> bool:
        """Whether a stage is done, and was made from the same inputs."""
        return bool(self.stages.get(stage, {}).get("inputs") == inputs)

    def made(self, stage: str) -> dict[str, Any]:
        """Return what a finished stage left."""
        made: dict[str, Any] = self.stages[stage]["made"]
        return made

    def finish(self, stage: str, inputs: str, made: dict[str, Any], about: dict[str, Any]) -> None:
        """Put a stage down as done."""
        self.stages[stage] = {"inputs": inputs, "made": made, **about}
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / STATE, self.values)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["command"] != "build" or not isinstance(values["stages"], dict):
            raise ValueError("of another command")
        _ = values["config"]["fit"]["sources"]
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is not what a build writes ({type(error).__name__}); delete it, and the stages are checked anew."
        ) from error


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)
