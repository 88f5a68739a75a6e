"""How a field of a settings dataclass is declared once: its default, what it means, and what it may be.

The command line makes its options from these fields (:mod:`mace_bounds.cli.options`), so that a setting is written
in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, field, fields
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, get_origin, get_type_hints

from mace_bounds.errors import MaceBoundsError

T = TypeVar("T")


class About(TypedDict, total=False):
    """What may be said of a setting beside its default and its help."""

    minimum: float | None  # limits of a number, both allowed
    maximum: float | None
    metavar: str | None  # what the command line calls the value
    shown: str | None  # and what it shows as its default
    parser: Callable[[str], Any] | None  # from the text of the command line to the value
    choices: (
        Iterable[str] | None
    )  # what a text may be where a registry decides it (a ``Literal`` type says so itself)
    # name of its option, and a short one ("--level -l"); True for the name of the field, False where there is none
    option: str | bool


_SILENT: About = {
    "minimum": None, "maximum": None, "metavar": None, "shown": None, "parser": None, "choices": None, "option": True,
}  # fmt: skip


def setting(default: T, help: str, **about: Unpack[About]) -> T:
    """Declare a field of a settings dataclass.

    Parameters
    ----------
    default : object
        Its value where nothing is said.
    help : str
        One sentence that says what it does, with the unit.
    **about
        See :class:`About`.

    Returns
    -------
    object
        A :func:`dataclasses.field` with this as metadata.
    """
    declared: T = field(default=default, metadata={**_SILENT, **about, "help": help})
    return declared


def setting_choices(declared: Field[Any], hint: Any) -> tuple[Any, ...] | None:
    """What a field may be: its ``choices``, else the values of its ``Literal`` type ``hint``; None for any value."""
    choices = declared.metadata.get("choices")
    if choices is not None:
        return tuple(choices)
    return get_args(hint) if get_origin(hint) is Literal else None


def check_settings(settings: Any, error: type[MaceBoundsError]) -> None:
    """Refuse values that a field declared with :func:`setting` may not have; call it in ``__post_init__``.

    Parameters
    ----------
    settings : dataclass instance
        Fields with ``choices`` or of a ``Literal`` type are compared with what they may be, numbers with their limits.
    error : type
        What is raised, one sentence with the choices.
    """
    hints = get_type_hints(type(settings))
    for declared in fields(settings):
        name, about = declared.name, declared.metadata
        value, choices = getattr(settings, name), setting_choices(declared, hints[name])
        if choices is not None and value not in choices:
            known = ", ".join(map(str, choices))
            raise error(f"{name} is {value!r}, which is none of {known}; choose one of these.")
        for limit, beyond in (("minimum", -1), ("maximum", 1)):
            bound = about.get(limit)
            if bound is not None and value is not None and not beyond * (value - bound) <= 0:  # nor NaN
                raise error(f"{name} is {value:g}, and its {limit} is {bound:g}; choose another value.")
