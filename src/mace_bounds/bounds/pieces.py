"""How a source is cut into what is computed together: memory stays bounded, and none waits long for the next turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mace_bounds.structures import Record

T = TypeVar("T")

MOST_STRUCTURES = 64
MOST_ATOMS = 1000
"""Structures and atoms that are read, extracted and bounded together."""


def n_atoms_of(record: Record) -> int:
    """Atoms of a record; 0 where it has no structure."""
    return 0 if record.crystal is None else len(record.crystal.numbers)


def pieces(things: Iterable[T], n_atoms: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut a source into what is computed together, in order; a structure with more atoms is a piece of its own.

    Every :data:`MOST_STRUCTURES` there is a cut in any case, so that the pieces of a source are those of its shards.
    """
    piece, size, n_since = list[T](), 0, 0
    for thing in things:
        own = n_atoms(thing)
        if piece and size + own > MOST_ATOMS:
            yield piece
            piece, size = [], 0
        piece.append(thing)
        size += own
        n_since += 1
        if n_since == MOST_STRUCTURES:
            yield piece
            piece, size, n_since = [], 0, 0
    if piece:
        yield piece
