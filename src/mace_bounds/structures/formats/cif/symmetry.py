"""Which operations a CIF's block gives: listed, named, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mace_bounds.errors import StructureError
from mace_bounds.structures.formats.cif.grammar import Block, optional_number, quote
from mace_bounds.structures.formats.cif.groups import (
    MAX_OPERATIONS,
    Group,
    centred,
    hall_group,
    listed_group,
    named_groups,
    number_groups,
    schoenflies_number,
    setting_group,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LISTS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_MAGNETIC = "_space_group_symop_magn_operation_xyz"
_CENTRING = "_space_group_symop_magn_centering_xyz"
_MODULATED = re.compile(
    r"_(space_group_ssg_|space_group_symop_ssg_|cell_wave_vector|cell_subsystem|atom_site_(displace_)?(fourier|special_func|occ_)"
    r"|atom_site_(legendre|crenel)|jana_cell_commen)"
)
_IS_NAME = re.compile(r"_(symmetry|space_group)\w*(h-?m|hermann)[\w-]*")
_IS_NUMBER = re.compile(r"_(symmetry|space_group)\w*(int_tables|_it_|_it)?_?(number|int_tables)\w*")
_NOT_THE_GROUP = re.compile(r"symop|equiv|magn|ssg|_ref|description|wyckoff")
_SYSTEMS = frozenset(
    {"monoclinic", "orthorhombic", "tetragonal", "trigonal", "rhombohedral", "hexagonal", "cubic"}
)


@dataclass(frozen=True)
class Symmetry:
    """What a block says of its symmetry.

    Attributes
    ----------
    tiers : tuple of tuples of Group
        Candidates to expand the sites with; the second tuple counts only if nothing in the first fits.
    named : tuple of Group
        Groups that the names in the file may mean; empty if it names none.
    said : str
        The name, in quotes, for messages.
    exact : bool
        Whether the name says the origin too.
    assumed : bool
        Whether P1 or a standard setting was taken because the file leaves it open.
    """

    tiers: tuple[tuple[Group, ...], ...]
    named: tuple[Group, ...] = ()
    said: str = ""
    exact: bool = False
    assumed: bool = False


def symmetry_of(block: Block, lengths: NDArray[np.float64], angles: NDArray[np.float64]) -> Symmetry:
    """Return the operations of a block: those it lists, else those of the group it names, else the identity.

    Raises
    ------
    StructureError
        For modulated crystals, names that contradict each other or that no table knows, operations that are no group
        or that do not fit the cell.
    """
    _refuse_modulated(block)
    listed = _listed(block)
    named = _named(block, has_list=listed is not None)
    if listed is not None:
        if not listed.fits(lengths, angles):
            raise StructureError(
                "the CIF's symmetry operations do not fit its cell (they do not leave lengths and angles as they are); "
                "correct one of them."
            )
        return Symmetry(((listed,),), named.named, named.said, named.exact)
    if not named.tiers:
        system = block.value("_symmetry_cell_setting", "_space_group_crystal_system").lower()
        if system in _SYSTEMS:
            raise StructureError(
                f"the CIF says that the crystal is {system}, but names no space group and lists no operations; add "
                "them."
            )
        return Symmetry(((listed_group(("x,y,z",)),),), assumed=True)
    tiers = tuple(tuple(group for group in tier if group.fits(lengths, angles)) for tier in named.tiers)
    if not any(tiers):
        raise StructureError(
            f"the space group {named.said} does not fit the cell's lengths and angles; correct one of them."
        )
    return Symmetry(tiers, named.named, named.said, named.exact, assumed=named.assumed and bool(tiers[0]))


def _refuse_modulated(block: Block) -> None:
    dimension = optional_number(block, "_cell_modulation_dimension")
    found = next((tag for tag, values in block.raw.items() if values and _MODULATED.match(tag)), None)
    if dimension or (found and dimension != 0):
        raise StructureError(
            f"the CIF describes a modulated crystal ({found or '_cell_modulation_dimension'}), which has no unit cell "
            "in three dimensions; use a commensurate approximation."
        )


def _listed(block: Block) -> Group | None:
    lists = [ops for tag in _LISTS if (ops := [op for op in block.column(tag) if op])]
    magnetic = [op for op in block.column(_MAGNETIC) if op]
    n_listed = max((len(ops) for ops in (*lists, magnetic)), default=0)
    if n_listed > MAX_OPERATIONS:
        raise StructureError(
            f"the CIF lists {n_listed} symmetry operations, more than {MAX_OPERATIONS}; write the crystal in P1."
        )
    if magnetic:
        centrings = [op for op in block.column(_CENTRING) if op][:MAX_OPERATIONS]
        if len(magnetic) * max(len(centrings), 1) > MAX_OPERATIONS:
            raise StructureError(
                f"the CIF lists more than {MAX_OPERATIONS} magnetic operations; write the crystal in P1."
            )
        return listed_group(centred(magnetic, centrings or ["x,y,z"]))
    found = [listed_group(tuple(ops)) for ops in lists]
    if len(found) == 2 and found[0].key != found[1].key:
        raise StructureError(
            f"the CIF has two lists of symmetry operations that differ ({len(found[0].key)} and "
            f"{len(found[1].key)} operations); keep the right one."
        )
    return found[0] if found else None


def _values(block: Block, pattern: re.Pattern[str]) -> list[str]:
    tags = [tag for tag in block.raw if pattern.fullmatch(tag) and not _NOT_THE_GROUP.search(tag)]
    return [value for tag in tags if (value := block.value(tag))]


def _named(block: Block, *, has_list: bool) -> Symmetry:
    """Return the candidates of the names in a block, whatever its cell."""
    names = _values(block, _IS_NAME)
    hall = block.value("_space_group_name_hall", "_symmetry_space_group_name_hall")
    numbers = {int(text) for text in _values(block, _IS_NUMBER) if text.isdecimal() and 1 <= int(text) <= 230}
    schoenflies = schoenflies_number(block.value("_space_group_name_schoenflies"))
    numbers |= {schoenflies} if schoenflies and not (names or hall) else set()
    by_hall = hall_group(hall) if hall else None
    meanings = {name: named_groups(name) for name in names}
    known = {name: found for name, found in meanings.items() if found}
    said = quote((names or [hall] if names or hall else [f"No. {n}" for n in numbers] or [""])[0], 40)
    kinds: list[tuple[set[int | None], str]] = [
        ({group.number for group in found}, quote(name, 40)) for name, found in known.items()
    ]
    kinds += [({n}, f"No. {n}") for n in sorted(numbers)]
    if by_hall is not None and by_hall.number is not None:
        kinds.append(({by_hall.number}, f"Hall {quote(hall, 40)}"))
    common = set.intersection(*(kind for kind, _ in kinds)) if kinds else set()
    if kinds and not common:
        raise StructureError(
            f"the CIF names two space groups, {kinds[0][1]} and "
            f"{next(text for kind, text in kinds if not kind & kinds[0][0])}; correct one of them."
        )
    code = block.value("_space_group_it_coordinate_system_code")
    setting = setting_group(min(filter(None, common)), code) if code and len(common - {None}) == 1 else None
    if by_hall is None and setting is not None:
        return Symmetry(((setting,),), (setting,), said)
    if by_hall is not None:
        return Symmetry(((by_hall,),), (by_hall,), said, exact=True)
    if known:
        candidates = _common(list(known.values()), common)
        exact = len(candidates) == 1 and ":" in candidates[0].name
        return Symmetry((candidates,), candidates, said, exact)
    if numbers and not (names and not has_list and not _single(common)):
        standard, others = number_groups(min(numbers))
        return Symmetry((standard, others), (*standard, *others), said, assumed=bool(others))
    if (names or hall or block.value("_space_group_name_schoenflies")) and not has_list:
        raise StructureError(
            f"the space group {said} is not known, and the CIF lists no symmetry operations; list them."
        )
    return Symmetry(())


def _single(common: set[int | None]) -> bool:
    return all(
        len(standard) == 1 and not others for standard, others in map(number_groups, filter(None, common))
    )


def _common(meanings: list[tuple[Group, ...]], numbers: set[int | None]) -> tuple[Group, ...]:
    """Return the candidates that every name allows; if names differ in the setting, those of the first."""
    shared = set.intersection(*({group.key for group in found} for found in meanings))
    return tuple(
        group for group in meanings[0] if group.number in numbers and (not shared or group.key in shared)
    )
