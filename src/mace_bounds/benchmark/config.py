"""Settings of a comparison, and the names of its methods that are no baselines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mace_bounds.calibration import FitConfig
from mace_bounds.errors import HeadError
from mace_bounds.settings import check_settings, setting

PRODUCT, PRODUCT_SPLIT, REFERENCE, SCALE_PREFIX = "mace_bounds", "mace_bounds_split", "constant", "scale_"
SPREAD = "model_spread"
"""Takes part only where energies of other models are given."""


def parse_names(text: str) -> tuple[str, ...]:
    """``"llpr, quantile"`` to its names. ValueError for an empty list."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError("the list of names is empty; write llpr,quantile, for example.")
    return names


@dataclass(frozen=True)
class CompareConfig:
    """Settings of a comparison; the command line makes its options from the fields.

    Attributes
    ----------
    n_splits : int
        Composition splits, of the seeds ``fit.seed`` onwards.
    system_folds : int
        Folds of whole chemical systems, which are absent from fit and calibration; 0 for none.
    drop_subsystems : bool
        Keep rows whose elements are all in one of a fold's systems (Li and Li-O beside Fe-Li-O) out of the fit and
        the calibration of that fold too.
    methods : tuple of str or None
        Names to compare; None for all. ``"constant"`` always takes part.
    include_training : bool
        Use rows of compositions from the model's own training as well.
    predictions : path or None
        Table (CSV, Parquet, JSON) of total energies of the structures by other models, whose spread with the store's
        model is then one more method; structures without all of them are left out.
    energy_columns : tuple of str or None
        Its columns of energies, eV, one for each model.
    id_column : str or None
        Its column of ids.
    plots : bool
        Draw plots, also for the page; run again with them, a finished comparison only draws.
    fit : FitConfig
        Settings of the product; its shares, seed and ``split_by`` make the splits of all methods.
    """

    n_splits: int = setting(10, "Splits by composition.", minimum=0, maximum=1000)
    system_folds: int = setting(
        0,
        "Also leave out whole chemical systems, in this many folds; with at most as many systems, one at a time.",
        minimum=0,
        maximum=1000,
        metavar="FOLDS",
    )
    drop_subsystems: bool = setting(False, "With --system-folds, leave the subsystems of a fold out as well.")
    methods: tuple[str, ...] | None = setting(
        None,
        "Compare only these; constant always takes part.",
        metavar="NAME,...",
        shown="all",
        parser=parse_names,
    )
    include_training: bool = setting(
        False,
        "Also use compositions from the model's own training. Warning: the model may have been trained on these "
        "labels, which makes the bounds too narrow.",
    )
    predictions: Path | None = setting(
        None,
        "CSV, Parquet or JSON of total energies of the structures by other models: their spread is one more method.",
        metavar="TABLE",
    )
    energy_columns: tuple[str, ...] | None = setting(
        None,
        "Its columns of total energies, eV, one for each of the models.",
        metavar="NAME,...",
        parser=parse_names,
    )
    id_column: str | None = setting(
        None, "Its column of ids.", metavar="NAME", shown="id, material_id, mat_id or entry_id"
    )
    plots: bool = setting(True, "Draw plots, also for the page.")
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        check_settings(self, HeadError)
        if (self.predictions is None) != (self.energy_columns is None):
            raise HeadError(
                "a table of predictions and the names of its energy columns belong together; give both "
                "(--predictions TABLE --energy-columns A,B)."
            )
        if self.n_splits + self.system_folds == 0 or self.system_folds == 1:
            raise HeadError(
                f"{self.n_splits} composition splits and {self.system_folds} folds of chemical systems make no "
                "comparison; choose at least one split, and either no folds or two and more."
            )
        shares = self.fit.fit_share, self.fit.calibration_share
        if min(shares) <= 0 or sum(shares) >= 1:
            raise HeadError(
                f"the shares {shares[0]:g} + {shares[1]:g} do not leave rows to fit, calibrate and test on; choose two "
                "positive ones with a sum below 1."
            )
