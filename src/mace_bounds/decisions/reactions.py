"""Reactions as people write them, to balanced sums of energies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mace_bounds.errors import StructureError

_ARROW = re.compile(r"\s*(?:<?-+>|<?=+>|=|→|⟶|⇌|↔)\s*")
_TERM = re.compile(r"(?:(\d+/\d+|\d+(?:\.\d*)?|\.\d+)(?:\s*\*\s*|\s+))?(\S.*)", re.DOTALL)
_TOUCHING = re.compile(r"(\d+/\d+|\d+(?:\.\d*)?|\.\d+)([A-Z(].*)", re.DOTALL)
_LARGEST_DENOMINATOR = 10_000
_BALANCED = 1e-8  # atoms that may be missing, relative to the atoms of a side

Counts = Mapping[str, float]
"""Atoms of each element in one formula unit."""


@dataclass(frozen=True)
class Reaction:
    """A balanced reaction: what is made less what it is made of."""

    names: tuple[str, ...]
    coefficients: tuple[float, ...]  # formula units; below 0 for what is used up

    def __str__(self) -> str:
        sides = [
            " + ".join(
                f"{abs(c):g} {name}".removeprefix("1 ")
                for name, c in zip(self.names, self.coefficients, strict=True)
                if sign * c > 0
            )
            for sign in (-1, 1)
        ]
        return " -> ".join(sides)


def parse_reaction(text: str, composition_of: Callable[[str], Counts]) -> Reaction:
    """Read a reaction and balance it.

    Parameters
    ----------
    text : str
        ``"Li2O + Fe2O3 -> 2 LiFeO2"``, ``"mp-1 = mp-2"``: names between ``+`` with blanks around it, with a number
        of formula units before each or before none. A name without one beside others with numbers counts once.
    composition_of : callable
        Atoms of each element in a formula unit of a name; raises :class:`StructureError` where it knows none.

    Returns
    -------
    Reaction

    Raises
    ------
    StructureError
        If it is no reaction, does not balance, or can be balanced in several ways.

    Examples
    --------
    >>> units = {"Li2O": {"Li": 2, "O": 1}, "Fe2O3": {"Fe": 2, "O": 3}, "LiFeO2": {"Li": 1, "Fe": 1, "O": 2}}
    >>> str(parse_reaction("Li2O + Fe2O3 -> LiFeO2", units.__getitem__))
    'Li2O + Fe2O3 -> 2 LiFeO2'
    """
    sides = _ARROW.split(text.strip())
    if len(sides) != 2 or not all(sides):
        raise StructureError(f"{text!r} is no reaction; write A + B -> C, with one arrow.")
    names, numbers, signs = list[str](), list[Fraction | None](), list[int]()
    for side, sign in zip(sides, (-1, 1), strict=True):
        for term in re.split(r"\s+\+\s+", side.strip()):
            found = _TERM.fullmatch(term.strip())
            if found is None:
                raise StructureError(f"{text!r} has an empty part; write A + B -> C.")
            number, name = _number_and_name(found[1], found[2].strip(), composition_of)
            numbers.append(number)
            names.append(name)
            signs.append(sign)
    counts = [composition_of(name) for name in names]
    if any(number is not None for number in numbers):
        given = [sign * float(1 if n is None else n) for sign, n in zip(signs, numbers, strict=True)]
    else:
        given = _balanced(text, counts, signs)
    check_balanced(given, counts, names)
    return Reaction(tuple(names), tuple(given))


def _number_and_name(
    number: str | None, name: str, composition_of: Callable[[str], Counts]
) -> tuple[Fraction | None, str]:
    """The number before a name, also where it touches it (``2TiO2``) and the whole is no name itself."""
    touching = _TOUCHING.fullmatch(name)
    if number is None and touching is not None:
        try:
            composition_of(name)
        except StructureError:
            number, name = touching.groups()
    if number is None:
        return None, name
    try:
        value = Fraction(number)
        float(value)
    except (ZeroDivisionError, OverflowError):
        raise StructureError(
            f"{number} is no number of formula units of {name}; write another one."
        ) from None
    return value, name


def check_balanced(coefficients: Sequence[float], counts: Sequence[Counts], names: Sequence[str]) -> None:
    """Refuse (:class:`StructureError`) a sum in which an element does not cancel, with what is left over."""
    left: dict[str, float] = {}
    total = 0.0
    for c, atoms in zip(coefficients, counts, strict=True):
        for element, n in atoms.items():
            left[element] = left.get(element, 0.0) + c * n
            total += abs(c * n)
    wrong = {element: n for element, n in left.items() if abs(n) > _BALANCED * max(total, 1e-300)}
    if wrong or not total:
        over = ", ".join(f"{n:+g} {element}" for element, n in wrong.items()) or "nothing is in it"
        raise StructureError(
            f"{' and '.join(map(str, names))} do not balance ({over}); correct the numbers of formula units."
        )


def _balanced(text: str, counts: Sequence[Counts], signs: Sequence[int]) -> list[float]:
    """The one set of numbers, smallest first number 1 or whole, that balances; exact fractions as floats."""
    elements = sorted({element for atoms in counts for element in atoms})
    matrix = np.array(
        [[s * atoms.get(e, 0.0) for atoms, s in zip(counts, signs, strict=True)] for e in elements]
    )
    _, values, rows = np.linalg.svd(matrix)
    rank = int((values > 1e-9 * values[0]).sum()) if len(values) else 0
    if matrix.shape[1] - rank != 1:
        how = "in no way" if matrix.shape[1] == rank else "in several ways"
        raise StructureError(f"{text!r} can be balanced {how}; give the numbers of formula units.")
    amounts = rows[-1] / rows[-1][np.argmax(np.abs(rows[-1]))]
    if (amounts <= 1e-9).any():
        raise StructureError(f"{text!r} balances only with a part on the other side; write it there.")
    smallest = amounts.min()
    exact = [Fraction(float(a / smallest)).limit_denominator(_LARGEST_DENOMINATOR) for a in amounts]
    whole = np.lcm.reduce([a.denominator for a in exact])
    return [sign * float(a * int(whole)) for sign, a in zip(signs, exact, strict=True)]
