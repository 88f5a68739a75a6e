"""What is asked of a build, in one way to write it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import find_weights
from mace_bounds.errors import SourceError
from mace_bounds.materials_project import is_query, parse_query
from mace_bounds.structures import read

if TYPE_CHECKING:
    from collections.abc import Sequence

DOWNLOAD, FEATURES, FIT, AUDIT = STAGES = ("download", "features", "fit", "audit")
DEFAULT_SOURCE = "mp:all"


@dataclass(frozen=True)
class Question:
    """What decides about the numbers that come out; where and how fast they are computed does not.

    Attributes
    ----------
    sources : tuple of str
        Queries of the Materials Project in their canonical form, and absolute paths.
    model : str
        A name, or an absolute path.
    energy_key : str or None
        Where files keep their labels.
    max_atoms : int
        Larger cells are refused with a reason.
    dtype : {"float32", "float64"}
        Precision of the forward.
    shard_rows : int
        Structures per shard of the features.
    include_training : bool
        Whether compositions of the model's own training take part in the fit, where they are known.
    balance : bool
        Whether every source gets the same weight in the fit.
    cross_fit : bool
        Whether the audit fits heads of its own, so that every label is bounded by one that has not seen it.
    """

    sources: tuple[str, ...]
    model: str
    energy_key: str | None = None
    max_atoms: int = 500
    dtype: str = "float32"
    shard_rows: int = 256
    include_training: bool = False
    balance: bool = False
    cross_fit: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as ``build.json`` keeps them."""
        return {**asdict(self), "sources": list(self.sources)}


DECIDED_BY = {
    "model": FEATURES,
    "energy_key": FEATURES,
    "max_atoms": FEATURES,
    "dtype": FEATURES,
    "shard_rows": FEATURES,
    "sources": FIT,  # sources may be added until the fit is done: what the others gave stays
    "include_training": FIT,
    "balance": FIT,
    "cross_fit": AUDIT,
}
"""The stage after which a part of the question can no longer be changed."""


def ask(source: str | Path, also: Sequence[str | Path], model: str | Path, **settings: Any) -> Question:
    """Put a question together; what names nothing is said before anything is fetched.

    Raises
    ------
    SourceError
        If a source is no query and no path with structures, is given twice, or cannot be read twice.
    ModelError
        If the model is neither a name nor a path.
    """
    find_weights(model)
    name = str(Path(model).absolute()) if Path(model).exists() else str(model)
    return Question(_sources(source, also), name, **settings)


def _sources(source: str | Path, also: Sequence[str | Path]) -> tuple[str, ...]:
    found = [_canonical(one) for one in (source, *also)]
    twice = [one for k, one in enumerate(found) if one in found[:k]]
    if twice:
        raise SourceError(f"expected every source once, got {twice[0]} twice; leave one of them out")
    return tuple(found)


def _canonical(source: str | Path) -> str:
    text = str(source)
    if is_query(text):
        return str(parse_query(text))
    if text == "-":
        raise SourceError(
            "expected a source that can be read again, got standard input; save it to a file and name that"
        )
    path = str(Path(text).absolute())
    read(path)  # raises here if it names nothing
    return path
