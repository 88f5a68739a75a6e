"""XSF of XCrySDen, read by ase."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mace_bounds.errors import StructureError
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.objects import records_of_object
from mace_bounds.structures.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mace_bounds.structures.record import Record

_LOOK = re.compile(r"\s*(#[^\n]*\s+)*(ANIMSTEPS|CRYSTAL|SLAB|POLYMER|ATOMS|MOLECULE|PRIMVEC)\b")


def parse_xsf(text: str, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per image; grids of data are left out."""
    from ase.io.xsf import iread_xsf

    images = iread_xsf(iter(text.splitlines()))
    while True:
        try:
            atoms = next(images, None)
        except Exception as error:
            raise StructureError(
                f"the XSF is damaged or not of a kind that ase reads ({type(error).__name__}: {one_line(error, 50)}); "
                "correct it, or write extxyz."
            ) from None
        if atoms is None:
            return
        yield from records_of_object(atoms, options.energy_key)


XSF = Format(
    name="XSF",
    suffixes=(".xsf", ".axsf"),
    sniff=lambda data: _LOOK.match(beginning(data)) is not None,
    parse=parse_xsf,
    max_bytes=100_000_000,
)
