"""Space groups of CIFs: lists of operations, and names in old, decorated and other programs' spellings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.structures.formats.cif.grammar import quote

MAX_OPERATIONS = 5_000
_LENGTH_TOLERANCE, _ANGLE_TOLERANCE = 0.02, 1.5  # relative, degrees
_DECORATIONS = (
    (re.compile(r"</?\w+>|\$|\\,|[*]"), ""),
    (re.compile(r"\\(?:bar|overline)\s*\{?\s*(\d)\s*\}?"), r"-\1"),
    (re.compile(r"(?<=\d)(?:\((\d)\)|~(\d)~|_\{?(\d)\}?|sub(\d))"), r"\1\2\3\4"),
    (re.compile(r"\(-(\d)\)"), r"-\1"),
)
_REMARK = re.compile(
    r"\{(.*?)\}|\[(.*?)\]|\((.*)\)|\s((?:origin|unique|cell choice|hexagonal|rhombohedral|no\.|#|<-).*)$"
)
_BLANKS = re.compile(r"[\s_'\"]")
_SUFFIXES = {"s": "1", "z": "2", "o1": "1", "o2": "2", "hr": "H", "rs": "R", "h": "H", "r": "R"}
_SUFFIX = re.compile(r"(.*?)(o[12]|hr|rs|[szhr])")


@dataclass(frozen=True, eq=False)
class Group:
    """A space group in one setting; ``key`` is equal for equal sets of operations."""

    name: str
    number: int | None
    key: frozenset[str]
    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]

    def fits(self, lengths: NDArray[np.float64], angles: NDArray[np.float64]) -> bool:
        """Tell whether every operation leaves the metric of a cell as it is (2 % and 1.5° for rounding)."""
        cosines = np.cos(np.radians(angles))
        metric = np.outer(lengths, lengths)
        for (i, j), c in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
            metric[i, j] = metric[j, i] = metric[i, j] * c
        turned = np.einsum("oji,jk,okl->oil", self.rotations, metric, self.rotations)
        new = np.sqrt(np.maximum(np.einsum("oii->oi", turned), 1e-12))
        if np.abs(new / lengths - 1).max() > _LENGTH_TOLERANCE:
            return False
        cos = np.stack(
            [turned[:, i, j] / (new[:, i] * new[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))], axis=1
        )
        return bool(np.abs(np.degrees(np.arccos(np.clip(cos, -1, 1))) - angles).max() <= _ANGLE_TOLERANCE)


@lru_cache(maxsize=512)
def listed_group(operations: tuple[str, ...]) -> Group:
    """Return the group of a list of operations (``"x,y,z"``; ``"x,y,z,+1"`` of magnetic groups).

    Raises
    ------
    StructureError
        If one is not understood, or if together they are no group (the identity may be left out).
    """
    ops = {_operation(text) for text in operations}
    group = gemmi.GroupOps([gemmi.Op(triplet) for triplet in ops | {"x,y,z"}])
    try:
        group.add_missing_elements()
        complete = len(list(group)) == len(ops | {"x,y,z"})
    except RuntimeError:
        complete = False
    if not complete:
        raise StructureError(
            f"the CIF's {len(ops)} symmetry operations are no group, so some are missing or wrong; complete the list."
        )
    found = gemmi.find_spacegroup_by_ops(group)
    return _group(group, found.xhm() if found else "", found.number if found else None)


@lru_cache(maxsize=8192)
def _operation(text: str) -> str:
    parts = re.sub(r"[\s()\"']", "", text).lower().split(",")
    if len(parts) == 4 and parts[3] in ("+1", "-1", "1"):
        parts.pop()
    try:
        op = gemmi.Op(",".join(parts))
        if op.triplet()[0] in "hkabc" or abs(op.det_rot()) != op.DEN**3:
            raise ValueError(text)
    except (RuntimeError, ValueError):
        raise StructureError(
            f"the symmetry operation {quote(text, 40)} is not understood; write it like 'x+1/2,-y,z', or write the "
            "crystal in P1."
        ) from None
    return op.wrap().triplet()


def centred(operations: Iterable[str], centrings: Iterable[str]) -> tuple[str, ...]:
    """Return every operation of a magnetic group combined with every one of its centrings."""
    ops, shifts = [gemmi.Op(_operation(o)) for o in operations], [gemmi.Op(_operation(c)) for c in centrings]
    return tuple((shift * op).wrap().triplet() for shift in shifts for op in ops)


def _group(ops: gemmi.GroupOps, name: str, number: int | None) -> Group:
    every = [op.wrap() for op in ops]
    every.sort(key=lambda op: op.triplet() != "x,y,z")  # the identity first
    rotations = np.array([op.rot for op in every], dtype=np.float64) / gemmi.Op.DEN
    translations = np.array([op.tran for op in every], dtype=np.float64) / gemmi.Op.DEN
    return Group(name, number, frozenset(op.triplet() for op in every), rotations, translations)


@lru_cache(maxsize=1024)
def _tabulated(hall: str, name: str, number: int) -> Group:
    return _group(gemmi.symops_from_hall(hall), name, number)


def _of_table(entry: gemmi.SpaceGroup) -> Group:
    return _tabulated(entry.hall, entry.xhm(), entry.number)


@lru_cache(maxsize=256)
def hall_group(symbol: str) -> Group | None:
    """Return the group of a Hall symbol (``"-P 4 2 3"``), None if it is none."""
    text = symbol.replace("_", " ").strip()
    try:
        ops = gemmi.symops_from_hall(text)
        found = gemmi.find_spacegroup_by_ops(ops)
        return _group(ops, found.xhm() if found else text, found.number if found else _type_of(ops))
    except (RuntimeError, ValueError):
        return None


def _type_of(ops: gemmi.GroupOps) -> int | None:
    """Return the number of a group in a setting that no table has."""
    import spglib

    group = _group(ops, "", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = spglib.get_spacegroup_type_from_symmetry(
                group.rotations.astype("intc"), group.translations
            )
        except Exception:  # spglib raises errors of its own, which differ between versions
            return None
    return None if found is None else int(found.number)


@lru_cache(maxsize=256)
def number_groups(number: int) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Return the standard settings (origins, axes) and all other settings of a number; empty for no number."""
    entries = [entry for entry in gemmi.spacegroup_table() if entry.number == number]
    standard = next((entry.hm for entry in entries if entry.is_reference_setting()), None)
    unique = {group.key: (entry, group) for entry in reversed(entries) for group in [_of_table(entry)]}
    pairs = list(reversed(unique.values()))
    return (
        tuple(group for entry, group in pairs if entry.hm == standard),
        tuple(group for entry, group in pairs if entry.hm != standard),
    )


@lru_cache(maxsize=1024)
def named_groups(name: str) -> tuple[Group, ...]:
    """Return all groups that a Hermann-Mauguin symbol may mean, the usual one first; none for an unknown symbol.

    Several come back where the symbol leaves open the origin (``"F d -3 m"``), the axes (``"R -3 m"``) or the unique
    axis (``"P 2/m"``).
    """
    text = name
    for pattern, replacement in _DECORATIONS:
        text = pattern.sub(replacement, text)
    text, remark = text.lower(), ""
    if _BLANKS.sub("", text) not in _names():  # brackets may be of the symbol: P 21212(a)
        remark = " ".join("".join(found) for found in _REMARK.findall(text))
        text = _REMARK.sub("", text)
    symbol, _, extension = _BLANKS.sub("", text).partition(":")
    entries, extension = _find(symbol, extension or _extension_of(remark))
    groups: dict[frozenset[str], Group] = {}
    for entry in entries:
        group = _of_table(entry)
        groups.setdefault(group.key, group)
    return tuple(groups.values())


def _extension_of(remark: str) -> str:
    """Return what a remark says of the setting: ``"origin choice 2"`` is ``"2"``, ``"hexagonal axes"`` is ``"H"``."""
    if "origin" in remark:
        choice = re.search(r"\b([12])\b", remark.partition("@")[0])
        if choice:
            return choice[1]
        return "2" if re.search(r"cent(re|er)", remark) else "1"
    if "hexagonal" in remark:
        return "H"
    return "R" if "rhombohedral" in remark else ""


def _find(symbol: str, extension: str) -> tuple[list[gemmi.SpaceGroup], str]:
    table = _names()
    entries = table.get(symbol, [])
    suffix = None if entries else _SUFFIX.fullmatch(symbol)
    if suffix and (suffix[2] in ("s", "z", "o1", "o2") or symbol[0] == "r"):
        entries, extension = table.get(suffix[1], []), suffix[2]
    extension = _SUFFIXES.get(extension, extension)
    if not extension or not entries:
        return entries, extension
    exact = [entry for entry in entries if entry.ext.strip("\0 ").lower() == extension.lower()]
    if exact:
        return exact, extension
    chosen = _choices().get((entries[0].number, extension))
    if chosen:
        return [chosen], extension
    plain = not any(entry.ext.strip("\0 ") for entry in entries)
    return (entries if plain and extension in ("1", "2", "H", "R") else []), extension


@lru_cache(maxsize=1)
def _names() -> dict[str, list[gemmi.SpaceGroup]]:
    """Return every symbol without blanks, in lower case: extended, short, full and old ones."""
    names: dict[str, list[gemmi.SpaceGroup]] = {}

    def add(symbol: str, entry: gemmi.SpaceGroup) -> None:
        found = names.setdefault(re.sub(r"[\s_]", "", symbol).lower(), [])
        if entry not in found:
            found.append(entry)

    entries = list(gemmi.spacegroup_table())
    for entry in entries:
        add(entry.hm, entry)
    for entry in sorted(entries, key=lambda entry: entry.qualifier.strip("\0")[:1] not in ("", "b")):
        if (
            entry.number <= 15 and len(entry.hm.split()) == 4
        ):  # unique axis b first: the standard short symbol
            add("".join(part for part in entry.hm.split() if part != "1"), entry)
            if "/" in entry.hm:
                add(entry.hm.removesuffix(" 1"), entry)  # "P 1 21/c"
        if entry.number >= 200 and entry.hm.split()[2] == "-3":
            add(entry.hm.replace("-3", "3"), entry)  # as before 1983
    for kind, entry in _types().values():
        add(kind.international_full, entry)
        if kind.number > 15:  # of monoclinic groups spglib's short symbol is the same for every setting
            add(kind.international_short, entry)
    return names


@lru_cache(maxsize=1)
def _types() -> dict[tuple[int, str], tuple[Any, gemmi.SpaceGroup]]:
    import spglib

    types = {}
    for hall_number in range(1, 531):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the way that spglib reports errors
            kind = spglib.get_spacegroup_type(hall_number)
        entry = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(kind.hall_symbol))
        if entry is not None:
            types[(kind.number, kind.choice)] = (kind, entry)
    return types


def _choices() -> dict[tuple[int, str], gemmi.SpaceGroup]:
    return {key: entry for key, (_, entry) in _types().items()}


def setting_group(number: int, code: str) -> Group | None:
    """Return the group of a number and a code of its setting (``"b1"``, ``"2"``, ``"cab"``), if there is one."""
    entry = next((e for (n, c), e in _choices().items() if n == number and c.lower() == code.lower()), None)
    return _of_table(entry) if entry else None


def is_shifted(listed: Group, named: Group) -> bool:
    """Tell whether a group is another one at another origin (in steps of 1/24 of the axes)."""
    if len(listed.rotations) != len(named.rotations):
        return False
    steps = np.arange(24) / 24
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    for rotation, translation in zip(named.rotations, named.translations, strict=True):
        same = (listed.rotations == rotation).all(axis=(1, 2))
        moved = translation + shifts - shifts @ rotation.T
        difference = moved[:, None] - listed.translations[same]
        difference -= np.rint(difference)
        shifts = shifts[(np.abs(difference) < 1e-3).all(axis=-1).any(axis=-1)]
        if not len(shifts):
            return False
    return True


@lru_cache(maxsize=1)
def _schoenflies() -> dict[str, int]:
    return {
        re.sub(r"[\^._\s]", "", kind.schoenflies).lower(): number
        for (number, _), (kind, _) in _types().items()
    }


def schoenflies_number(symbol: str) -> int | None:
    """Return the number of a Schoenflies symbol (``"Oh^5"``, ``"O_h.5"``)."""
    return _schoenflies().get(re.sub(r"[\^._\s{}]", "", symbol).lower()) if symbol else None
