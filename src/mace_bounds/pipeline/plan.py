"""The dry run: what a build would fetch and how much disk it needs; OUT stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mace_bounds.backbones import WeightsFile, find_weights
from mace_bounds.errors import SourceError
from mace_bounds.features import FeatureStore
from mace_bounds.fitting import TrainingExposure
from mace_bounds.materials_project import (
    KEY_ADDRESS,
    Connection,
    QueryPreview,
    finished,
    parse_query,
    preview,
)
from mace_bounds.pipeline.config import AUDIT, DOWNLOAD, FEATURES, FIT, BuildConfig
from mace_bounds.pipeline.folder import State, entries_path, features_path
from mace_bounds.pipeline.sources import QUERY, STORE, kind_of, training_is_known, training_text
from mace_bounds.structures import Record, require_usable

COLUMNS = 144
"""Features of MACE-MPA-0, which is assumed of every model: its own number is known only when it is loaded."""
BYTES_PER_ATOM, BYTES_PER_STRUCTURE = 4 * COLUMNS, 8 * COLUMNS + 500
"""Features of an atom (float32, which do not compress); those of a structure (float64), labels, ids and fractions."""
BYTES_PER_ROW, BYTES_PER_AUDIT = 800, 10_000_000
"""A row of the bounds table as CSV and Parquet; plots and page."""
HEAD_BYTES, HEAD_COLUMNS = 4_300_000, 166
"""The head of mini; the size grows with the square of the columns."""
FRACTION_COLUMNS = 118


@dataclass(frozen=True)
class SourceSize:
    """How much a source holds."""

    # name, kind: as :class:`mace_bounds.pipeline.sources.Source` has them
    name: str
    kind: str
    # structures, labelled: in all; estimated where only a first page was seen
    structures: int
    labelled: int
    atoms: float  # in all structures
    preview: QueryPreview | None = None  # the first page of what is still to be downloaded
    known: bool = True  # False for a query that cannot be counted, as there is no key of the database

    @property
    def counted(self) -> bool:
        """Whether the numbers are counted rather than scaled from a first page."""
        return self.known and (self.preview is None or self.preview.documents == self.preview.page)


@dataclass(frozen=True)
class Estimate:
    """Disk of a stage."""

    stage: str
    done: bool  # whether it is done already
    disk_bytes: int  # that it will need in OUT
    basis: str  # where the number is from


@dataclass(frozen=True)
class Plan:
    """What a build would do."""

    out: Path
    sources: tuple[SourceSize, ...]
    weights: WeightsFile  # the model's file
    stages: tuple[Estimate, ...]
    free_bytes: int  # free disk at ``out``
    notes: tuple[str, ...]  # what a user should know before starting

    @property
    def needed_bytes(self) -> int:
        """Disk that the stages need in ``out``."""
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def enough(self) -> bool:
        """Whether that much is free."""
        return self.needed_bytes <= self.free_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        sources = []
        for source in self.sources:
            values = {
                name: getattr(source, name) for name in ("name", "kind", "structures", "labelled", "counted")
            }
            values["atoms"] = round(source.atoms)
            if source.preview is not None:
                names = {
                    "documents": "documents",
                    "database_version": "database_version",
                    "first_page": "page",
                }
                values["to_fetch"] = {key: getattr(source.preview, name) for key, name in names.items()}
            sources.append(values)
        return {
            "command": "build --dry-run",
            "out": str(self.out),
            "sources": sources,
            "model": {**asdict(self.weights), "path": str(self.weights.path)},
            "stages": [asdict(stage) for stage in self.stages],
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "enough": self.enough,
            "notes": list(self.notes),
        }


def plan(
    out: str | Path, config: BuildConfig = BuildConfig(), *, note: Callable[[str], None] | None = None
) -> Plan:
    """Count what :func:`build` with these arguments would fetch and need; nothing is written into ``out``.

    Only the first page of each query is fetched; without a key of the Materials Project queries are not counted.

    Parameters
    ----------
    out, config, note
        As for :func:`build`.

    Returns
    -------
    Plan

    Raises
    ------
    MaceBoundsError
        As :func:`build`.
    """
    out, config = Path(out), config.resolved()
    state = State(out, config)  # refuses what build would refuse
    weights = find_weights(config.model)
    with TemporaryDirectory(prefix="mace-bounds-") as folder:
        sizes = tuple(
            _measure(name, place, config, out, Path(folder), note)
            for place, name in enumerate(config.sources)
        )
    if not sum(size.structures for size in sizes) and all(size.known for size in sizes):
        raise SourceError(f"there are no structures in {', '.join(config.sources)}; name other sources.")
    stages = _estimates(sizes, weights, state)
    free = shutil.disk_usage(_existing(out)).free
    return Plan(out, sizes, weights, stages, free, _notes(config, sizes, weights))


def _measure(
    name: str, place: int, config: BuildConfig, out: Path, folder: Path, note: Callable[[str], None] | None
) -> SourceSize:
    """Count a source: read it where it is here, else fetch its first page."""
    kind, settings = kind_of(name), config.extract
    if kind == STORE:
        table = FeatureStore(name).read().table
        good = table[table["reason"].isna()]
        labelled = int(good["energy_ev"].notna().sum())
        return SourceSize(name, kind, len(table), labelled, float(good["n_atoms"].sum()))
    if kind != QUERY:
        return _count(name, kind, require_usable(settings.read(name)))
    path = entries_path(out, place)
    if finished(parse_query(name), path) is not None:
        return _count(name, kind, settings.read(path))
    if not Connection().has_key():
        return SourceSize(name, kind, 0, 0, 0.0, known=False)
    first = preview(name, folder / path.name, note=note)
    page = _count(name, kind, settings.read(first.file))
    scale = first.documents / first.page
    return replace(
        page,
        structures=round(page.structures * scale),
        labelled=round(page.labelled * scale),
        atoms=page.atoms * scale,
        preview=first,
    )


def _count(name: str, kind: str, records: Iterable[Record]) -> SourceSize:
    structures = labelled = atoms = 0
    for record in records:
        structures += 1
        if record.crystal is not None:
            labelled += record.energy_ev is not None
            atoms += len(record.crystal.numbers)
    return SourceSize(name, kind, structures, labelled, float(atoms))


def _estimates(sizes: tuple[SourceSize, ...], weights: WeightsFile, state: State) -> tuple[Estimate, ...]:
    """Disk of each stage."""
    previews = [size.preview for size in sizes if size.preview is not None]
    entries = sum(p.documents / p.page * (p.file_bytes + p.page_bytes) for p in previews)
    unknown = [size for size in sizes if not size.known]
    basis = "the entries, and the pages beside them meanwhile" if previews else "the sources are here"
    without = f"; without {', '.join(size.name for size in unknown)}" if unknown else ""
    if not weights.here:
        basis += "; without the model's weights"
    todo = [
        size
        for place, size in enumerate(sizes)
        if size.kind != STORE and features_path(state.out, place).name not in state.stages
    ]
    features = sum(BYTES_PER_ATOM * size.atoms + BYTES_PER_STRUCTURE * size.structures for size in todo)
    rows = sum(size.structures for size in sizes)
    head = round(HEAD_BYTES * ((COLUMNS + FRACTION_COLUMNS) / HEAD_COLUMNS) ** 2)
    fit_done, audit_done = FIT in state.stages, AUDIT in state.stages
    return (
        Estimate(DOWNLOAD, not previews and not unknown and weights.here, round(entries), basis + without),
        Estimate(
            FEATURES,
            not todo,
            round(features),
            f"as for the {COLUMNS} features of MACE-MPA-0, of every atom{without}",
        ),
        Estimate(FIT, fit_done, 0 if fit_done else head, f"as for a head of {COLUMNS} features"),
        Estimate(
            AUDIT,
            audit_done,
            0 if audit_done else BYTES_PER_AUDIT + BYTES_PER_ROW * rows,
            f"{rows:,} rows and plots{without}",
        ),
    )


def _notes(config: BuildConfig, sizes: tuple[SourceSize, ...], weights: WeightsFile) -> tuple[str, ...]:
    notes = []
    if not weights.here:
        notes.append(f"The weights of {weights.model} are not here: mace downloads them on the first run.")
    for size in sizes:
        if not size.known:
            notes.append(
                f"{size.name} is not counted, and neither is its disk, without a key of the Materials Project; get "
                f"yours at {KEY_ADDRESS} and set MP_API_KEY, which the download needs too."
            )
        if not size.counted and size.preview is not None:
            notes.append(
                f"{size.name}: sizes are scaled from the first {size.preview.page:,} documents, which may not be "
                "typical."
            )
        if size.kind == QUERY and size.preview is not None and parse_query(size.name).everything:
            notes.append(
                f"{size.name} comes by the client's bulk path: its table is copied from a public bucket into "
                "~/mp_datasets (or $MPRESTER_LOCAL_DATASET_CACHE); the size of that copy is not known before."
            )
    if not training_is_known(config):
        notes.append(training_text(config.model, TrainingExposure(known=False)))
    return tuple(notes)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
