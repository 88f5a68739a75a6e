"""JSON from a folder that may be damaged or foreign, read strictly into what a dataclass declares."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pydantic import TypeAdapter

T = TypeVar("T")


def parsed(kind: type[T], text: str | bytes) -> T:
    """Read JSON as ``kind``, where a number is no text, 3.5 no integer and 1 no truth value.

    Parameters
    ----------
    kind : type
        A dataclass with types for all fields; keys that it does not know are left out.
    text : str or bytes
        JSON.

    Raises
    ------
    ValueError
        With the first place that is wrong, and what is wanted there.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: int
    >>> parsed(Point, '{"x": 1}')
    Point(x=1)
    >>> parsed(Point, '{"x": 3.5}')
    Traceback (most recent call last):
        ...
    ValueError: x: Input should be a valid integer
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{place}: {first['msg']}") from None
    return value


@lru_cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
