"""Settings of a build."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mace_bounds.backbones import DEFAULT_MODEL, find_weights
from mace_bounds.calibration import FitConfig
from mace_bounds.errors import SourceError
from mace_bounds.features import ExtractSettings
from mace_bounds.levels import level_setting, parse_level
from mace_bounds.materials_project import is_query, parse_query
from mace_bounds.settings import check_settings, setting
from mace_bounds.structures import read

Stage = Literal["download", "features", "fit", "audit"]
DOWNLOAD, FEATURES, FIT, AUDIT = STAGES = ("download", "features", "fit", "audit")


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build; the command line makes its options from the fields.

    Attributes
    ----------
    source : str
        Labelled structures: a query of the Materials Project, a path or pattern that
        :func:`mace_bounds.structures.read` takes, or a finished feature store with atoms.
    also : tuple of str
        More labelled structures. They may be added until the fit is done.
    model : str
        See :func:`mace_bounds.load_model`.
    include_training : bool
        Whether compositions of the model's own training take part in the fit, where they are known.
    cross_fit : bool
        Whether the audit fits heads of its own, so that every label is bounded by a head that has not seen its
        composition; six fits instead of one. Without it, the head itself bounds all, and coverage is measured on
        its test split.
    level : float
        Level of the audit's list of violations and of its plots by group.
    plots : bool
        Draw the plots of the report.
    until : {"download", "features", "fit", "audit"}
        The last stage to do.
    fit : FitConfig
        How heads are fitted, also those of the audit.
    extract : ExtractSettings
        How structures are read and their features extracted; atoms and space groups are always kept.
    """

    source: str = setting(
        "mp:all",
        "Labelled structures: a Materials Project query, a file, a folder, a glob, or a feature store.",
        metavar="SOURCE",
        option="--source -s",
    )
    also: tuple[str, ...] = setting(
        (),
        "More labelled structures, such as ones new to the model; repeatable.",
        metavar="SOURCE",
        option="--with",
    )
    model: str = setting(
        str(DEFAULT_MODEL),
        "The frozen model to build a head for.",
        metavar="NAME|PATH",
        option="--model -m",
    )
    include_training: bool = setting(
        False,
        "Also use compositions from the model's own training. Warning: the model may have been trained on these "
        "labels, which makes the bounds too narrow.",
    )
    cross_fit: bool = setting(
        False,
        "Evaluate with cross-fitting: no structure is scored by a head fitted to its composition (six fits instead of "
        "one).",
    )
    level: float = level_setting("Nominal coverage of the bounds in the audit.")
    plots: bool = setting(True, "Draw plots, also into the report.")
    until: Stage = setting("audit", "Stop after this stage; run again without it to continue.")
    fit: FitConfig = field(default_factory=FitConfig)
    extract: ExtractSettings = field(default_factory=ExtractSettings)

    def __post_init__(self) -> None:
        check_settings(self, SourceError)
        object.__setattr__(self, "level", parse_level(self.level))

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source, the first one first."""
        return (self.source, *self.also)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages to do, in order."""
        return STAGES[: STAGES.index(self.until) + 1]

    def resolved(self) -> BuildConfig:
        """Return the same build with canonical queries and absolute paths.

        Raises
        ------
        SourceError
            If a source is no query and no path with structures, is given twice, or cannot be read twice.
        ModelError
            If the model is neither a name nor a path.
        """
        weights = find_weights(self.model)
        model = str(Path(self.model).absolute()) if Path(self.model).exists() else weights.model
        sources = [_canonical(str(source)) for source in self.sources]
        twice = [source for k, source in enumerate(sources) if source in sources[:k]]
        if twice:
            raise SourceError(f"the source {twice[0]} is given twice; leave one of them out.")
        known = self.fit.trained_on
        fit = self.fit if known is None else replace(self.fit, trained_on=_canonical(known))
        return replace(self, source=sources[0], also=tuple(sources[1:]), model=model, fit=fit)

    def decisive(self) -> dict[str, dict[str, Any]]:
        """Settings that determine the results, by the stage after which they can no longer change.

        Device, workers and memory are not among them; sources can be added until the fit is done.
        """
        fit = {**asdict(self.fit), "levels": list(self.fit.levels)}
        return {
            FEATURES: {"model": self.model, **self.extract.decisive()},
            FIT: {"sources": list(self.sources), "include_training": self.include_training, **fit},
            AUDIT: {"cross_fit": self.cross_fit, "level": self.level},
        }


def _canonical(source: str) -> str:
    if is_query(source):
        return str(parse_query(source))
    if source == "-":
        raise SourceError(
            "a build reads its source again, which standard input cannot be; save it to a file."
        )
    path = str(Path(source).absolute())
    read(path)  # raises here if it names nothing
    return path
