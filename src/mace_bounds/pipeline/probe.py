"""What a few structures tell about all: how many there are, how large, how fast the model runs, how much is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.backbones import load_model
from mace_bounds.calibration import FitConfig
from mace_bounds.features import ExtractSettings, FeatureStore, extract
from mace_bounds.head import array_chunks, fit_pops
from mace_bounds.materials_project import finished, parse_query, preview
from mace_bounds.pipeline.folder import entries_path
from mace_bounds.pipeline.sources import QUERY, STORE, kind_of
from mace_bounds.structures import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mace_bounds.materials_project import QueryPreview
    from mace_bounds.pipeline.config import Question
    from mace_bounds.structures import Record

N_PROBE = 20


@dataclass(frozen=True)
class Extent:
    """How much a source holds.

    Attributes
    ----------
    name, kind : str
        As :class:`mace_bounds.pipeline.sources.Source` has them.
    structures, labelled : int
        In all; estimated where only a first page was seen.
    atoms : float
        In all structures.
    sample : tuple of Record
        Structures spread over what was seen.
    look : QueryPreview or None
        The first page of what is still to be downloaded.
    counted : bool
        Whether the numbers are counted rather than scaled from a first page.
    """

    name: str
    kind: str
    structures: int
    labelled: int
    atoms: float
    sample: tuple[Record, ...]
    look: QueryPreview | None = None
    counted: bool = True


def measure_extent(
    name: str, place: int, question: Question, out: Path, work: Path, note: Callable[[str], None]
) -> Extent:
    """Count a source: read it where it is here, else look at its first page."""
    kind = kind_of(name)
    if kind == STORE:
        table = FeatureStore(name).read().table
        good = table[table["reason"].isna()]
        return Extent(
            name, kind, len(table), int(good["energy_ev"].notna().sum()), float(good["n_atoms"].sum()), ()
        )
    if kind == QUERY:
        path = entries_path(out, place)
        if finished(parse_query(name), path) is None:
            seen = preview(name, work / path.name, note=note)
            page = _count(name, kind, read(seen.file, max_atoms=question.max_atoms))
            share = seen.documents / seen.page
            return Extent(
                name,
                kind,
                round(page.structures * share),
                round(page.labelled * share),
                page.atoms * share,
                page.sample,
                seen,
                counted=seen.documents == seen.page,
            )
        return _count(name, kind, read(path, max_atoms=question.max_atoms))
    return _count(name, kind, read(name, energy_key=question.energy_key, max_atoms=question.max_atoms))


def _count(name: str, kind: str, records: Iterable[Record]) -> Extent:
    structures = labelled = atoms = 0
    every, kept = 1, []
    for record in records:
        structures += 1
        if record.crystal is None:
            continue
        labelled += record.energy_ev is not None
        atoms += len(record.crystal.numbers)
        if (structures - 1) % every == 0:  # evenly over the source, however long it is
            kept.append(record)
            if len(kept) == 2 * N_PROBE:
                every, kept = 2 * every, kept[::2]
    return Extent(name, kind, structures, labelled, float(atoms), tuple(spread(kept)))


def spread(records: list[Record]) -> list[Record]:
    """At most :data:`N_PROBE` of them, evenly."""
    places = np.linspace(0, len(records) - 1, min(N_PROBE, len(records))).round().astype(int)
    return [records[k] for k in places.tolist()]


@dataclass(frozen=True)
class Speed:
    """How fast the model runs here, in one process on a few structures.

    Attributes
    ----------
    structures, atoms : int
        Of the probe that could be scored.
    seconds_per_atom : float
        Neighbours, forward, space groups and writing; imports and compilation are over by then.
    bytes_per_atom : float
        Of a feature store that keeps single atoms.
    columns : int
        Features.
    load_seconds : float
        To load the model, once per process.
    device : str
    """

    structures: int
    atoms: int
    seconds_per_atom: float
    bytes_per_atom: float
    columns: int
    load_seconds: float
    device: str


def measure_speed(sample: list[Record], question: Question, device: str, work: Path) -> Speed | None:
    """Run the model on a few structures, twice, and time the second run; None if it can score none of them."""
    start = time.perf_counter()
    frozen = load_model(question.model, dtype=question.dtype, device=device)
    loaded = time.perf_counter() - start
    kept = ExtractSettings(atoms=True, symmetry=True, shard_rows=len(sample), workers=1)
    for name in ("warm", "timed"):
        start = time.perf_counter()
        store = extract(sample, work / name, frozen, kept)
        seconds = time.perf_counter() - start
    table = store.read().table
    good = table[table["reason"].isna()]
    if not len(good):
        return None
    atoms = int(good["n_atoms"].sum())
    size = sum(shard.stat().st_size for shard in store.shards())
    return Speed(
        structures=len(good),
        atoms=atoms,
        seconds_per_atom=seconds / atoms,
        bytes_per_atom=size / atoms,
        columns=len(store.manifest.columns),
        load_seconds=loaded,
        device=frozen.device,
    )


def measure_fit(n_rows: int, n_columns: int) -> float:
    """Time one POPS fit of made-up rows, s; the head is many of these."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n_rows, n_columns)), rng.standard_t(3, n_rows)
    start = time.perf_counter()
    fit_pops(array_chunks(x, y, np.ones(n_rows)), FitConfig().pops())
    return time.perf_counter() - start
