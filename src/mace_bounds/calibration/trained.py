"""Labelled rows whose compositions the model itself was trained on: they calibrate nothing, but show where it errs.

A model that does not fit its own training data errs there where it errs elsewhere. Its errors on these rows are too
small for new crystals, so no POPS head, centre or conformal score is made of them; a kind of scale may learn from them
where errors are large (``training_kernel`` in :data:`mace_bounds.calibration.KINDS`), if that explains the errors of
compositions left out better than what is learnt without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.calibration.cross_fitting import residual_ev_per_atom
from mace_bounds.calibration.inputs import DesignRows, TrainedErrors, head_inputs, scale_inputs
from mace_bounds.calibration.splits import hashed_order
from mace_bounds.structures import compositions_in, suspect_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.calibration.centre import Centre
    from mace_bounds.calibration.config import FitConfig
    from mace_bounds.features import FeatureRows
    from mace_bounds.head import PopsPrediction

MOST_TRAINED = 20_000
"""Of more rows than this, compositions drawn by their hash are used."""


@dataclass(frozen=True, eq=False)
class TrainedRows:
    """Labelled rows of compositions that the model was trained on, as heads see them."""

    design: DesignRows
    y: NDArray[np.float64]  # shape (n,): residuals, eV/atom
    groups: NDArray[np.str_]  # shape (n,)
    sources: NDArray[np.str_]  # shape (n,)

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def of(
        cls, rows: FeatureRows, training_keys: NDArray[np.uint64] | None, config: FitConfig
    ) -> TrainedRows:
        """Pick them from rows of a feature store; none where it is not known what the model was trained on."""
        labelled = rows.labelled()
        y = residual_ev_per_atom(labelled)
        kept = compositions_in(labelled.table["formula"].tolist(), training_keys)
        kept &= ~np.array([suspect_label(r) for r in y], dtype=bool)
        labelled, y = labelled.take(kept), y[kept]
        order = np.argsort(labelled.table["id"].to_numpy(dtype=str), kind="stable")
        labelled, y = labelled.take(order), y[order]
        groups = labelled.table[config.split_by].to_numpy(dtype=str) if len(y) else np.empty(0, dtype=str)
        if len(y) > MOST_TRAINED:
            drawn = np.sort(hashed_order(groups, f"trained:{config.seed}", y)[:MOST_TRAINED])
            labelled, y, groups = labelled.take(drawn), y[drawn], groups[drawn]
        sources = labelled.table["source"].fillna("").to_numpy(dtype=str)
        return cls(head_inputs(labelled, composition=config.composition), y, groups, sources)

    def without(self, sources: tuple[str, ...]) -> TrainedRows:
        """The same without rows of some sources."""
        kept = ~np.isin(self.sources, sources)
        return TrainedRows(self.design.take(kept), self.y[kept], self.groups[kept], self.sources[kept])

    def errors(self, said: PopsPrediction, centre: Centre) -> TrainedErrors | None:
        """What a scale may learn from, by heads that have not seen the rows; None without rows."""
        if not len(self):
            return None
        residual = self.y - centre.residual(said.mean, self.design.fractions)
        return TrainedErrors(scale_inputs(said, self.design), residual, self.groups)
