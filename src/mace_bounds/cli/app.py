"""The application, and what becomes of errors: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mace_bounds.errors import MaceBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable

DEBUG = "MACE_BOUNDS_DEBUG"
FAILED, BROKEN, INTERRUPTED, PIPE_CLOSED = 2, 70, 130, 141

COMMANDS = {
    "score": ("score", "Bound the DFT energy of crystals: the model's energy and an interval."),
    "download": ("download", "Download a Materials Project subset with its uncorrected PBE(+U) energies."),
    "features": ("features", "Extract the frozen model's features of many structures into a feature store."),
    "merge": ("features", "Join the parts of a feature store that features --shard I/N left."),
    "fit": ("heads", "Fit and calibrate a head on labelled features, and measure its coverage."),
    "audit": ("audit", "Bound every structure of a source and measure coverage where it has labels."),
    "build": ("build", "Build a head for a model: download, features, fit and audit in one command."),
    "compare": ("compare", "Compare mace-bounds with other error bars on the same splits."),
    "plot": ("audit", "Draw the plots of an audit again."),
    "models": ("heads", "List the models that can be loaded."),
    "heads": ("heads", "List the installed heads and their measured coverage."),
}
"""Command to the module of this package that has it as a function, and the first sentence of its help.

A module is imported when its command runs, so that ``--help`` costs nothing.
"""


class LazyGroup(TyperGroup):
    """Commands of :data:`COMMANDS`, imported when they run or are asked for their own help."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return their names in order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a command; in the list of commands, only its name and one sentence."""
        if cmd_name not in COMMANDS:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])
        return load_command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the program without importing its commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def load_command(name: str) -> Any:
    """Import a command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    function = getattr(import_module(f"mace_bounds.cli.{COMMANDS[name][0]}"), name)
    single.command(name)(_guarded(function))
    return typer.main.get_command(single)


app = typer.Typer(
    name="mace-bounds",
    cls=LazyGroup,
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
        return BROKEN, "error: out of memory; lower --memory or --max-atoms."
    if isinstance(error, OSError):
        return FAILED, f"error: a file cannot be read or written: {error}."
    text = " ".join(str(error).split())[:200]
    return BROKEN, (
        f"error: a fault in mace-bounds ({type(error).__name__}: {text}); set {DEBUG}=1 to see where, and report it."
    )


def main() -> None:
    """Run the command line; always ends the process.

    Exit codes: 0 done; 1 no structure could be scored; 2 wrong use or input, with one sentence on standard
    error; 70 a fault of this program; 130 interrupted. With ``MACE_BOUNDS_DEBUG`` set, tracebacks are shown.
    """
    try:
        app(prog_name="mace-bounds")
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
