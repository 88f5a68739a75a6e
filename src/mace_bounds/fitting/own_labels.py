"""Labels of one's own for a head that is there: how they are read, and which of them say something of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones import Backbone
from mace_bounds.bounds import BoundsPredictor, Energies
from mace_bounds.calibration import (
    MINIMUM_COMPOSITIONS,
    SEEN_IN_TRAINING,
    CalibratedHead,
    FitConfig,
    usable_rows,
)
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings, FeatureRows, FeatureStore, is_store, training_keys
from mace_bounds.fitting.predictions import PredictionTable, check_predictions, with_predictions
from mace_bounds.settings import setting
from mace_bounds.structures import Source, compositions_in, joined_keys, require_usable

if TYPE_CHECKING:
    import pandas as pd

USED_BY_HEAD = "composition used by the head"


@dataclass(frozen=True)
class CalibrateConfig(PredictionTable):
    """How labels of one's own are read and used; the command line makes its options from the fields.

    Attributes
    ----------
    include_training : bool
        Use labels of compositions from the model's own training, or that the head was made from, as well.
    predictions, energy_column, id_column
        For a head of published energies: see :class:`PredictionTable`.
    known : FitConfig
        Of these ``quantity``, ``trained_on`` and ``kept_rows`` are used.
    extract : ExtractSettings
        How structures are read; not used for a feature store.
    """

    include_training: bool = setting(
        False,
        "Also use compositions from the model's own training or that the head was made from. Warning: the model may "
        "have been trained on these labels, which makes the bounds too narrow.",
    )
    known: FitConfig = field(default_factory=FitConfig)
    extract: ExtractSettings = field(default_factory=ExtractSettings)


def read_labels(
    head: CalibratedHead,
    labels: Source | FeatureStore,
    config: CalibrateConfig,
    model: str | Path | Backbone | None,
    energies: Energies | None,
) -> tuple[FeatureRows, NDArray[np.uint64] | None]:
    """Rows of features with the energies that the head bounds, and the compositions of the model's training."""
    table = config.energies()
    if isinstance(labels, (str, Path)) and is_store(labels):
        labels = FeatureStore(labels)
    if isinstance(labels, FeatureStore):
        return _read_store(head, labels, config, model, table)
    records = require_usable(config.extract.read(labels))  # an error before the model is loaded
    predictor = BoundsPredictor(
        model,
        head,
        settings=config.extract,
        quantity=config.known.quantity,
        trained_on=config.known.trained_on,
        level=head.levels[0],
    )
    given = energies if table is None else {str(key): energy for key, energy in table.items()}
    return FeatureRows.join(list(predictor.rows(records, given))), predictor.training_keys


def _read_store(
    head: CalibratedHead,
    store: FeatureStore,
    config: CalibrateConfig,
    model: str | Path | Backbone | None,
    table: pd.Series[float] | None,
) -> tuple[FeatureRows, NDArray[np.uint64] | None]:
    manifest, rows = store.manifest, store.read()
    energies_of = manifest.energies_of
    if table is not None:
        rows = with_predictions(rows, table)
        check_predictions(rows, config.energy_column or "")
        energies_of = head.identity.model
    head.check_store(replace(manifest, energies_of=energies_of))
    known = training_keys(replace(manifest, energies_of=energies_of), model, config.known.trained_on)
    return rows, joined_keys(known, head.training_compositions)


def new_to_the_head(
    old: CalibratedHead, rows: FeatureRows, keys: NDArray[np.uint64] | None, config: CalibrateConfig
) -> tuple[FeatureRows, dict[str, int]]:
    """The rows that say something of the head, in an order of their own; HeadError if these are too few."""
    used, left_out = usable_rows(rows, None if config.include_training else keys)
    used = used.take(np.argsort(used.table["id"].to_numpy(dtype=str), kind="stable"))
    if not config.include_training:
        formulas = used.table["formula"].tolist()
        seen = compositions_in(formulas, old.fit_compositions)
        seen |= compositions_in(formulas, old.calibration_compositions)
        left_out |= {USED_BY_HEAD: int(seen.sum())} if seen.any() else {}
        used = used.take(~seen)
    n = used.table["formula"].nunique()
    if n < MINIMUM_COMPOSITIONS:
        why = "".join(f", {count} left out ({reason})" for reason, count in left_out.items())
        remedy = (
            " or use these too (--include-training)"
            if {SEEN_IN_TRAINING, USED_BY_HEAD} & set(left_out)
            else ""
        )
        raise HeadError(
            f"there are labels of {n} compositions to calibrate with{why}; at least {MINIMUM_COMPOSITIONS} are needed, "
            f"and 20 or more are useful: give more labelled structures{remedy}."
        )
    return used, left_out
