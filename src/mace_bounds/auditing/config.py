"""What an audit does beside bounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mace_bounds.calibration import FitConfig
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import PredictionTable
from mace_bounds.levels import level_setting, parse_level
from mace_bounds.settings import setting


@dataclass(frozen=True)
class AuditConfig(PredictionTable):
    """Settings of an audit; the command line makes its options from the fields.

    Attributes
    ----------
    level : float
        Level of the list of violations and of the plots by group; coverage is measured at every level.
    plots : bool
        Draw plots; without them the report has tables only, and :func:`mace_bounds.plot` can draw them later.
    cross_fit : bool
        Fit heads to the labels of the source itself: every labelled structure is bounded by a head that has
        not seen its composition.
    predictions : path or None
        Table (CSV, Parquet, JSON) of energies that some model published for these structures: these are bounded in
        place of the backbone's, by heads cross-fitted to E_DFT - E_published on the backbone's features.
    energy_column, id_column : str or None
        See :class:`mace_bounds.fitting.PredictionTable`.
    fit : FitConfig
        Settings of cross-fitted heads.
    extract : ExtractSettings
        How the source is read; not used for a feature store.
    """

    level: float = level_setting()
    plots: bool = setting(True, "Draw plots, also into the report.")
    cross_fit: bool = setting(
        False,
        "Fit heads to the source's own labels; each structure is bounded by one new to its composition.",
    )
    predictions: Path | None = setting(
        None,
        "CSV, Parquet or JSON of energies that some model published for these structures: bound these (fits heads as "
        "--cross-fit).",
        metavar="TABLE",
    )
    fit: FitConfig = field(default_factory=FitConfig)
    extract: ExtractSettings = field(default_factory=ExtractSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", parse_level(self.level))
