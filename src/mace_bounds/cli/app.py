"""The application, and what becomes of errors: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.cli.audit import audit
from mace_bounds.cli.build import build
from mace_bounds.cli.compare import compare
from mace_bounds.cli.download import download
from mace_bounds.cli.features import features
from mace_bounds.cli.fit import fit
from mace_bounds.cli.heads import heads
from mace_bounds.cli.merge import merge
from mace_bounds.cli.models import models
from mace_bounds.cli.plot import plot
from mace_bounds.cli.score import score
from mace_bounds.errors import MaceBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable

DEBUG = "MACE_BOUNDS_DEBUG"
FAILED, BROKEN, INTERRUPTED, PIPE_CLOSED = 2, 70, 130, 141

app = typer.Typer(
    name="mace-bounds",
    help="Honest error bounds for MACE energies.",
    epilog="Start with: mace-bounds score FILE.cif --model mini",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mace-bounds {version('mace-bounds')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Honest error bounds for MACE energies: frozen features, a POPS head, measured coverage."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a command raises into one sentence and an exit code."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG):
                raise
            code, text = explain(error)
            sys.stdout.flush()
            sys.stderr.write(" ".join(text.split()) + "\n")
            raise typer.Exit(code) from None

    return run


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for what a command raised."""
    if isinstance(error, MaceBoundsError):
        return FAILED, f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "stopped; run the same command again to resume"
    if isinstance(error, MemoryError):
        return BROKEN, "error: expected enough memory, but there is none left; use smaller structures."
    if isinstance(error, OSError):
        return FAILED, f"error: expected to read and write files, but the system refused: {error}."
    told = " ".join(str(error).split())[:200]
    return BROKEN, (
        f"error: a fault in mace-bounds ({type(error).__name__}: {told}); set {DEBUG}=1 to see where, and report it."
    )


for _command in (score, download, features, merge, fit, audit, build, compare, plot, models, heads):
    app.command()(_guarded(_command))


def main() -> None:
    """Run the command line; always ends the process.

    Exit codes: 0 done; 1 no structure could be scored; 2 wrong use or input, with one sentence on standard
    error; 70 a fault of this program; 130 interrupted. With ``MACE_BOUNDS_DEBUG`` set, tracebacks are shown.
    """
    try:
        app()
    except SystemExit as stop:
        code = stop.code
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader went away (``| head``): no fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE_CLOSED
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
