"""What an audit does beside bounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mace_bounds.calibration import FitConfig
from mace_bounds.errors import LabelError
from mace_bounds.features import ExtractSettings
from mace_bounds.levels import HIGHEST, LOWEST, parse_level
from mace_bounds.settings import check_settings, setting


@dataclass(frozen=True)
class AuditConfig:
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
        Its columns of total energies, eV, and of ids.
    fit : FitConfig
        Settings of cross-fitted heads.
    extract : ExtractSettings
        How the source is read; not used for a feature store.
    """

    level: float = setting(
        0.95,
        "Nominal coverage of the bounds.",
        minimum=LOWEST,
        maximum=HIGHEST,
        metavar="LEVEL",
        parser=parse_level,
        option="--level -l",
    )
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
    energy_column: str | None = setting(None, "Its column of total energies, eV.", metavar="NAME")
    id_column: str | None = setting(
        None, "Its column of ids.", metavar="NAME", shown="id, material_id, mat_id or entry_id"
    )
    fit: FitConfig = field(default_factory=FitConfig)
    extract: ExtractSettings = field(default_factory=ExtractSettings)

    def __post_init__(self) -> None:
        check_settings(self, LabelError)
        object.__setattr__(self, "level", parse_level(self.level))
        named = self.predictions is not None, self.energy_column is not None
        if any((*named, self.id_column is not None)) and not all(named):
            raise LabelError(
                "a table of predictions and the name of its energy column belong together; give both "
                "(--predictions TABLE --energy-column NAME)."
            )
