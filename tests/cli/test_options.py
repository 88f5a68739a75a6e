"""Options made from settings."""

import contextlib
import inspect
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from mace_bounds.auditing import AuditConfig
from mace_bounds.benchmark import CompareConfig
from mace_bounds.calibration import FitConfig
from mace_bounds.cli.app import COMMANDS, app, load_command
from mace_bounds.cli.options import only, takes, without
from mace_bounds.errors import MaceBoundsError
from mace_bounds.features import STORING_FIELDS, ExtractSettings
from mace_bounds.features.settings import parse_memory
from mace_bounds.fitting import CalibrateConfig
from mace_bounds.pipeline import BuildConfig
from mace_bounds.service import ServiceConfig
from mace_bounds.settings import setting


def parse_pair(text):
    left, right = text.split("/")
    return int(left), int(right)


@dataclass(frozen=True)
class Inner:
    share: float = setting(0.5, "A share.", minimum=0.0, maximum=1.0)
    pair: tuple[int, int] | None = setting(None, "A pair.", parser=parse_pair, option="--pair")


@dataclass(frozen=True)
class Outer:
    colour: Literal["red", "blue"] = setting("red", "A colour.")
    level: float = setting(0.9, "A level.", option="--level -l")
    plots: bool = setting(True, "Plots.")
    fast: bool = setting(False, "Fast.")
    names: tuple[str, ...] = setting((), "Names.", option="--name")
    path: Path | None = setting(None, "A path.")
    number: int | None = setting(None, "A number.", minimum=1, shown="all of them")
    animal: str = setting("cat", "An animal.", choices=("cat", "dog"))
    secret: int = setting(3, "Not offered.", option=False)
    fit: Inner = field(default_factory=Inner)


@pytest.fixture
def outer():
    """A command that takes all of Outer."""
    app, got = typer.Typer(), []

    @app.command()
    @takes(config=Outer)
    def command(
        source: str, as_json: Annotated[bool, typer.Option("--json")] = False, *, config: Outer
    ) -> None:
        got.append((source, as_json, config))

    def run(*arguments):
        got.clear()
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        return result, got[0] if got else None

    return run


def test_defaults_are_those_of_the_dataclass(outer):
    result, got = outer("x")
    assert result.exit_code == 0, result.output
    assert got == ("x", False, Outer())


def test_every_kind_of_field(outer):
    given = (
        "--colour blue -l 0.5 --no-plots --fast --name a --name b --path p --number 2 --share 0.25 --pair 1/2"
    )
    result, got = outer("x", *given.split(), "--json")
    assert result.exit_code == 0, result.output
    wanted = Outer("blue", 0.5, False, True, ("a", "b"), Path("p"), 2, fit=Inner(0.25, (1, 2)))
    assert got == ("x", True, wanted)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--colour", "green"), "'green' is not one of"),
        (("--animal", "cow"), "'cow' is not one of"),
        (("--share", "1.5"), "less than or equal to 1"),
        (("--number", "0"), "greater than or equal to 1"),
        (("--pair", "1"), "not enough values to unpack"),
        (("--secret", "1"), "No such option"),
        (("--no-fast",), "No such option"),
    ],
)
def test_values_that_a_field_may_not_have(arguments, text, outer):
    result, got = outer("x", *arguments)
    assert result.exit_code == 2
    assert text in result.output
    assert got is None


def test_help_says_what_the_field_says(outer):
    text = " ".join(outer("--help")[0].output.replace("│", " ").split())
    for part in ("A colour.", "--plots", "--no-plots", "all of them", "How heads are fitted", "A pair."):
        assert part in text


def test_a_part_of_the_settings_can_be_taken():
    @takes(config=only(Outer, "level", "share"))
    def some(*, config: Outer) -> None: ...

    @takes(config=without(Outer, "level", "pair"))
    def others(*, config: Outer) -> None: ...

    assert list(inspect.signature(some).parameters) == ["level", "share"]
    assert list(inspect.signature(others).parameters) == [
        "colour", "plots", "fast", "names", "path", "number", "animal", "share",
    ]  # fmt: skip


def options_of(command):
    return {parameter.name for parameter in load_command(command).params}


def offered(settings):
    return {f.name for f in fields(settings) if f.metadata.get("option", False)}


@pytest.mark.parametrize("command", ["fit", "compare", "build", "audit"])
def test_every_knob_of_a_fit_is_there_wherever_heads_are_fitted(command):
    assert offered(FitConfig) - options_of(command) == set()


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("features", set()),
        ("audit", {"kind", "atoms", "symmetry", "part"}),
        ("build", {"kind", "atoms", "symmetry", "part"}),
        ("score", set(STORING_FIELDS)),
    ],
)
def test_every_knob_of_extraction_is_there_wherever_structures_are_read(command, missing):
    assert offered(ExtractSettings) - options_of(command) == missing


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("compare", CompareConfig),
        ("build", BuildConfig),
        ("audit", AuditConfig),
        ("calibrate", CalibrateConfig),
    ],
)
def test_every_setting_of_a_verb_is_an_option(command, settings):
    assert offered(settings) - options_of(command) == set()


@pytest.mark.parametrize(
    "text, size",
    [("512", 2**29), ("512MB", 2**29), ("2GB", 2**31), ("1.5 g", 1.5 * 2**30), ("2048KiB", 2**21)],
)
def test_sizes_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-5", "0", "100kB", "2 parsecs"])
def test_no_sizes_of_memory(text, run, tmp_path):
    with pytest.raises(ValueError, match="is no size from 1MB"):
        parse_memory(text)
    result = run("features", tmp_path, tmp_path / "out", "--memory", text)
    assert result.exit_code == 2
    assert "is no size from 1MB" in " ".join(result.stderr.replace("│", " ").split())


EXTREMES = ("-1", "0", "1", "-9" * 20, "9" * 20, "1e308", "nan", "inf", "-inf", "0.5", "x", "", "1/0")


@pytest.mark.parametrize("name", COMMANDS)
def test_extreme_values_are_taken_or_refused_but_never_at_fault(name):
    """Of every option that takes a value, up to where the command itself would begin."""
    module = import_module(f"mace_bounds.cli.{COMMANDS[name].module}")
    command = load_command(name)
    options = [p for p in command.params if p.param_type_name == "option" and not p.is_flag]
    source = ["x" for p in command.params if p.param_type_name == "argument" and p.required]
    assert options or name in ("plot", "models", "merge", "heads")
    settings = [s for s in vars(module).values() if isinstance(s, type) and is_dataclass(s) and offered(s)]
    for option in options:
        for value in EXTREMES:
            try:
                given = command.make_context(name, [*source, f"{option.opts[0]}={value}"]).params
            except Exception as error:
                if not hasattr(error, "format_message"):  # no error of use
                    raise
                continue
            number = given[option.name]
            number = number[0] if isinstance(number, (list, tuple)) and number else number
            if isinstance(number, (int, float)):
                assert abs(number) < 2**60, (option.opts, value)
                for kind in settings:
                    if any(field.name == option.name for field in fields(kind)):
                        with contextlib.suppress(MaceBoundsError):
                            kind(**{option.name: number})


@pytest.mark.parametrize(
    "settings", [ExtractSettings, FitConfig, AuditConfig, BuildConfig, CompareConfig, ServiceConfig]
)
def test_every_number_has_limits(settings):
    for declared in fields(settings):
        if declared.type in ("int", "float", "int | None"):
            assert declared.metadata["minimum"] is not None, declared.name
            assert declared.metadata["maximum"] is not None, declared.name
            for beyond in (declared.metadata["minimum"] - 1, declared.metadata["maximum"] + 1, float("nan")):
                with pytest.raises(MaceBoundsError, match=declared.name):
                    settings(**{declared.name: beyond})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "compare s o --methods a --methods b",
            "--methods was given more than once: give one list with commas",
        ),
        ("score x.cif --model mini -m mini", "--model/-m was given more than once: give it once"),
        ("score x.cif -l 0.9 --level=95", "--level/-l was given more than once: give it once"),
        ("fit s h --robust --no-robust", "--robust/--no-robust was given more than once: give it once"),
    ],
)
def test_an_option_given_twice_is_refused(line, told, run):
    done = run(*line.split())
    assert done.exit_code == 2
    assert done.stderr == f"error: {told}; see mace-bounds {line.split()[0]} --help\n"


def test_options_that_may_be_repeated_and_help_twice(run):
    assert "given more than once" not in run("plot", "x", "-f", "png", "-f", "svg").stderr
    assert run("score", "-h", "-h").exit_code == 0


def test_no_arguments_show_the_help():
    done = CliRunner().invoke(app, [])
    assert "score" in done.output
