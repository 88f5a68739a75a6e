"""The folder of a build: the names in it, and ``build.json``, which says what was asked and which stages are done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mace_bounds.errors import StoreError
from mace_bounds.pipeline.config import DECIDED_BY, Question

STATE, HEAD, AUDIT_FOLDER, JOINED = "build.json", "head", "audit", "features-joined"
_OURS = ("entries", "features", HEAD, AUDIT_FOLDER, STATE, ".")
_SUFFIX = ".jsonl.gz"


def entries_path(out: Path, place: int) -> Path:
    """File of the download of the source at this place: ``entries.jsonl.gz``, ``entries-2.jsonl.gz``."""
    return out / f"{_numbered('entries', place)}{_SUFFIX}"


def features_path(out: Path, place: int) -> Path:
    """Feature store of the source at this place: ``features``, ``features-2``."""
    return out / _numbered("features", place)


def _numbered(name: str, place: int) -> str:
    return name if place == 0 else f"{name}-{place + 1}"


def digest(*parts: object) -> str:
    """SHA-256 over plain values: what a stage was made from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_folder(out: Path) -> None:
    """Raise :class:`StoreError` if a folder holds what no build has put there."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"expected a folder for the build, but {out} is a file; choose another place.")
    if out.is_dir() and not (out / STATE).exists():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith(_OURS))
        if others:
            raise StoreError(
                f"expected a new folder or one that a build began, but {out} holds {others[0]}; choose another."
            )


class State:
    """What ``build.json`` says, written anew after every stage.

    Parameters
    ----------
    out : Path
        The folder of the build; nothing is written before :meth:`write`.
    question : Question
        What is asked now.

    Raises
    ------
    StoreError
        If the folder was built, or is being built, for another question, or holds something else.
    """

    def __init__(self, out: Path, question: Question) -> None:
        check_folder(out)
        self.out = out
        before = _read(out / STATE)
        self.values: dict[str, Any] = before or {"command": "build", "stages": {}}
        self.stages: dict[str, Any] = self.values["stages"]
        if before:
            self._compare(before["question"], question.as_dict())
        self.values["question"] = question.as_dict()

    def _compare(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        for name in sorted(now):
            if then.get(name) != now[name] and self._decided(name):
                raise StoreError(
                    f"expected what {self.out} was built for, but {name} was {_told(then.get(name))} and is now "
                    f"{_told(now[name])}; ask the same again or choose a new folder."
                )

    def _decided(self, name: str) -> bool:
        stage = DECIDED_BY[name]
        return any(key.split("-")[0] == stage for key in self.stages)

    def finished(self, stage: str, inputs: str) -> bool:
        """Whether a stage is done, and was made from the same."""
        return bool(self.stages.get(stage, {}).get("inputs") == inputs)

    def has(self, stage: str) -> bool:
        """Whether a stage is put down as done, from whatever."""
        return stage in self.stages

    def made(self, stage: str) -> dict[str, Any]:
        """What a finished stage left."""
        found: dict[str, Any] = self.stages[stage]["made"]
        return found

    def finish(self, stage: str, inputs: str, made: dict[str, Any], about: dict[str, Any]) -> None:
        """Put a stage down as done."""
        self.stages[stage] = {"inputs": inputs, "made": made, **about}
        self.write()

    def write(self) -> None:
        """Write the file whole."""
        self.out.mkdir(parents=True, exist_ok=True)
        temporary = self.out / f".{STATE}.tmp"
        text = json.dumps(self.values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.out / STATE)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["command"] != "build" or not isinstance(values["stages"], dict):
            raise ValueError("of another command")
        _ = values["question"]["sources"]
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"expected what a build has written in {path}, but it cannot be used ({type(error).__name__}); delete it, "
            "and the stages are checked anew."
        ) from error


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)
