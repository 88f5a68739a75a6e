"""Structures to bounds in one call."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace import FrozenModel, load_model
from mace_bounds.bounds.library import find_head
from mace_bounds.bounds.table import bounds_table
from mace_bounds.calibration import CalibratedHead, load_head
from mace_bounds.features import extract_rows
from mace_bounds.structures import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mace_bounds.backbones import FeatureKind

BATCH = 64


def open_pair(
    model: str | Path | None = None,
    head: str | Path | CalibratedHead | None = None,
    *,
    level: float | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> tuple[FrozenModel, CalibratedHead]:
    """Load a model and the head that belongs to it.

    Parameters
    ----------
    model, head : str, path or CalibratedHead, optional
        See :func:`score`.
    level : float, optional
        A level that the head must be calibrated for; checked before the model is loaded.
    device, dtype : str
        See :func:`mace_bounds.backbones.mace.load_model`.

    Returns
    -------
    FrozenModel, CalibratedHead

    Raises
    ------
    HeadError
        If no head fits the model (decided before anything is loaded), or the weights are others than the
        head's.
    """
    if isinstance(head, CalibratedHead):
        name, calibrated = str(model if model is not None else head.identity.model), head
    else:
        name, folder = find_head(model, head)
        calibrated = load_head(folder)
    if level is not None:
        calibrated.conformal.check(level)
    calibrated.check_energies()
    identity = calibrated.identity
    frozen = load_model(name, head=identity.model_head, device=device, dtype=dtype)
    calibrated.check_fits(frozen.name, frozen.digest, frozen.head, identity.kind)
    return frozen, calibrated


def score_batches(
    structures: Any,
    model: FrozenModel,
    head: CalibratedHead,
    *,
    level: float = 0.95,
    energy_key: str | None = None,
    max_atoms: int = 500,
    batch: int = BATCH,
) -> Iterator[pd.DataFrame]:
    """Bounds of structures, some at a time, in bounded memory; arguments as in :func:`score`."""
    elements = frozenset(model.atomic_numbers)
    records = read(structures, energy_key=energy_key, max_atoms=max_atoms, elements=elements)
    kind = feature_kind(head)
    while some := list(islice(records, batch)):
        rows = extract_rows(some, model, kind, atoms=wants_atoms(head))
        yield bounds_table(rows, head, level, training_keys=model.training_compositions)


def wants_atoms(head: CalibratedHead) -> bool:
    """Whether a head grades single atoms."""
    return head.novelty is not None and head.novelty.wants_atoms


def feature_kind(head: CalibratedHead) -> FeatureKind:
    """Which features a head was fitted on."""
    return "descriptors" if head.identity.kind == "descriptors" else "readout"


def score(
    structures: Any,
    *,
    model: str | Path | None = None,
    head: str | Path | CalibratedHead | None = None,
    level: float = 0.95,
    energy_key: str | None = None,
    max_atoms: int = 500,
    device: str = "auto",
    dtype: str = "float32",
) -> pd.DataFrame:
    """Bounds for the DFT energy of each structure.

    Parameters
    ----------
    structures : path, str, object or iterable
        Anything that :func:`mace_bounds.structures.read` takes: a file, a folder, a glob, ``Structure``,
        ``Atoms``, ``ComputedStructureEntry``, or several of them.
    model : str or path, optional
        ``"mini"``, a name that mace knows, or a path; the head's model where only a head is given, else
        ``"medium-mpa-0"``.
    head : str, path or CalibratedHead, optional
        A head folder or the name of an installed head; by default the first that fits the model.
    level : float
        Nominal coverage, one that the head is calibrated for.
    energy_key : str, optional
        Name of the label where structures have one.
    max_atoms : int
        Larger cells get a reason instead of bounds.
    device : {"auto", "cpu", "cuda"}
    dtype : {"float32", "float64"}

    Returns
    -------
    DataFrame
        One row per structure, in order; see :func:`mace_bounds.bounds.bounds_table`. A structure that cannot
        be scored has a ``reason``.

    Raises
    ------
    HeadError
        If no head fits the model, or the level is not calibrated.
    ModelError
        If the model cannot be loaded.
    SourceError
        If ``structures`` names nothing.

    Examples
    --------
    >>> from ase.build import bulk
    >>> import mace_bounds
    >>> table = mace_bounds.score(bulk("NaCl", "rocksalt", 5.64), model="mini")  # doctest: +SKIP
    """
    frozen, calibrated = open_pair(model, head, level=level, device=device, dtype=dtype)
    parts = score_batches(
        structures, frozen, calibrated, level=level, energy_key=energy_key, max_atoms=max_atoms
    )
    return concat(list(parts))


def concat(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack tables whose columns agree; columns that are empty in some of them keep the others' type."""
    import pandas as pd

    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
