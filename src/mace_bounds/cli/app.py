"""The application, and what becomes of errors: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mace_bounds.errors import MaceBoundsError, nearest
from mace_bounds.screen import prepare_streams, tell

DEBUG = "MACE_BOUNDS_DEBUG"
FAILED, BROKEN, PIPE_CLOSED = 2, 70, 141


class Stopped(KeyboardInterrupt):
    """A signal that asks for the end, as Ctrl-C does."""

    number = signal.SIGINT


@dataclass(frozen=True)
class About:
    """What is known of a command before it is imported: its module, the first sentence of its help, and examples."""

    module: str
    sentence: str
    examples: tuple[str, ...]


COMMANDS = {
    "score": About(
        "score",
        "Bound the DFT energy of crystals: the model's energy and an interval.",
        ("score NaCl.cif --model mini", "score crystals.extxyz --model mini --output bounds.csv"),
    ),
    "explain": About(
        "explain",
        "Say why a bound is as wide as it is: nearest labelled crystals, what drives its width, which atoms are new.",
        ("explain NaCl.cif --model mini", "explain NaCl.cif --model mini --format json"),
    ),
    "differences": About(
        "decisions",
        "Bound differences of energies, in which errors cancel: polymorphs, volumes, formation energies, reactions.",
        (
            "differences crystals.extxyz --polymorphs --model mini",
            "differences entries.json --reactions reactions.txt",
        ),
    ),
    "hull": About(
        "decisions",
        "Bound the distance of crystals from the convex hull of competing phases.",
        (
            "hull crystals.extxyz --phases mp:Li-Fe-P-O",
            "hull crystals.extxyz --phases entries.json --model mini",
            "hull new.cif --phases mp:Li-O --predictions e.csv --energy-column ev",
        ),
    ),
    "propagate": About(
        "propagate",
        "Carry the error of the energy into properties: volumes, elastic constants, defects, phonons.",
        (
            "propagate eos NaCl.cif --model mini",
            "propagate elastic NaCl.cif --model mini --plot elastic.png",
            "propagate phases bcc.cif fcc.cif hcp.cif --model mini",
        ),
    ),
    "download": About(
        "download",
        "Download a Materials Project subset with its uncorrected PBE(+U) energies.",
        ("download mp:Li-Fe-P-O lifepo.jsonl.gz",),
    ),
    "features": About(
        "features",
        "Extract the frozen model's features of many structures into a feature store.",
        ("features crystals.extxyz store --model my.model", "features mp:all part-1 --shard 1/8"),
    ),
    "merge": About(
        "features",
        "Join the parts of a feature store that features --shard I/N left.",
        ("merge store part-1 part-2",),
    ),
    "fit": About(
        "heads",
        "Fit and calibrate a head on labelled features, and measure its coverage.",
        ("fit store my-head", 'fit store my-head --licence "CC BY 4.0" --repeats 10'),
    ),
    "fit-material": About(
        "material",
        "Refit a model's readout to energies, forces and stress of one chemistry, with error bars.",
        ('fit-material tungsten.extxyz.gz tungsten --model mini --licence "CC BY 4.0"',),
    ),
    "calibrate": About(
        "heads",
        "Shift and scale an installed head by 20 to 60 labels of your own, and say what that gains.",
        ("calibrate mini my-labels.extxyz my-head", "calibrate my-head store new-head"),
    ),
    "audit": About(
        "audit",
        "Bound every structure of a source and measure coverage where it has labels.",
        ("audit crystals.extxyz report --model mini", "audit store report --head my-head --cross-fit"),
    ),
    "build": About(
        "build",
        "Build a head for a model: download, features, fit and audit in one command.",
        ("build out --model medium-mpa-0 --dry-run", "build out --source crystals.extxyz --model my.model"),
    ),
    "compare": About(
        "compare",
        "Compare mace-bounds with other error bars on the same splits.",
        ("compare store comparison --n-splits 10",),
    ),
    "plot": About("audit", "Draw the plots of an audit again.", ("plot report --format pdf",)),
    "serve": About(
        "serve",
        "Serve bounds over HTTP, with a page for people.",
        (
            "serve --model mini",
            "serve --keys keys.txt --new-key group",
            "serve --host 0.0.0.0 --keys keys.txt",
        ),
    ),
    "mcp": About(
        "serve",
        "Offer bounds as tools of the Model Context Protocol, over standard input and output.",
        ("mcp --model mini", "mcp --server http://127.0.0.1:8642"),
    ),
    "models": About("heads", "List the models that can be loaded.", ("models --json",)),
    "heads": About(
        "heads",
        "List the installed heads and their measured coverage.",
        ("heads", "heads install my-head --name mine", "heads remove mine"),
    ),
}
"""Every command by its name. Its module is imported when it runs, so that ``--help`` costs nothing."""


class _Help:
    """Help in plain text, which needs no width: names of options are never cut, and examples stand at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, those of settings under headings of their own."""
        sections: dict[str, list[Any]] = {}
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the examples, one to a line, to be copied."""
        about = COMMANDS.get(self.name or "")  # type: ignore[attr-defined]
        with formatter.section("Examples"):
            for line in about.examples if about else FIRST_STEPS:
                formatter.write(f"  mace-bounds {line}\n")


class PlainCommand(_Help, TyperCommand):
    """A command with its examples; an option that is given twice is wrong use, where the last would win unnoticed."""

    def make_parser(self, ctx: Any) -> Any:
        """Return the parser of words, which tells how often each option was given."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            found = parse(args=args)
            for param, n in Counter(found[2]).items():  # every occurrence, in order
                if n > 1 and not (param.multiple or param.is_eager):
                    remedy = "give one list with commas" if "," in (param.metavar or "") else "give it once"
                    ctx.fail(
                        f"{'/'.join([*param.opts, *param.secondary_opts])} was given more than once: {remedy}"
                    )
            return found

        parser.parse_args = parse_once
        return parser


class LazyGroup(_Help, TyperGroup):
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
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].sentence)
        return load_command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant; one that does not exist is an error with the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options, then the commands with their sentences whole."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, about.sentence) for name, about in COMMANDS.items()])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the program without importing its commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run; wrong use is one sentence with the help that explains it, and exit code 2."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except Exception as error:
            if not standalone_mode or not hasattr(error, "format_message"):  # an error of click
                raise
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "mace-bounds"
            text = error.format_message().strip().rstrip(".")
            _tell(
                f"error: {text[:1].lower()}{text[1:]}{' See' if text.endswith('?') else '; see'} {path} --help"
            )
            code = FAILED
        if standalone_mode:
            sys.exit(code or 0)
        return code


def load_command(name: str) -> Any:
    """Import a command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    function = getattr(import_module(f"mace_bounds.cli.{COMMANDS[name].module}"), name.replace("-", "_"))
    single.command(name, cls=PlainCommand, context_settings=HELP_NAMES)(_guarded(function))
    return typer.main.get_command(single)


FIRST_STEPS = (
    "score NaCl.cif --model mini",
    "score --help",
    "--install-completion",
)
HELP_NAMES = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="mace-bounds",
    cls=LazyGroup,
    help="Honest error bounds for MACE energies.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mace-bounds {version('mace-bounds')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Honest error bounds for MACE energies: frozen features, a POPS head, measured coverage."""
    if context.invoked_subcommand is None:  # no arguments: the help, and the code of wrong use
        typer.echo(context.get_help())
        raise typer.Exit(FAILED)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a command raises into one sentence and an exit code."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError as error:
            raise typer.Exit(_reader_gone(error)) from None
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG):
                raise
            code, text = explain(error)
            sys.stdout.flush()
            _tell(text)
            raise typer.Exit(code) from None

    return run


def _tell(text: str) -> None:
    """Write a message to standard error as one sentence."""
    tell(" ".join(text.split()))


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for what a command raised."""
    if isinstance(error, MaceBoundsError):
        return FAILED, f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        return 128 + number, "stopped; run the same command again to resume"
    if isinstance(error, ModuleNotFoundError):
        return FAILED, (
            f"error: {error.name} is not installed; run pip install mace-bounds, or ask a service that computes "
            "elsewhere (score --server URL)."
        )
    if isinstance(error, MemoryError):
        return BROKEN, "error: out of memory; lower --memory or --max-atoms."
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return FAILED, f"error: {error.filename} needs a folder where a file is; choose another place."
    if isinstance(error, OSError):
        return FAILED, f"error: a file cannot be read or written: {error}."
    text = " ".join(str(error).split())[:200]
    return BROKEN, (
        f"error: a fault in mace-bounds ({type(error).__name__}: {text}); set {DEBUG}=1 to see where, and report it."
    )


def main() -> None:
    """Run the command line; always ends the process.

    Exit codes: 0 done; 1 no structure could be scored; 2 wrong use or input, with one sentence on standard
    error; 70 a fault of this program; 130 interrupted, 143 terminated. With ``MACE_BOUNDS_DEBUG``
    set, tracebacks are shown.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    try:
        prepare_streams()
        app(prog_name="mace-bounds")
    except (KeyboardInterrupt, typer.Abort) as stop:  # before or after the command itself
        cause = stop.__cause__ if isinstance(stop, typer.Abort) else stop
        code, text = explain(cause if isinstance(cause, KeyboardInterrupt) else KeyboardInterrupt())
        _tell(text)
        sys.exit(_last(code))
    except SystemExit as stop:
        code = _last(stop.code)
        try:
            sys.stdout.flush()
        except OSError as error:
            code = _reader_gone(error)
        sys.exit(code)
    except OSError as error:
        sys.exit(_reader_gone(error))


def _stop(number: int, _: Any) -> None:
    stopped = Stopped()
    stopped.number = signal.Signals(number)
    raise stopped


def _last(code: Any) -> Any:
    """Exit code of a run that has ended: a signal has nothing left to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return code


def _reader_gone(error: OSError) -> int:
    """Exit code where standard output cannot be written: silence where its reader left (``| head``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's own flush does not fail too
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    _tell(f"error: standard output cannot be written: {error}.")
    return FAILED
