"""Features of records in memory: what every engine does with a shard, and what ``score`` does with a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.features.rows import FeatureRows
from mace_bounds.features.shard import ATOMS, FEATURES, memory_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mace_bounds.backbones import Backbone, FeatureKind
    from mace_bounds.features.shard import Arrays
    from mace_bounds.structures import Record


def extract_batch(
    records: Sequence[Record], model: Backbone, kind: FeatureKind = "readout", *, atoms: bool = False
) -> tuple[list[str | None], Arrays]:
    """Features of records in memory.

    Returns
    -------
    reasons : list of str or None
        Why a record has no features; None where it has.
    arrays : dict
        ``features`` (n_good, n_features), ``energy_model_ev`` and ``fixed_energy_ev`` (n_good,); with
        ``atoms`` also ``atom_features`` (n_atoms, n_features).
    """
    reasons = [_reason(record, frozenset(model.atomic_numbers)) for record in records]
    good = [r.crystal for r, reason in zip(records, reasons, strict=True) if reason is None and r.crystal]
    block = model.extract(good, kind, atoms=atoms)
    energies = {"energy_model_ev": block.energy_ev, "fixed_energy_ev": block.fixed_energy_ev}
    finite = np.isfinite(block.energy_ev) & np.isfinite(block.features).all(axis=1)
    if not finite.all():
        places = [i for i, reason in enumerate(reasons) if reason is None]
        for place in np.array(places)[~finite]:
            reasons[place] = "the model gives NaN or infinity; check the geometry"
    arrays: Arrays = {FEATURES: block.features[finite], **{k: v[finite] for k, v in energies.items()}}
    if block.atoms is not None:
        sizes = [len(crystal.numbers) for crystal in good]
        arrays[ATOMS] = block.atoms[np.repeat(finite, sizes)]
    return reasons, arrays


def _reason(record: Record, elements: frozenset[int]) -> str | None:
    """Why a record cannot go through the model; its geometry has been checked where it was read."""
    if record.reason is not None or record.crystal is None:
        return record.reason or "the record has no structure; check the source"
    unknown = sorted(set(record.crystal.counts) - elements)
    if unknown:
        return f"the model does not know Z = {', '.join(map(str, unknown))}; choose another model"
    return None


def extract_rows(
    records: Sequence[Record], model: Backbone, kind: FeatureKind = "readout", *, atoms: bool = False
) -> FeatureRows:
    """Features of records in memory, as a store would give them back in float64 (rows with reasons included)."""
    reasons, arrays = extract_batch(records, model, kind, atoms=atoms)
    return memory_rows(records, reasons, arrays)
