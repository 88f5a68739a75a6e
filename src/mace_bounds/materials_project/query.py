"""What to download: ``mp:Li-Fe-P-O,hull=0.05`` as text, as fields, and as searches of the database.

The text has one canonical form (``str(query)``), so that equal queries share a file in the cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ase.data import chemical_symbols

from mace_bounds.errors import SourceError
from mace_bounds.structures import clean

PREFIX = "mp:"
THERMO_TYPE = "GGA_GGA+U"
MOST_ELEMENTS = 10  # no material of the database has more
MOST_WITHIN = 8  # 255 systems in one address
_SUBJECTS = ("chemsys", "within", "elements", "formula", "ids")
_RANGES = ("hull", "nsites")
_ID = re.compile(r"(mp|mvc)-[0-9a-z]+")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?[0-9.]*|[()\[\]][0-9.]*)+")
_ELEMENTS = frozenset(chemical_symbols[1:])
_HOW = "write mp:Li-Fe-P-O, mp:elements=Li,Fe, mp:LiFePO4, mp:mp-149,mp-13, mp:within=Li-Fe-O,hull=0.05 or mp:all"

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Query:
    """A subset of the Materials Project.

    At most one of ``chemsys``, ``within``, ``elements``, ``formula`` and ``ids`` is set; ``hull`` and ``nsites``
    narrow it. With nothing set it is the whole database.
    """

    # chemical systems, each with exactly these elements (``"Fe-Li-O-P"``); one may hold ``*``
    chemsys: tuple[str, ...] = ()
    # elements of which a material holds some, and no others: a system with all its subsystems
    within: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()  # elements of which a material holds all, and maybe others
    formula: tuple[str, ...] = ()  # formulas (``"LiFePO4"``)
    ids: tuple[str, ...] = ()  # material ids (``"mp-149"``)
    hull: Range | None = None  # least and largest distance from the GGA/GGA+U hull, eV/atom
    nsites: Range | None = None  # least and largest number of atoms in the cell

    @property
    def everything(self) -> bool:
        """Whether the database has nothing to choose by: then it is taken in bulk."""
        return self.hull is None and not any(getattr(self, name) for name in _SUBJECTS)

    def __str__(self) -> str:
        """Return the one way to write it: ``mp:within=Fe-Li-O,hull=..0.05``."""
        given = [(name, getattr(self, name)) for name in _SUBJECTS if getattr(self, name)]
        parts = [f"{name}=" + ("-" if name == "within" else ",").join(values) for name, values in given]
        ranges = [(name, getattr(self, name)) for name in _RANGES if getattr(self, name) is not None]
        parts += [
            f"{name}=" + "..".join("" if x is None else f"{x:g}" for x in ends) for name, ends in ranges
        ]
        return PREFIX + (",".join(parts) or "all")

    def searches(self) -> list[dict[str, Any]]:
        """Return the arguments of the searches that make it up, each for ``materials.thermo.search``.

        It is one search. Only ``elements`` takes one for each number of elements, because the database's
        thermodynamic documents are not searched by a list of elements but by one system with wild cards.
        ``nsites`` is no argument of that search either: it is applied to what comes.
        """
        common: dict[str, Any] = {"thermo_types": [THERMO_TYPE]}
        if self.hull is not None:
            common["energy_above_hull"] = self.hull
        if self.elements:
            stars = range(MOST_ELEMENTS - len(self.elements) + 1)
            return [{**common, "chemsys": "-".join([*self.elements, *"*" * n])} for n in stars]
        if self.chemsys:
            common["chemsys"] = list(self.chemsys)
        if self.within:
            sizes = range(1, len(self.within) + 1)
            common["chemsys"] = ["-".join(some) for n in sizes for some in combinations(self.within, n)]
        if self.formula:
            common["formula"] = list(self.formula)
        if self.ids:
            common["material_ids"] = list(self.ids)
        return [common]


def is_query(source: object) -> bool:
    """Tell whether a source names a subset of the Materials Project rather than a path."""
    return isinstance(source, str) and source.startswith(PREFIX)


def with_subsystems(source: Any) -> Any:
    """A query of one chemical system with all its subsystems, as a convex hull needs it; other sources as they are.

    Examples
    --------
    >>> with_subsystems("mp:Li-Fe-O,hull=0.1")
    'mp:within=Fe-Li-O,hull=..0.1'
    """
    if not is_query(source):
        return source
    query = parse_query(source)
    if len(query.chemsys) != 1 or "*" in query.chemsys[0]:
        return source
    return str(replace(query, chemsys=(), within=tuple(query.chemsys[0].split("-"))))


def parse_query(text: str) -> Query:
    """Read a query.

    Parameters
    ----------
    text : str
        ``mp:`` and terms with commas between them: ``KEY=VALUE[,VALUE...]``, or one bare term of a known form
        (a chemical system, a formula, ids, ``all``). ``hull`` and ``nsites`` take ``MOST`` or ``LEAST..MOST``.

    Raises
    ------
    SourceError
        If it is no query; the message says how to write one.
    """
    if not is_query(text):
        raise SourceError(f"{clean(text, 80)!r} is no query, as it does not begin with mp:; {_HOW}.")
    terms: dict[str, list[str]] = {}
    key = ""
    for piece in (piece.strip() for piece in text.removeprefix(PREFIX).split(",")):
        name, equals, value = piece.partition("=")
        if equals:
            if name in terms:
                raise SourceError(f"{name} is twice in {clean(text, 80)!r}; join its values with commas.")
            key = name
        else:
            key, value = key or _bare(piece, text), piece
        terms.setdefault(key, []).append(value.strip())
    return _query(terms, text)


def _bare(piece: str, text: str) -> str:
    if piece == "all":
        return "all"
    if _ID.fullmatch(piece):
        return "ids"
    if piece in _ELEMENTS or "-" in piece:
        return "chemsys"
    if _FORMULA.fullmatch(piece):
        return "formula"
    raise SourceError(f"{clean(text, 80)!r} is no query of the Materials Project; {_HOW}.")


def _query(terms: dict[str, list[str]], text: str) -> Query:
    unknown = sorted(set(terms) - {*_SUBJECTS, *_RANGES, "all"})
    subjects = [name for name in (*_SUBJECTS, "all") if name in terms]
    if unknown or len(subjects) > 1 or not all(all(values) for values in terms.values()):
        what = (
            f"{clean(unknown[0], 20)!r} is no key of a query"
            if unknown
            else f"{clean(text, 80)!r} is no query"
        )
        raise SourceError(
            f"{what}, which has at most one of {', '.join(_SUBJECTS)}, narrowed by hull and nsites; {_HOW}."
        )
    fields: dict[str, Any] = {name: _range(name, terms[name]) for name in _RANGES if name in terms}
    if "chemsys" in terms:
        fields["chemsys"] = tuple(_system(value, stars=True) for value in terms["chemsys"])
        if "*" in "".join(fields["chemsys"]) and len(fields["chemsys"]) > 1:
            raise SourceError("a chemical system with * must stand alone; use one query for each.")
    if "within" in terms:
        fields["within"] = tuple(_system("-".join(terms["within"]), stars=False).split("-"))
        if len(fields["within"]) > MOST_WITHIN:
            raise SourceError(f"within= takes at most {MOST_WITHIN} elements; use elements= or all.")
    if "elements" in terms:
        fields["elements"] = tuple(_system("-".join(terms["elements"]), stars=False).split("-"))
    if "formula" in terms:
        fields["formula"] = tuple(_formula(value) for value in terms["formula"])
    if "ids" in terms:
        bad = [value for value in terms["ids"] if not _ID.fullmatch(value)]
        if bad:
            raise SourceError(f"{clean(bad[0], 40)!r} is no id; write ids as mp-149.")
        fields["ids"] = tuple(dict.fromkeys(terms["ids"]))
    return Query(**fields)


def _system(text: str, *, stars: bool) -> str:
    """Return elements in alphabetical order with hyphens between them, stars last."""
    symbols = text.split("-")
    wrong = [s for s in symbols if s not in _ELEMENTS and not (stars and s == "*")]
    if wrong or len({s for s in symbols if s != "*"}) + symbols.count("*") != len(symbols):
        if wrong:
            raise SourceError(f"{clean(wrong[0], 20)!r} is no chemical element; write a system as Li-Fe-O.")
        raise SourceError(f"an element is twice in {clean(text, 40)!r}; name each once.")
    return "-".join(sorted(symbols, key=lambda s: (s == "*", s)))


def _formula(text: str) -> str:
    from pymatgen.core import Composition, Element

    try:
        composition = Composition(text)
        known = len(composition) > 0 and all(isinstance(element, Element) for element in composition)
    except (ValueError, KeyError):
        known = False
    if not known:
        raise SourceError(f"{clean(text, 40)!r} is no chemical formula; write it as LiFePO4.")
    return text


def _range(name: str, values: Sequence[str]) -> Range:
    low, dots, high = values[0].partition("..")
    ends = (low, high) if dots else ("", low)
    try:
        limits = [None if end == "" else float(end) for end in ends]
    except ValueError:
        limits = []
    numbers = [x for x in limits if x is not None]
    if len(values) > 1 or not numbers or not all(map(math.isfinite, numbers)) or numbers != sorted(numbers):
        what = "eV/atom" if name == "hull" else "atoms"
        raise SourceError(
            f"{clean(','.join(values), 40)!r} is no range of {name}; write {name}=MOST or {name}=LEAST..MOST in {what}."
        )
    return limits[0], limits[1]
