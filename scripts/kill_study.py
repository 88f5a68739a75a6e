"""Kill commands with SIGKILL, run them again, and compare every file with those of an undisturbed run.

    python scripts/kill_study.py features SOURCE [--model mini] [--kills 10]
    python scripts/kill_study.py audit mp_entries.json.gz [--query mp:Li-Fe-P-O] [--cross-fit]
    python scripts/kill_study.py each ["merge or fit"] [--places 40]

``each`` is ``tests/test_kills.py``: every command on tiny inputs (or those that pytest's ``-k`` chooses), run to its end from
what a kill before each of its operations on files leaves (before at least so many of them, all where there are fewer);
every eighth of these runs is killed as well, and run again. The others are killed at random moments:
``audit`` is ``mace-bounds download QUERY`` from a Materials Project on the loopback interface, filled with the entries and
slow to answer, then ``mace-bounds audit``. All kills hit the same folder, or with ``--apart`` an empty one each. The moments are drawn uniformly over the
duration of the undisturbed run; where a run ends before its moment, its files are compared as well, the folder is put
back to what it was before that run, and the moment is drawn again. Prints one JSON object; exits with 1 if any file
differs by a byte. Left out are times: ``build.json``, and ``started``, ``finished`` and ``seconds`` in the summaries.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PAGE, SECONDS_PER_PAGE = 20, 0.15
MAIN = f"""
import sys
if sys.argv[1] in ("download", "build"):
    import functools
    from mace_bounds.materials_project import Connection, downloading
    downloading.Connection = functools.partial(Connection, page_size={PAGE})
    import mace_bounds.materials_project as project
    project.Connection = downloading.Connection
from mace_bounds.cli import main
main()
"""
HEAVY = (
    "mp_api.client",
    "mace_bounds.materials_project",
    "mace_bounds.auditing",
    "mace.modules",
    "pandas",
)
HEAVY += ("scipy.stats", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg")
Steps = Sequence[Sequence[str]]


class Run(Protocol):
    """A chain of commands that was started in a folder."""

    def ended(self, seconds: float | None = None) -> bool:
        """Wait that long, or until the end; whether it has ended. RuntimeError if it failed."""

    def kill(self) -> None:
        """End it with SIGKILL, and what it has started."""


class Shell:
    """Each command in a process of its own, as a user would run them."""

    def __init__(self, steps: Steps, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHAIN, MAIN, json.dumps(steps)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def ended(self, seconds: float | None = None) -> bool:
        try:
            _, told = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        if self._process.returncode:
            raise RuntimeError(told.decode()[-2000:])
        return True

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


CHAIN = """
import json, subprocess, sys
for step in json.loads(sys.argv[2]):
    subprocess.run([sys.executable, "-c", sys.argv[1], *step], check=True)
"""


class Forked:
    """All commands in one process, forked from one that has imported what they need: seconds less for each start."""

    def __init__(self, steps: Steps, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*HEAVY, __name__])
        self._process = context.Process(target=run_here, args=(steps, folder, dict(os.environ)))
        self._process.start()

    def ended(self, seconds: float | None = None) -> bool:
        self._process.join(seconds)
        if self._process.exitcode:
            raise RuntimeError(f"exit code {self._process.exitcode}")
        return self._process.exitcode is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def run_here(steps: Steps, folder: Path, environment: dict[str, str]) -> None:
    """Run commands one after the other in this process."""
    os.chdir(folder)
    os.environ.update(environment)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    for step in steps:
        sys.argv = ["mace-bounds", *step]
        try:
            exec(MAIN, {})
        except SystemExit as end:
            if end.code:
                raise


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path; of a summary without its times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "build.json" or path.name.startswith("."):
            continue
        content = path.read_bytes()
        if path.name.endswith("summary.json"):
            told = json.loads(content)
            content = json.dumps(
                {k: v for k, v in told.items() if k not in ("started", "finished", "seconds")}
            ).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def last_written(folder: Path, since: float) -> str:
    """What a run that began at a time wrote last, in a word."""
    times = {
        path: path.stat().st_mtime for path in folder.rglob("*") if path.is_file() and path.name != "lock"
    }
    newest = max(times, key=times.__getitem__, default=None)
    if newest is None or times[newest] < since:
        return "nothing"
    inside = newest.relative_to(folder).parts
    for part in ("features", "heads", "plots"):
        if part in inside[:-1]:
            return part
    if inside[0].endswith(".parts"):
        return "pages"
    return newest.name.removeprefix(".").removesuffix(".tmp")


@dataclass
class Outcome:
    """What a study found."""

    identical: bool
    differing: list[str]
    n_files: int
    seconds_undisturbed: float
    kills: list[dict[str, Any]]
    n_ended_before: int


def study(steps: Steps, start: Callable[[Steps, Path], Run], args: argparse.Namespace) -> Outcome:
    """Run undisturbed; run and kill in another folder; finish; run again; compare after each run that ended."""
    rng, differing, told, n_ended = random.Random(args.seed), set[str](), list[dict[str, Any]](), 0
    with tempfile.TemporaryDirectory() as place:
        calm, broken, before = Path(place, "calm"), Path(place, "broken"), Path(place, "before")
        calm.mkdir()
        broken.mkdir()
        seconds = _undisturbed(steps, start, calm)
        wanted = digests(calm)
        while len(told) < args.kills:
            shutil.copytree(broken, before)
            moment, since = rng.uniform(0.0, args.last * seconds), time.time()
            run = start(steps, broken)
            if run.ended(moment):
                n_ended += 1
                differing |= _differing(wanted, broken)
                shutil.rmtree(broken)
                before.rename(broken)
                continue
            run.kill()
            told.append({"after_seconds": round(moment, 2), "last_written": last_written(broken, since)})
            print(
                f"kill {len(told)} after {moment:.1f} s: {told[-1]['last_written']}",
                file=sys.stderr,
                flush=True,
            )
            shutil.rmtree(before)
            if args.apart:
                start(steps, broken).ended()
                differing |= _differing(wanted, broken)
                shutil.rmtree(broken)
                broken.mkdir()
        for _ in range(args.finishes):  # all but the first over files that are all there
            start(steps, broken).ended()
            differing |= _differing(wanted, broken)
    return Outcome(not differing, sorted(differing), len(wanted), round(seconds, 2), told, n_ended)


def _undisturbed(steps: Steps, start: Callable[[Steps, Path], Run], folder: Path) -> float:
    began = time.monotonic()
    start(steps, folder).ended()
    return time.monotonic() - began


def _differing(wanted: dict[str, str], folder: Path) -> set[str]:
    found = digests(folder)
    return {name for name in {*wanted, *found} if wanted.get(name) != found.get(name)}


def features_steps(source: str, model: str) -> Steps:
    options = ["--model", model, "--shard-rows", "32", "--device", "cpu"]
    return [["features", str(Path(source).resolve()), "store", *options]]


def audit_steps(query: str, options: Sequence[str]) -> Steps:
    """Download a query and audit what came; names in the files are the same in every folder."""
    return [
        ["download", query, "entries"],
        ["audit", "entries.jsonl.gz", "report", "--shard-rows", "32", "--device", "cpu", *options],
    ]


def project_of(entries: list[dict[str, Any]]) -> Any:
    """A Materials Project that holds entries and takes its time."""
    from helpers.mp_server import Project, document_of

    slow = lambda _: time.sleep(SECONDS_PER_PAGE)  # noqa: E731
    return Project([document_of(one) for one in entries], on_request=slow)


def each(commands: str, places: int) -> int:
    """Run tests/test_kills.py at many places."""
    import pytest

    os.environ["MACE_BOUNDS_KILLS"] = str(places)
    tests = Path(__file__).parent.parent / "tests"
    test = tests / "test_kills.py"
    os.environ["PYTHONPATH"] = os.pathsep.join(  # for the server of processes, which has no path but this
        [str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    return pytest.main([str(test), "-k", commands, "-q", "-rP", "--durations=0", "-p", "no:cacheprovider"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("features", "audit", "each"))
    parser.add_argument(
        "source",
        nargs="?",
        default="",
        help="structures; for audit entries of the Materials Project as gzipped JSON; for each names of commands",
    )
    parser.add_argument(
        "--places", type=int, default=40, help="for each: before how many operations at least"
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--head")
    parser.add_argument("--query", default="mp:Li-Fe-P-O")
    parser.add_argument("--cross-fit", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--last", type=float, default=1.0, help="last moment, as a share of the undisturbed run"
    )
    parser.add_argument("--finishes", type=int, default=2, help="undisturbed runs after the kills")
    parser.add_argument(
        "--apart", action="store_true", help="each kill in an empty folder, finished before the next"
    )
    parser.add_argument(
        "--fork", action="store_true", help="fork each start from a process that has imported all"
    )
    args = parser.parse_args()
    if args.what == "each":
        return each(args.source, args.places)
    start = Forked if args.fork else Shell
    if args.what == "features":
        found = study(features_steps(args.source, args.model), start, args)
    else:
        from helpers.mp_server import KEY, serving

        options = ["--model", args.model, *["--cross-fit"] * args.cross_fit]
        options += (["--head", args.head] if args.head else []) + ["--workers", "1"] * args.fork
        with serving(project_of(json.loads(gzip.decompress(Path(args.source).read_bytes())))) as endpoint:
            os.environ |= {"MP_API_KEY": KEY, "MP_API_ENDPOINT": endpoint}
            found = study(audit_steps(args.query, options), start, args)
    print(json.dumps(found.__dict__))
    return 0 if found.identical else 1


if __name__ == "__main__":
    sys.exit(main())
