"""The rows of a CIF's atom sites: which element, whether it counts, and where its copies are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.structures.formats.cif.grammar import Block, decimals, number, quote
from mace_bounds.structures.formats.entries import PARTIAL_OCCUPANCIES

if TYPE_CHECKING:
    from mace_bounds.structures.formats.cif.groups import Group

SYMBOLS = frozenset(chemical_symbols[1:]) | {"D", "T"}
WATER = re.compile(r"(oh|ow|wat(er)?|h2o)(?![a-z])|o\d+w", re.IGNORECASE)
_OXYGEN = re.compile(r"[OoW](?![a-z])")
_TYPE = re.compile(r"(\d{1,3})?([A-Za-z]+)[-+0-9.()*'\s]*(?:\([IVX]+\))?")
_LETTERS = re.compile(r"\d{0,3}([A-Za-z]+)")
_MIXED = re.compile(r"[A-Za-z]\S*[/,&+]\s*[A-Za-z]")
_PLAIN = re.compile(r"-?\d*\.?\d+")
_SAME_A, _LARGEST_A = 0.1, 0.35  # copies of one site: closer than this; than this for few digits
_FULL = (0.995, 1.011)
_MAX_PREFIXES = 8


@dataclass(frozen=True)
class Site:
    """One row that counts: its label, element and the multiplicity that the file states."""

    label: str
    symbol: str
    row: int


@dataclass
class Sites:
    """The rows of a block that hold atoms.

    Attributes
    ----------
    sites : list of Site
    fractional : ndarray, shape (n_sites, 3)
    digits : int
        Decimal places that the coordinates are given to.
    left_out : list of str
        Labels of rows without coordinates, and of dummies.
    choices : dict
        Label prefix to elements, where the file leaves open which one is meant (``CL1``: carbon or chlorine).
    prefixes : list of str
        Of every site, the prefix of its label in ``choices``, else an empty text.
    """

    sites: list[Site]
    fractional: NDArray[np.float64]
    digits: int
    left_out: list[str]
    choices: dict[str, tuple[str, ...]]
    prefixes: list[str]

    def assignments(self) -> Iterator[list[str]]:
        """Yield the elements of the sites, for every way to read the labels."""
        names = list(self.choices)
        for combination in product(*(self.choices[name] for name in names)):
            chosen = dict(zip(names, combination, strict=True))
            yield [
                chosen.get(prefix, site.symbol)
                for site, prefix in zip(self.sites, self.prefixes, strict=True)
            ]

    def take(self, index: NDArray[np.intp]) -> Sites:
        """Return some of the sites."""
        return Sites(
            [self.sites[i] for i in index],
            self.fractional[index],
            self.digits,
            self.left_out,
            self.choices,
            [self.prefixes[i] for i in index],
        )


def read_sites(block: Block, allowed: frozenset[str]) -> Sites:
    """Read the atom sites of a block.

    Parameters
    ----------
    block : Block
    allowed : frozenset of str
        Elements that the file names elsewhere (formula, list of atom types); empty if it names none.

    Raises
    ------
    StructureError
        If some row cannot be an atom of an ordered crystal.
    """
    labels = block.column("_atom_site_label", "_atom_site_label_atom_id")
    types = block.column("_atom_site_type_symbol")
    n_rows = max(len(labels), len(types))
    if not n_rows:
        raise StructureError("the CIF lists no atom sites; check the file.")
    labels, types = labels or types, types or [""] * n_rows
    words = _coordinates(block, n_rows)
    occupancies = _filled(block, "_atom_site_occupancy", n_rows)
    dummies = _filled(block, "_atom_site_calc_flag", n_rows)
    _refuse_alternatives(block, labels, occupancies)
    sites, rows, left_out, weights = [], [], [], []
    choices: dict[str, tuple[str, ...]] = {}
    prefixes = []
    for i in range(n_rows):
        occupancy = number(occupancies[i], "_atom_site_occupancy") if occupancies[i] else 1.0
        if occupancy == 0:
            continue
        if dummies[i].lower() in ("dum", "dummy") or not any(words[i]):
            left_out.append(labels[i])
            continue
        options = _elements(labels[i], types[i], allowed)
        if not options:
            left_out.append(labels[i])
            continue
        prefix = ""
        if len(options) > 1:
            prefix = _LETTERS.match(labels[i])[1][:2]  # type: ignore[index]
            choices[prefix] = options
        prefixes.append(prefix)
        weights.append(occupancy)
        sites.append(Site(labels[i], options[0], i))
        rows.append([_coordinate(word, labels[i]) for word in words[i]])
    if not sites:
        raise StructureError("the CIF lists no atom sites with coordinates; check the file.")
    if len(choices) > _MAX_PREFIXES:
        raise StructureError("the CIF has labels that may mean several elements; add _atom_site_type_symbol.")
    result = Sites(
        sites,
        np.array(rows),
        max(decimals(w) for words_ in words for w in words_ if w),
        left_out,
        choices,
        prefixes,
    )
    return _merged(result, np.array(weights))


def _filled(block: Block, tag: str, n_rows: int) -> list[str]:
    values = block.column(tag)
    if values and len(values) != n_rows:
        raise StructureError(
            f"the CIF gives {len(values)} values of {tag} for {n_rows} sites; correct the loop."
        )
    return values or [""] * n_rows


def _coordinates(block: Block, n_rows: int) -> list[tuple[str, ...]]:
    columns = [block.column(f"_atom_site_fract_{axis}") for axis in "xyz"]
    if not any(columns) and block.column("_atom_site_cartn_x"):
        raise StructureError(
            "the CIF gives Cartesian coordinates only; convert them to _atom_site_fract_x, _y, _z."
        )
    for axis, column in zip("xyz", columns, strict=True):
        if len(column) != n_rows:
            raise StructureError(
                f"the CIF has fractional coordinates along {axis} of {len(column)} in {n_rows} atoms; add "
                "_atom_site_fract_x, _y and _z."
            )
    return list(zip(*columns, strict=True))


def _coordinate(word: str, label: str) -> float:
    if not word:
        raise StructureError(
            f"site {quote(label)} has an unknown coordinate; give all three or leave the site out."
        )
    value = float(word) if _PLAIN.fullmatch(word) else number(word, f"site {quote(label)}")
    if not np.isfinite(value):
        raise StructureError(f"a fractional coordinate is {value}, not finite; correct the CIF.")
    if abs(value) >= 1e6:
        raise StructureError("the fractional coordinates are absurdly large or not finite; correct the CIF.")
    return value


def _refuse_alternatives(block: Block, labels: list[str], occupancies: list[str]) -> None:
    """Refuse what holds several alternatives of a disordered part, or one that symmetry doubles."""
    groups = _filled(block, "_atom_site_disorder_group", len(labels))
    if not any(groups):
        return
    assemblies = _filled(block, "_atom_site_disorder_assembly", len(labels))
    seen: dict[str, tuple[str, str]] = {}
    for label, group, assembly, occupancy in zip(labels, groups, assemblies, occupancies, strict=True):
        if group in ("", "0") or (occupancy and _is_zero(occupancy)):
            continue
        first_group, first = seen.setdefault(assembly, (group, label))
        if group != first_group or group.startswith("-"):
            raise StructureError(
                f"sites {quote(first)} and {quote(label)} are alternatives of a disordered part (disorder groups "
                f"{quote(first_group)} and {quote(group)}); keep one alternative."
            )


def _is_zero(text: str) -> bool:
    try:
        return number(text, "") == 0
    except StructureError:
        return False


def _elements(label: str, kind: str, allowed: frozenset[str]) -> tuple[str, ...]:
    """Return the elements that a site may be, the likeliest first; none for a centroid."""
    if kind and not WATER.match(kind):
        symbol = _of_type(kind)
        if symbol is None:
            raise StructureError(
                f"site {quote(label)} has the type {quote(kind)}, which is no single chemical element; remove dummies, "
                "order mixed sites, or correct _atom_site_type_symbol."
            )
        return (symbol,)
    if kind and label and not (WATER.match(label) or _OXYGEN.match(label)):
        raise StructureError(
            f"site {quote(label)} has the type {quote(kind)}, which is another atom; correct label or type."
        )
    if kind or WATER.match(label):
        return ("O",)
    letters = _LETTERS.match(label)
    if letters is None or _MIXED.search(label):
        raise _no_element(label)
    word = letters[1]
    two, one = word[:2].capitalize(), word[0].upper()
    options = tuple(s for s in dict.fromkeys((two, one)) if s in SYMBOLS)
    if allowed:
        options = tuple(s for s in options if s in allowed)
        if options:
            return options if len(options) < 2 or word[1].isupper() else options[:1]
        if word.lower() in ("cg", "cent", "du", "x", "q"):
            return ()
        raise _no_element(label, " of its formula")
    if word[1:2].islower():
        known = len(word) == 2 or word[2].isupper()
        options = (two,) if two in SYMBOLS and known else (one,) if one in "OH" and len(word) == 2 else ()
    if len(options) != 1 or one == "T" == options[0] or word.lower() in ("va", "vac", "du"):
        raise _no_element(label)
    return options


def _no_element(label: str, where: str = "") -> StructureError:
    return StructureError(
        f"the label {quote(label)} does not say one chemical element{where}; add _atom_site_type_symbol."
    )


def _of_type(kind: str) -> str | None:
    match = _TYPE.fullmatch(kind)
    if match is None:
        return None
    letters = match[2]
    for end in ("", "val", "va", "iso", "cal"):
        word = letters.removesuffix(end)
        if word in SYMBOLS and (not end or word != letters):
            return word
    return letters.capitalize() if len(letters) <= 2 and letters.capitalize() in SYMBOLS else None


def _merged(found: Sites, weights: NDArray[np.float64]) -> Sites:
    """Merge rows of one element on one place whose occupancies make one atom; refuse other partial ones."""
    partial = np.flatnonzero((weights < _FULL[0]) | (weights > _FULL[1]))
    if not len(partial):
        return found
    keep = np.ones(len(weights), dtype=bool)
    for i in partial:
        if not keep[i]:
            continue
        site = found.sites[i]
        if not 0 < weights[i] <= _FULL[1]:
            raise StructureError(
                f"site {quote(site.label)} has the occupancy {weights[i]:g}; write the share of the site that is "
                "occupied, 1 for a whole atom."
            )
        same = [
            j
            for j in partial
            if found.sites[j].symbol == site.symbol
            and found.prefixes[j] == found.prefixes[i]
            and np.abs(found.fractional[j] - found.fractional[i]).max() < 1e-3
        ]
        if not _FULL[0] <= weights[same].sum() <= _FULL[1]:
            raise StructureError(f"{PARTIAL_OCCUPANCIES.partition(';')[0]} ({quote(site.label)}: {weights[i]:g}); "
                                 f"{PARTIAL_OCCUPANCIES.partition('; ')[2]}")  # fmt: skip
        keep[[j for j in same if j != i]] = False
    return found.take(np.flatnonzero(keep))


def expand(
    fractional: NDArray[np.float64],
    group: Group,
    cell: NDArray[np.float64],
    digits: int,
    labels: Sequence[str],
) -> list[NDArray[np.float64]]:
    """Return the copies of every site; copies that rounding of the coordinates has split are one.

    Parameters
    ----------
    fractional : ndarray, shape (n_sites, 3)
    group : Group
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, Å.
    digits : int
        Decimal places of the coordinates: the fewer there are, the farther apart copies of one site can be.
    labels : sequence of str
        For messages.
    """
    n_operations = len(group.rotations)
    if n_operations == 1:
        return [position[None] for position in fractional]
    tolerance = max(_SAME_A, min(_LARGEST_A, 10.0**-digits * float(np.linalg.norm(cell, axis=1).sum())))
    copies = []
    images = np.einsum("oij,nj->noi", group.rotations, fractional) + group.translations
    shifted = images - fractional[:, None]
    shifted -= np.rint(shifted)
    near = np.linalg.norm(shifted @ cell, axis=-1) < tolerance
    for i, position in enumerate(fractional):
        if near[i].sum() == 1:
            copies.append(images[i] % 1.0)
        else:
            copies.append(_special(position, shifted[i], near[i], group, labels[i]))
    return copies


def distinct(found: Sites, group: Group, cell: NDArray[np.float64]) -> Sites:
    """Leave out sites that operations make of an earlier one: molecules that were completed before they were written.

    Merging is right only where formula and Z say so: compare them with the result.
    """
    rotations, translations = group.rotations, group.translations
    kept: list[int] = []
    for i, site in enumerate(found.sites):
        same = [j for j in kept if found.sites[j].symbol == site.symbol]
        images = np.einsum("oij,nj->noi", rotations, found.fractional[same]) + translations
        shifts = images - found.fractional[i]
        shifts -= np.rint(shifts)
        if not (np.linalg.norm(shifts @ cell, axis=-1) < _SAME_A).any():
            kept.append(i)
    return found.take(np.array(kept))


def _special(
    position: NDArray[np.float64],
    shifts: NDArray[np.float64],
    near: NDArray[np.bool_],
    group: Group,
    label: str,
) -> NDArray[np.float64]:
    """Return the copies of a site on a special position: its mean over the operations that leave it there."""
    centre = position + shifts[near].mean(axis=0)
    images = (group.rotations @ centre + group.translations) % 1.0
    keys = np.rint(images * 1e5).astype(np.int64) % 100_000
    order = np.lexsort(keys.T)
    ordered = keys[order]
    step = np.abs(np.diff(ordered, axis=0))
    unique: NDArray[np.float64] = images[order][
        np.concatenate([[True], (np.minimum(step, 100_000 - step) > 2).any(axis=1)])
    ]
    if len(unique) * near.sum() != len(group.rotations):
        unique = _unique_pairwise(images)
    if len(unique) * near.sum() != len(group.rotations):
        raise StructureError(
            f"site {quote(label)} lies so near to a special position that its number of copies is not clear; give its "
            "coordinates with more digits."
        )
    return unique


def _unique_pairwise(images: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = images[:, None] - images[None]
    difference -= np.rint(difference)
    close = (np.abs(difference) < 1e-4).all(axis=-1)
    first = np.flatnonzero(~np.triu(close, 1).any(axis=0))
    return np.array(images[first], dtype=np.float64)
