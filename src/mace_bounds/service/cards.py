"""What a service says of itself: its models, and the cards of its heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from mace_bounds.bounds import BoundsPredictor
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.flags import FLAGS
from mace_bounds.versions import __version__

if TYPE_CHECKING:
    from mace_bounds.calibration import CalibratedHead

_BINS = 60
_SHOWN = 0.98  # of the errors lie within the histogram; the others are counted at its ends


def models_of(predictors: Mapping[str, BoundsPredictor]) -> list[dict[str, Any]]:
    """The models, with the heads that requests may name."""
    models: dict[str, dict[str, Any]] = {}
    for name, predictor in predictors.items():
        model = models.setdefault(
            predictor.model.digest,
            {
                "name": predictor.head.identity.model,
                "features_of": predictor.model.name,
                "digest": predictor.model.digest,
                "dtype": predictor.model.dtype,
                "device": predictor.model.device,
                "elements": [chemical_symbols[z] for z in predictor.model.atomic_numbers],
                "version": __version__,
                "heads": [],
            },
        )
        model["heads"].append(name)
    return list(models.values())


def head_card(predictor: BoundsPredictor) -> dict[str, Any]:
    """What is known of a head: what it bounds, for which levels, and what was measured when it was made."""
    head, about = predictor.head, predictor.head.provenance
    identity = head.identity
    return {
        "name": head.name,
        "digest": head.digest,
        "model": identity.model,
        "features_of": identity.backbone,
        "model_digest": identity.model_digest,
        "quantity": identity.quantity,
        "levels": list(head.levels),
        "needs_energies": predictor.energy_model is None,
        "takes_energies": head.published,
        "rows": about.get("rows", {}),
        "coverage": about.get("coverage", []),
        "note": predictor.note,
        "errors": _errors(head),
    }


def flags_said() -> dict[str, str]:
    """Every flag with what it means."""
    return {name: flag.meaning for name, flag in FLAGS.items()}


def _errors(head: CalibratedHead) -> dict[str, Any] | None:
    """Histogram of the errors of the labelled rows that the head keeps; None where it keeps none."""
    if head.kept_rows is None:
        return None
    error = head.kept_rows.error_ev_per_atom.astype(np.float64) * MEV_PER_EV
    low, high = np.quantile(error, [(1 - _SHOWN) / 2, (1 + _SHOWN) / 2])
    low, high = (low, high) if high > low else (low - 1, high + 1)
    counts, edges = np.histogram(np.clip(error, low, high), _BINS, (low, high))
    return {
        "n": len(error),
        "median_mev_per_atom": float(np.median(error)),
        "median_size_mev_per_atom": float(np.median(np.abs(error))),
        "edges_mev_per_atom": edges.tolist(),
        "counts": counts.tolist(),
    }
