"""The dry run: what a build would fetch, how long it would take here, how much disk it needs; OUT stays as it is."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import DEFAULT_MODEL, WeightsFile, find_weights
from mace_bounds.errors import SourceError
from mace_bounds.materials_project import parse_query
from mace_bounds.pipeline.config import DEFAULT_SOURCE, FIT, Question, ask
from mace_bounds.pipeline.estimate import (
    Estimate,
    audit_estimate,
    download_estimate,
    features_estimate,
    fit_estimate,
)
from mace_bounds.pipeline.folder import State
from mace_bounds.pipeline.probe import Extent, Speed, measure_extent, measure_speed, spread
from mace_bounds.pipeline.sources import QUERY
from mace_bounds.pipeline.training import training_is_known, unknown_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes
    ----------
    out : Path
    sources : tuple of Extent
    weights : WeightsFile
        The model's file.
    speed : Speed or None
        From the probe; None where the weights are not here.
    stages : tuple of Estimate
        Time and disk, stage by stage.
    free_bytes : int
        Free disk at ``out``.
    notes : tuple of str
        What a user should know before starting.
    """

    out: Path
    sources: tuple[Extent, ...]
    weights: WeightsFile
    speed: Speed | None
    stages: tuple[Estimate, ...]
    free_bytes: int
    notes: tuple[str, ...]

    @property
    def needed_bytes(self) -> int:
        """Disk that is known to be needed at ``out``."""
        return sum(stage.disk_bytes or 0 for stage in self.stages)

    @property
    def enough(self) -> bool:
        """Whether that much is free."""
        return self.needed_bytes <= self.free_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        sources = []
        for one in self.sources:
            values = {key: getattr(one, key) for key in ("name", "kind", "structures", "labelled", "counted")}
            values["atoms"] = round(one.atoms)
            if one.look is not None:
                values["to_fetch"] = {
                    "documents": one.look.documents,
                    "database_version": one.look.database_version,
                    "first_page": one.look.page,
                    "seconds_for_first_page": round(one.look.seconds, 3),
                }
            sources.append(values)
        return {
            "command": "build --dry-run",
            "out": str(self.out),
            "sources": sources,
            "model": {**asdict(self.weights), "path": str(self.weights.path)},
            "probe": None if self.speed is None else asdict(self.speed),
            "stages": [asdict(stage) for stage in self.stages],
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "enough": self.enough,
            "notes": list(self.notes),
        }


def plan(
    out: str | Path,
    source: str | Path = DEFAULT_SOURCE,
    *,
    also: Sequence[str | Path] = (),
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    workers: int | None = 1,
    scheduler: str | None = None,
    note: Callable[[str], None] | None = None,
    **settings: Any,
) -> Plan:
    """Say what :func:`build` with these arguments would fetch, take and need; nothing is written into ``out``.

    Queries are asked for their first page. Twenty structures run through the model, if its weights are here; they
    are not fetched.

    Parameters
    ----------
    out, source, also, model, device, workers, scheduler, note, **settings
        As for :func:`build`.

    Returns
    -------
    Plan

    Raises
    ------
    MaceBoundsError
        As :func:`build`.
    """
    question = ask(source, also, model, **settings)
    out, tell = Path(out), note or _silent
    state = State(out, question)  # refuses what build would refuse
    weights = find_weights(question.model)
    with TemporaryDirectory(prefix="mace-bounds-") as name:
        work = Path(name)
        extents = tuple(
            measure_extent(one, place, question, out, work, tell)
            for place, one in enumerate(question.sources)
        )
        sample = spread([record for extent in extents for record in extent.sample])
        needed = bool(sample) and weights.here and not state.has(FIT)
        speed = measure_speed(sample, question, device, work) if needed else None
    if not sum(extent.structures for extent in extents):
        raise SourceError("expected structures in the sources, got none; name others")
    stages = (
        download_estimate(extents, weights),
        features_estimate(extents, speed, weights, question, state, workers, scheduler),
        fit_estimate(extents, speed, state),
        audit_estimate(extents, speed, question, state),
    )
    notes = _notes(question, extents, weights)
    free = shutil.disk_usage(_existing(out)).free
    return Plan(out, extents, weights, speed, stages, free, notes)


def _notes(question: Question, extents: tuple[Extent, ...], weights: WeightsFile) -> tuple[str, ...]:
    notes = []
    if not weights.here:
        notes.append(
            f"The weights of {weights.model} are not here: mace downloads them on the first run. How long the features "
            "take is known when they are here: run build --until download, then the dry run again."
        )
    for extent in extents:
        if extent.look is not None and not extent.counted:
            notes.append(
                f"{extent.name}: sizes are those of the first {extent.look.page:,} documents, which may not be typical."
            )
        if extent.kind == QUERY and extent.look is not None and parse_query(extent.name).everything:
            notes.append(
                f"{extent.name} comes by the client's bulk path: its table is copied from a public bucket into "
                "~/mp_datasets (or $MPRESTER_LOCAL_DATASET_CACHE); its size and time are not known before."
            )
    if not training_is_known(question.model):
        notes.append(unknown_sentence(question.model))
    return tuple(notes)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _silent(*_: Any) -> None:
    """Tell nothing."""
