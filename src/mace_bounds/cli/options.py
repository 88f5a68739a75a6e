"""Options of the command line, made from the fields of the settings' dataclasses.

A knob is declared once, in its dataclass (:func:`mace_bounds.settings.setting`); every command that takes the settings
has its option. ``@takes(fit=FitConfig)`` gives a command the options and hands it the object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin, get_type_hints

import typer

from mace_bounds.errors import MaceBoundsError
from mace_bounds.features import READING_FIELDS, ExtractSettings
from mace_bounds.levels import level_setting
from mace_bounds.settings import setting, setting_choices
from mace_bounds.structures import help_text

if TYPE_CHECKING:
    from mace_bounds.bounds import BoundsPredictor

PANELS = {"extract": "How structures are read", "fit": "How heads are fitted"}
"""Headings in the help, by the name under which settings are taken."""

COMMAND_LINE_DEFAULTS = {"workers": None}
"""All cores: in Python the default is this process, as a script must be guarded before it may start others."""


def from_text(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn a parser's ValueError, or an error of this package, into typer's, which keeps the sentence."""

    def parsed(text: Any) -> Any:
        try:
            return parse(text) if isinstance(text, str) else text  # a default is a value already
        except (ValueError, MaceBoundsError) as error:
            raise typer.BadParameter(str(error)) from None

    parsed.__name__ = "text"
    return parsed


TrainedModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="Where the model's own training compositions are looked up.",
        show_default="the store's model",
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help=f"A file ({help_text()}), a folder, a glob, - for standard input, or a Materials Project query such as "
        "mp:Li-Fe-P-O.",
    ),
]
FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help=f"Files ({help_text()}), folders, globs; - for stdin."),
]
StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="A feature store, from mace-bounds features.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output instead of a table.")]


@dataclass(frozen=True)
class Selection:
    """Settings of which a command offers some fields; the others keep their defaults."""

    settings: type
    offers: Callable[[str], bool]

    def options(self, panel: str | None = None) -> Iterator[inspect.Parameter]:
        """Parameters for typer, one for each field that is offered; fields that are settings themselves are opened."""
        hints = get_type_hints(self.settings)
        for declared in fields(self.settings):
            if is_dataclass(hints[declared.name]):
                yield from self._inner(hints[declared.name]).options(PANELS.get(declared.name, panel))
            elif declared.metadata.get("option", False) and self.offers(declared.name):
                yield _parameter(declared, hints[declared.name], panel)

    def build(self, given: dict[str, Any]) -> Any:
        """Make the object, taking its values out of ``given``."""
        hints, values = get_type_hints(self.settings), {}
        for declared in fields(self.settings):
            if is_dataclass(hints[declared.name]):
                values[declared.name] = self._inner(hints[declared.name]).build(given)
            elif self.offers(declared.name) and declared.name in given:
                value = given.pop(declared.name)
                values[declared.name] = tuple(value) if isinstance(value, list) else value
        return self.settings(**values)

    def _inner(self, settings: Any) -> Selection:
        return Selection(settings, self.offers)


def only(settings: type, *names: str) -> Selection:
    """Offer these fields."""
    return Selection(settings, lambda name: name in names)


@dataclass(frozen=True)
class BoundsOptions:
    """What bounds structures: a model and its head, at a level."""

    model: str | None = setting(
        None,
        "The frozen model: mini (ships with the package), chgnet, a name that mace knows, or a path. "
        "Default: the head's model, else medium-mpa-0.",
        metavar="NAME|PATH",
        option="--model -m",
    )
    head: str | None = setting(
        None, "The calibrated head. Default: the first that fits the model.", metavar="NAME|PATH"
    )
    level: float = level_setting()
    extract: ExtractSettings = field(default_factory=ExtractSettings)

    def predictor(self, **more: Any) -> BoundsPredictor:
        """The model with its head, loaded; ``more`` as of :class:`mace_bounds.BoundsPredictor`."""
        from mace_bounds.bounds import BoundsPredictor

        return BoundsPredictor(self.model, self.head, level=self.level, settings=self.extract, **more)


BOUNDS_OPTIONS = only(BoundsOptions, "model", "head", "level", *READING_FIELDS)


def without(settings: type, *names: str) -> Selection:
    """Offer all fields but these, also of the settings inside."""
    return Selection(settings, lambda name: name not in names)


def takes(**wanted: type | Selection) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of settings, and hand it the objects under these names.

    Parameters
    ----------
    **wanted : dataclass or Selection
        By the name of the command's parameter.

    Examples
    --------
    >>> from mace_bounds.features import ExtractSettings
    >>> @takes(extract=only(ExtractSettings, "max_atoms"))
    ... def count(source: str, *, extract: ExtractSettings) -> None:
    ...     print(source, extract.max_atoms)
    >>> list(inspect.signature(count).parameters)
    ['source', 'max_atoms']
    >>> count("x.cif", max_atoms=7)
    x.cif 7
    """
    selections = {
        name: part if isinstance(part, Selection) else without(part) for name, part in wanted.items()
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(*args: Any, **given: Any) -> None:
            built = {name: selection.build(given) for name, selection in selections.items()}
            command(*args, **given, **built)

        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name not in selections]
        made = [o for name, selection in selections.items() for o in selection.options(PANELS.get(name))]
        parameters = [*own, *made]
        # typer reads both of these, and would look at the command itself behind __wrapped__
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


def _parameter(field: Field[Any], hint: Any, panel: str | None) -> inspect.Parameter:
    """Return the option of one field as a parameter with an annotation for typer."""
    about: Any = field.metadata
    default: Any = COMMAND_LINE_DEFAULTS.get(field.name, field.default)
    if default is MISSING:
        raise TypeError(f"the setting {field.name} has no default, so it cannot be an option.")
    details: dict[str, Any] = {
        "help": about["help"],
        "metavar": about["metavar"],
        "rich_help_panel": panel,
        "show_default": about["shown"] or True,
    }
    kind, choices = hint, setting_choices(field, hint)
    if about["parser"] is not None:
        kind, details["parser"] = str | None, from_text(about["parser"])
    elif get_origin(hint) is tuple:
        kind, default = list[str], list(default)
    elif choices is not None:
        kind = Literal.__getitem__(choices)  # of a registry, or the Literal that the hint is
    elif hint is not bool:
        details |= {"min": about["minimum"], "max": about["maximum"]}
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(*_names(field), **details)],
    )


def _names(field: Field[Any]) -> list[str]:
    """``--plots/--no-plots`` for a switch that is on, ``--atoms`` for one that is off, ``--level -l`` as declared."""
    given = field.metadata["option"]
    first, *more = given.split() if isinstance(given, str) else [f"--{field.name.replace('_', '-')}"]
    if field.default is True:
        first = f"{first}/--no-{first.removeprefix('--')}"
    return [first, *more]
