"""Heads that an audit fits, kept in its folder: a run that was interrupted does not fit them again."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration import load_head
from mace_bounds.errors import HeadError
from mace_bounds.fitting.card import unmeasured_card

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mace_bounds.calibration import CalibratedHead, FitConfig
    from mace_bounds.features import FeatureRows, Manifest

_COLUMNS = (
    "id",
    "formula",
    "chemical_system",
    "source",
    "n_atoms",
    "structure_hash",
    "energy_ev",
    "energy_model_ev",
)


def kept_head(
    folder: Path, made_of: dict[str, str], labels: str, fit: Callable[[], CalibratedHead]
) -> CalibratedHead:
    """The head in a folder if it was made of the same, else fitted and put there.

    Parameters
    ----------
    folder : Path
        Of this one head.
    made_of : dict of str to str
        What tells it from any other head, among it the :func:`inputs_digest`; kept in its provenance.
    labels : str
        Which labels it is fitted to, for its card.
    fit : callable
        Makes the head.

    Returns
    -------
    CalibratedHead
        As read from the folder in either case, so that it does not matter which.
    """
    try:
        head = load_head(folder)
        if all(head.provenance.get(name) == value for name, value in made_of.items()):
            return head
    except HeadError:  # none there, or damaged
        pass
    head = fit()
    head = replace(head, provenance={**head.provenance, "levels": list(head.levels), **made_of})
    head.save(folder, unmeasured_card(folder.name, head, labels), overwrite=True)
    return load_head(folder)


def clear_away(folder: Path) -> None:
    """Delete what killed runs left between the heads of a folder."""
    for leftover in (*folder.glob(".full.*"), *folder.glob(".fold-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def inputs_digest(rows: FeatureRows, manifest: Manifest, config: FitConfig, **others: Any) -> str:
    """SHA-256 of what decides on a head, to the last bit: rows, model, settings, and other plain values."""
    sha = hashlib.sha256(np.ascontiguousarray(rows.features).tobytes())
    sha.update(rows.table[list(_COLUMNS)].to_csv(index=False).encode())
    about = {"manifest": manifest.settings(), "config": asdict(config), **others}
    sha.update(json.dumps(about, sort_keys=True).encode())
    return sha.hexdigest()
