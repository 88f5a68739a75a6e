"""CIF: gemmi's grammar and symmetry tables, and what the file says of itself compared with what was read.

A crystal comes from cell, operations and sites. Formula, Z, volume, density, multiplicities, attached hydrogens and
the named space group are compared with it; where they contradict it, the block is refused with both readings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import StructureError
from mace_bounds.structures.check import check, too_many_atoms
from mace_bounds.structures.crystal import Crystal, Record, crystal_of, numbers_of
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.cif import claims, groups
from mace_bounds.structures.formats.cif.grammar import Block, blocks, decode, number, quote
from mace_bounds.structures.formats.cif.sites import Sites, distinct, expand, read_sites
from mace_bounds.structures.formats.cif.symmetry import Symmetry, symmetry_of

ASSUMED_FLAG = "symmetry_assumed"
LEFT_OUT_FLAG = "sites_left_out"
_LOOK = re.compile(r"^\s*(data_|_cell[_.]length_a)", re.MULTILINE | re.IGNORECASE)
_MAX_IMAGES = 2_000_000


def parse_cif(content: bytes | str, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per data block that holds a crystal; other blocks count only if there is none.

    Parameters
    ----------
    content : bytes or str
        The CIF in any usual encoding; magCIF is accepted (moments are ignored).
    options : ReadOptions
        Blocks whose symmetry expansion would give many more than ``max_atoms`` are refused before it is done.
    """
    first, found, several = None, False, False
    pending: Block | StructureError | None = None
    for block in blocks(decode(content)):
        first = first or block
        if isinstance(block, Block) and not any(tag.startswith("_atom_site_") for tag in block.raw):
            continue
        if pending is not None:
            several = True
            yield _record(pending, options.max_atoms, named=True)
        pending, found = block, True
    if found and pending is not None:
        yield _record(pending, options.max_atoms, named=several)
    elif first is None:
        yield Record.failed("the file has no data_ block, so it is no CIF; check the file.")
    else:
        yield _record(first, options.max_atoms, named=False)


def _record(block: Block | StructureError, max_atoms: int | None, *, named: bool) -> Record:
    if isinstance(block, StructureError):
        return Record.failed(str(block))
    name = block.name if named else ""
    try:
        crystal, flags = _read(block, max_atoms)
    except StructureError as error:
        return Record.failed(str(error), id=name)
    return Record(name, "", crystal, flags=flags)


def _read(block: Block, max_atoms: int | None) -> tuple[Crystal, tuple[str, ...]]:
    sites = read_sites(block, claims.elements_named(block))
    lengths, angles = _cell_parameters(block)
    cell = _cell(lengths, angles)
    if max_atoms is not None and len(sites.sites) > 4 * max_atoms:
        raise StructureError(too_many_atoms(len(sites.sites), max_atoms))
    symmetry = symmetry_of(block, lengths, angles)
    results: list[tuple[groups.Group, Crystal, tuple[str, ...]]] = []
    reasons: list[str] = []
    for tier in symmetry.tiers:
        for group in tier:
            try:
                results.append((group, *_expanded_once(block, sites, group, cell, max_atoms)))
            except StructureError as error:
                reasons.append(str(error))
        if results:
            break
    if not results:
        raise StructureError(reasons[0])
    group, crystal, flags = results[0]
    others = [other for other, c, _ in results[1:] if not _same(crystal, c)]
    if others:
        raise StructureError(
            f"the space group {symmetry.said} leaves open whether {group.name} or {others[0].name} is meant, and both "
            "fit; list the symmetry operations."
        )
    _check_named(symmetry, group, crystal, cell)
    if symmetry.assumed:
        flags = (*flags, ASSUMED_FLAG)
    if sites.left_out:
        flags = (*flags, LEFT_OUT_FLAG)
    return crystal, flags


def _cell_parameters(block: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = []
    for tag in (
        *(f"_cell_length_{a}" for a in "abc"),
        *(f"_cell_angle_{a}" for a in ("alpha", "beta", "gamma")),
    ):
        text = block.value(tag)
        if not text:
            raise StructureError("the CIF lacks cell lengths or angles; add all six.")
        values.append(number(text, tag))
    lengths, angles = np.array(values[:3]), np.array(values[3:])
    if not (np.isfinite(values).all() and (lengths > 0).all() and (lengths < 1e6).all()):
        raise StructureError("the CIF's cell lengths are not positive numbers; correct them.")
    if not ((angles > 0).all() and (angles < 180).all()):
        raise StructureError("the CIF's cell angles are not between 0 and 180 degrees; correct them.")
    return lengths, angles


def _cell(lengths: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return lattice vectors in pymatgen's orientation: c along z, a in the plane of x and z."""
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    cos[angles == 90] = 0.0
    square = 1 - (cos**2).sum() + 2 * cos.prod()
    if square < 1e-12:
        raise StructureError("the CIF's angles make no cell with a volume; correct them.")
    cos_star = np.clip((cos[0] * cos[1] - cos[2]) / (sin[0] * sin[1]), -1, 1)
    sin_star = np.sqrt(1 - cos_star**2)
    a, b, c = lengths
    return np.array(
        [[a * sin[1], 0, a * cos[1]], [-b * sin[0] * cos_star, b * sin[0] * sin_star, b * cos[0]], [0, 0, c]]
    )


def _lengths_and_angles(cell: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lengths = np.linalg.norm(cell, axis=1)
    cosines = (cell @ cell.T) / np.outer(lengths, lengths)
    return lengths, np.degrees(np.arccos(np.clip([cosines[1, 2], cosines[0, 2], cosines[0, 1]], -1, 1)))


def _expanded_once(
    block: Block, sites: Sites, group: groups.Group, cell: NDArray[np.float64], max_atoms: int | None
) -> tuple[Crystal, tuple[str, ...]]:
    """:func:`_expanded`; where formula and sites disagree, without sites that symmetry makes of others."""
    try:
        return _expanded(block, sites, group, cell, max_atoms)
    except StructureError:
        if len(sites.sites) * len(group.rotations) > _MAX_IMAGES // 100 or not claims.formula_text(block):
            raise
        fewer = distinct(sites, group, cell)
        if len(fewer.sites) == len(sites.sites):
            raise
        return _expanded(block, fewer, group, cell, max_atoms)


def _expanded(
    block: Block, sites: Sites, group: groups.Group, cell: NDArray[np.float64], max_atoms: int | None
) -> tuple[Crystal, tuple[str, ...]]:
    """Return the crystal that one group gives, if nothing that the file says contradicts it."""
    n_images = len(sites.sites) * len(group.rotations)
    if n_images > _MAX_IMAGES:
        raise StructureError(
            f"the CIF has {n_images} symmetry images, which would take too long to expand; write the crystal as "
            "POSCAR or extxyz."
        )
    labels = [site.label for site in sites.sites]
    copies = expand(sites.fractional, group, cell, sites.digits, labels)
    n_copies = [len(c) for c in copies]
    n_atoms = sum(n_copies)
    if max_atoms is not None and n_atoms > max_atoms:
        raise StructureError(too_many_atoms(n_atoms, max_atoms))
    volume = abs(float(np.linalg.det(cell)))
    good, reasons = [], []
    for symbols in sites.assignments():
        counts: Counter[str] = Counter()
        for symbol, n in zip(symbols, n_copies, strict=True):
            counts[symbol] += n
        reading = claims.Reading(
            counts, labels, [site.row for site in sites.sites], n_copies, len(group.rotations), volume
        )
        reason = claims.contradiction(block, reading)
        good.append(symbols) if reason is None else reasons.append(reason)
    if not good:
        raise StructureError(reasons[0])
    if len(good) > 1:
        raise StructureError(
            f"the labels {', '.join(quote(p) for p in sites.choices)} may mean several elements; add "
            "_atom_site_type_symbol."
        )
    numbers, flags = numbers_of(good[0])
    positions = np.concatenate(copies) @ cell
    crystal = crystal_of(np.repeat(numbers, n_copies), positions, cell)
    check(crystal, max_atoms=max(n_atoms, 1))
    return crystal, flags


def _same(one: Crystal, other: Crystal) -> bool:
    """Tell whether two readings are the same crystal."""
    if one.counts != other.counts:
        return False
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(
        ltol=0.01, stol=0.01, angle_tol=0.5, primitive_cell=False, scale=False, attempt_supercell=False
    )
    return bool(matcher.fit(one.to_structure(), other.to_structure()))


def _check_named(
    symmetry: Symmetry, group: groups.Group, crystal: Crystal, cell: NDArray[np.float64]
) -> None:
    """Refuse operations that are not the named group, unless the crystal read has that group's symmetry."""
    if not symmetry.named or any(group.key == named.key for named in symmetry.named):
        return
    if any(
        group.key < named.key and _invariant(crystal, named, cell) for named in symmetry.named
    ):  # every atom is listed
        return
    if not symmetry.exact and any(groups.is_shifted(group, named) for named in symmetry.named):
        return
    lengths, angles = _lengths_and_angles(cell)
    other_cell = not any(named.fits(lengths, angles) for named in symmetry.named)
    if (
        other_cell
        and len(group.rotations) == 1
        and _number(crystal) in {named.number for named in symmetry.named}
    ):
        return  # the primitive cell, say, with all its atoms, under the name of the conventional one
    raise StructureError(
        f"the CIF names the space group {symmetry.said}, but its {len(group.rotations)} listed operations are "
        f"{group.name or 'another group'}'s; correct one of them."
    )


def _number(crystal: Crystal) -> int | None:
    from mace_bounds.structures.symmetry import UNKNOWN, space_group

    found = space_group(crystal)
    return None if found == UNKNOWN else int(found.split()[0])


def _invariant(crystal: Crystal, group: groups.Group, cell: NDArray[np.float64]) -> bool:
    """Tell whether every operation maps a crystal onto itself within 0.1 Å."""
    fractional = np.linalg.solve(cell.T, crystal.positions.T).T
    if len(fractional) ** 2 * len(group.rotations) > _MAX_IMAGES * 10:
        return False
    for rotation, translation in zip(group.rotations, group.translations, strict=True):
        difference = (fractional @ rotation.T + translation)[:, None] - fractional[None]
        difference -= np.rint(difference)
        near = np.linalg.norm(difference @ cell, axis=-1) < 0.1
        if not (near & (crystal.numbers[:, None] == crystal.numbers[None])).any(axis=1).all():
            return False
    return True


CIF = Format(
    name="CIF",
    suffixes=(".cif", ".mcif"),
    sniff=lambda data: _LOOK.search(beginning(data)) is not None,
    parse=parse_cif,
    takes="bytes",
    max_bytes=20_000_000,
)
