"""Commands in processes of their own, forked from a server that has imported what is heavy: five seconds less for each.

What a user's shell starts, but for the imports: its own working folder, environment, standard streams, signals and exit
code. The server is that of :mod:`multiprocessing`, so worker processes of this test run come from it as well.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SERVER = get_context("forkserver")
HEAVY = (
    "mace_bounds.backbones.mace.preload",
    "mace_bounds.features.engines.processes",
    "mace_bounds.auditing",
    "mace_bounds.fitting",
    "mace_bounds.plots",
    "mace_bounds.materials_project",
    "mace_bounds.benchmark",
    "mace_bounds.cli.app",
    "mace_bounds.cli.output",
    "mace_bounds.cli.views",
    "mp_api.client",
    "scipy.stats",
    "helpers.warm_model",
    "filelock",
    "jinja2.filters",
    "rich.progress",
    "rich.traceback",
    "safetensors.torch",
    "typer.rich_utils",
)


def warm(more: str | None = None) -> None:
    """Start the server, if it does not run, with all that is heavy; whoever forks from it next finds it there."""
    from multiprocessing import forkserver

    SERVER.set_forkserver_preload([*HEAVY, *([more] if more else [])])
    forkserver.ensure_running()


def command(*words: str) -> None:
    """Run ``mace-bounds WORDS``."""
    from mace_bounds.cli import main

    sys.argv = ["mace-bounds", *words]
    main()


def python(code: str, *words: str) -> None:
    """Run ``python -c CODE WORDS``."""
    sys.argv = ["-c", *words]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def script(path: str, *words: str) -> None:
    """Run ``python PATH WORDS``."""
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")


@dataclass(frozen=True)
class Ended:
    """What a process left."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A process; its output goes to files, so that it never waits for a reader."""

    def __init__(
        self,
        target: Callable[..., None],
        words: Sequence[Any],
        env: Mapping[str, str],
        cwd: str | Path | None,
        stdin: str,
        stdout: str | None,
    ) -> None:
        warm()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._streams = [folder / name for name in ("stdin", "stdout", "stderr")]
        for stream in self._streams:
            stream.write_text(stdin if stream.name == "stdin" else "")
        place = str(cwd or Path.cwd())
        if stdout is not None:
            self._streams[1] = Path(stdout)
        arguments = (target, list(map(str, words)), {**os.environ, **env}, place, [*map(str, self._streams)])
        self._process = SERVER.Process(target=_inside, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> str:
        return self._streams[1].read_text()

    @property
    def stderr(self) -> str:
        return self._streams[2].read_text()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise TimeoutError(f"not ended after {timeout} s: {self.stderr}")
        return code

    def wait_until(self, there: Callable[[], bool], timeout: float = 120.0) -> None:
        """Wait until something is there; AssertionError if the process ends or the time is up before."""
        deadline = time.monotonic() + timeout
        while not there():
            assert self.poll() is None, f"ended with {self.poll()}: {self.stderr}"
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.002)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.poll() is None:
            self._process.kill()
            self._process.join()
        self._folder.cleanup()


def start(
    target: Callable[..., None],
    *words: object,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: str = "",
    stdout: str | None = None,
) -> Running:
    """Start :func:`command`, :func:`python`, :func:`script` or another function of the helpers, with words.

    ``stdout`` is the path of what the output goes to, a terminal for example, if not to a file.
    """
    return Running(target, words, env or {}, cwd, stdin, stdout)


def run(target: Callable[..., None], *words: object, timeout: float = 120.0, **options: Any) -> Ended:
    """Start and wait for the end."""
    with start(target, *words, **options) as process:
        code = process.wait(timeout)
        return Ended(code, process.stdout, process.stderr)


def _inside(target: Callable[..., None], words: list[str], env: dict, cwd: str, streams: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(streams):
        handle = os.open(path, (os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND) | os.O_NOCTTY)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    target(*words)
