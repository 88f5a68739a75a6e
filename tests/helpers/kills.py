"""Commands that are killed before one of their operations on files, run again, and compared with an undisturbed run.

Each run is a process of its own (:mod:`helpers.forked`) in which an audit hook counts what is done to files below one
folder: opening to write, making, renaming, linking, deleting, locking. Before the one that is asked for, it is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import forked

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# event: places of its paths among the arguments, of the folders that they are relative to
_EVENTS = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "fcntl.flock": ((0, None),),
}
_RANDOM = re.compile(r"[0-9a-f]{8}(\.mace-bounds)")
_TIMES = ("started", "finished", "seconds")
SCORED = ("csv", "tsv", "json", "parquet", "md", "xyz", "cif")
PAGE = 16  # documents of a page, so that a download has several


@dataclass(frozen=True)
class Outcome:
    """Operations on files of a command, different states before them, and from how many of these it was ended.

    Two states are the same where their :func:`state` is.
    """

    n_operations: int
    n_states: int
    n_killed: int
    n_twice: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A command to be killed.

    ``words`` are those of its command line, in a folder that holds copies of the folders ``given``, each under its
    name; ``out`` is what it may leave in the folder.
    """

    words: tuple[str, ...]
    out: frozenset[str]
    given: tuple[tuple[Path, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def operations(self) -> tuple[list[str], dict[str, str]]:
        """Run it undisturbed: its operations on files in order, and the :func:`contents` that it leaves."""
        with self._folder() as place:
            log = Path(place).with_suffix(".log")
            self._run(place, 0, log)
            told = log.read_text().splitlines()
            log.unlink()
            return told, self._left(place)

    def killed_before(self, *places: int) -> dict[str, str]:
        """Kill it before these operations, one run after the other, then let it end; the contents that it leaves."""
        with self._folder() as place:
            for k in places:
                self._run(place, k)
            self._run(place, 0)
            return self._left(place)

    def killed_all_over(self, places: int, seed: int = 0) -> Outcome:
        """End it from what is there before each operation, or so many of them, evenly; every eighth is killed again.

        A kill leaves what the file system holds at that moment. So one run copies the folder before each operation on
        files, and each copy is what a kill there leaves: it is put in place, and the command runs on it to its end.
        """
        rng, failed, n_twice = random.Random(seed), list[str](), 0
        with self._folder() as place, tempfile.TemporaryDirectory() as aside:
            log = Path(aside, "log")
            self._run(place, 0, log, aside)
            told, whole = log.read_text().splitlines(), self._left(place)
            states = sorted(int(path.name) for path in Path(aside).iterdir() if path.is_dir())
            chosen = states[:: max(1, len(states) // places)]
            for n, k in enumerate(chosen):
                why = f"{k}, {told[k - 1]}"
                _put_back(Path(aside, str(k)), Path(place))
                try:
                    if n % 8 == 7:
                        n_twice += 1
                        self._run(place, rng.randint(1, len(told) - k + 4))
                    self._run(place, 0)
                    if (left := self._left(place)) != whole:
                        failed.append(f"{why}: {_difference(whole, left)}")
                except AssertionError as fault:
                    failed.append(f"{why}: {fault}")
                print(".", end="", file=sys.stderr, flush=True)
        return Outcome(len(told), len(states), len(chosen), n_twice, tuple(failed))

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        made = tempfile.TemporaryDirectory()
        for source, name in self.given:
            shutil.copytree(source, Path(made.name, name), dirs_exist_ok=True)
        return made

    def rehearse(self) -> None:
        """Run it in this process, so that those that are forked from it find all imported and compiled."""
        before, environment = Path.cwd(), dict(os.environ)
        with self._folder() as place, open(os.devnull, "w") as silence:  # noqa: PTH123
            os.chdir(place)
            os.environ.update(self.env)
            if self.words[0] in ("download", "build"):
                _turn_small_pages()
            try:
                with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                    forked.command(*self.words)
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(f"{' '.join(self.words)} ended with {end.code}") from end
            finally:
                os.chdir(before)
                os.environ.clear()
                os.environ.update(environment)

    def _run(self, place: str, kill: int, log: Path | str = os.devnull, aside: str = "") -> None:
        words = (place, kill, log, aside, *self.words)
        ended = forked.run(deadly, *words, env=self.env, cwd=place, timeout=900)
        allowed = (0, -signal.SIGKILL) if kill else (0,)
        if ended.returncode not in allowed:
            raise AssertionError(f"{' '.join(self.words)} ended with {ended.returncode}: {ended.stderr}")

    def _left(self, place: str) -> dict[str, str]:
        names = {path.name for path in Path(place).iterdir()}
        if names != self.out:
            raise AssertionError(f"{' '.join(self.words)} left {sorted(names ^ self.out)}")
        return contents(Path(place))


def _put_back(source: Path, place: Path) -> None:
    """Make a folder what it was."""
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)


def deadly(place: str, kill: str, log: str, aside: str, *words: str) -> None:
    """Run ``mace-bounds WORDS``, killed before its operation number ``kill`` in ``place``; ``log`` gets them all.

    In the folder ``aside``, if there is one, each gets a copy of what is there before, if it is a new :func:`state`.
    """
    written, before, states = os.open(log, os.O_WRONLY | os.O_CREAT), None, set[str]()
    place, last, n = os.path.realpath(place) + os.sep, int(kill), 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal n, before
        if event == "open":
            if not isinstance(values[2], int) or not values[2] & _WRITES:
                return
            paths = [_path(values[0], None)]
        elif event in _EVENTS:
            paths = [_path(values[at], None if of is None else values[of]) for at, of in _EVENTS[event]]
        else:
            return
        if not any(path.startswith(place) for path in paths) or paths[0].endswith("(deleted)"):
            return  # elsewhere, or the lock of what is gone
        n += 1
        if aside and before != (before := _tree(place)) and (key := state(Path(place))) not in states:
            states.add(key)
            shutil.copytree(place, Path(aside, str(n)), symlinks=True)
        if n == last:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(written, f"{event} {' '.join(path.removeprefix(place) for path in paths)}\n".encode())

    if words[0] in ("download", "build"):
        _turn_small_pages()
    sys.addaudithook(hook)
    forked.command(*words)


def _tree(folder: str) -> dict[str, tuple[int, int]]:
    """Sizes and times of all that is in a folder."""
    found = [Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def state(folder: Path) -> str:
    """Digest of all that is in a folder: equal for states from which a command has the same to do.

    That is :func:`contents`, where the random part of a working folder's name is left out, and a list, for two working
    folders of one file may stand side by side.
    """
    found = [
        (_RANDOM.sub(r"#\1", name), data, not name.endswith("/") and (folder / name).stat().st_size > 0)
        for name, data in contents(folder).items()
    ]
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def _path(given: Any, folder: int | None) -> str:
    """A path as it stands in the file system, from a name, a descriptor, or a name in an open folder."""
    if isinstance(given, int):
        return str(Path(f"/proc/self/fd/{given}").readlink())
    base = Path.cwd() if folder in (None, -1) else Path(f"/proc/self/fd/{folder}").readlink()
    return os.path.normpath(base / os.fsdecode(given))


def _turn_small_pages() -> None:
    import functools

    import mace_bounds.materials_project as project
    from mace_bounds.materials_project import downloading

    project.Connection = downloading.Connection = functools.partial(project.Connection, page_size=PAGE)  # type: ignore


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too, without times; empty where times are all that it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = ""
        elif "seconds" in path.name or path.name.startswith(".lock"):
            found[name] = ""
        else:
            data = path.read_bytes()
            if path.suffix == ".json":
                with contextlib.suppress(ValueError):  # not whole yet
                    data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def chosen(operations: list[str], n: int, seed: int = 0) -> list[int]:
    """Places of some operations, counted from 1: the first, the last, and others, renames before all."""
    places = range(1, len(operations) + 1)
    renames = [k for k in places if operations[k - 1].startswith("os.rename")]
    rest = [k for k in places if k not in renames]
    rng = random.Random(seed)
    picked = [1, len(operations), *rng.sample(renames, len(renames)), *rng.sample(rest, len(rest))]
    return sorted(dict.fromkeys(picked[:n]))


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    return ", ".join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))


def studies(
    store: Path, head: Path, model: Path, crystals: Path, parts: Iterable[Path], audit: Path, endpoint: str
) -> dict[str, Study]:
    """Every command that writes, by a name.

    ``store`` and ``head`` are of the ``model``, ``crystals`` is a file of labelled structures, ``parts`` are folders of
    unmerged parts, ``audit`` is a finished audit, and ``endpoint`` that of a Materials Project.
    """
    from helpers.mp_server import KEY

    source, (one, two) = str(store), map(str, parts)
    small = ("--shard-rows", "8", "--workers", "1", "--device", "cpu")
    project = {"MP_API_KEY": KEY, "MP_API_ENDPOINT": endpoint}
    own = {"MACE_BOUNDS_HEADS": "heads"}
    compare = ("--n-splits", "1", "--system-folds", "0", "--methods", "llpr", "--conformal", "split")
    plain = ("--conformal", "split", "--no-robust", "--no-ellipsoid")
    split = (*plain, "--fit-share", "0.35", "--calibration-share", "0.35")
    made = frozenset
    return {
        "features": Study(
            ("features", str(crystals), "s", "--model", str(model), *small), made({"s", "s.summary.json"})
        ),
        "features --shard": Study(
            ("features", str(crystals), "s", "--model", str(model), "--shard", "1/2", *small),
            made({"s", "s.part-1-of-2.summary.json"}),
        ),
        "merge": Study(("merge", "s", one, two), made({"s"})),
        "merge in place": Study(
            ("merge", "s"),
            made({"s"}),
            ((Path(one), "s"), (Path(two), "s")),
        ),
        "fit": Study(("fit", source, "h", *split), made({"h", "h.summary.json"})),
        "fit --overwrite": Study(
            ("fit", source, "h", "--overwrite", *split), made({"h", "h.summary.json"}), ((head, "h"),)
        ),
        "calibrate": Study(
            ("calibrate", str(head), source, "h", "--include-training"), made({"h", "h.summary.json"})
        ),
        "audit": Study(("audit", source, "a", "--head", str(head), "--no-plots"), made({"a"})),
        "audit --cross-fit": Study(("audit", source, "a", "--cross-fit", "--no-plots", *plain), made({"a"})),
        "audit of structures": Study(
            ("audit", str(crystals), "a", "--model", str(model), "--head", str(head), "--no-plots", *small),
            made({"a"}),
        ),
        "plot": Study(("plot", "a", "-f", "svg", "-o", "plots"), made({"a", "plots"}), ((audit, "a"),)),
        "compare": Study(("compare", source, "c", *compare), made({"c"})),
        **{
            f"score {suffix}": Study(
                ("score", str(crystals), "--model", str(model), "--head", str(head), "-o", f"b.{suffix}"),
                made({f"b.{suffix}"}),
            )
            for suffix in SCORED
        },
        "heads install": Study(("heads", "install", str(head), "--name", "n"), made({"heads"}), env=own),
        "heads install --force": Study(
            ("heads", "install", str(head), "--name", "n", "--force"),
            made({"heads"}),
            ((head, "heads/n"),),
            env=own,
        ),
        "heads remove": Study(("heads", "remove", "n"), made({"heads"}), ((head, "heads/n"),), env=own),
        "download": Study(
            ("download", "mp:hull=1", "d"), made({"d.jsonl.gz", "d.jsonl.gz.summary.json"}), env=project
        ),
        "build": Study(
            ("build", "b", "--source", "mp:hull=1", "--model", str(model), "--no-plots", *small),
            made({"b"}),
            env=project,
        ),
    }
