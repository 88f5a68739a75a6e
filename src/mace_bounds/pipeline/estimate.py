"""From a probe to time and disk of each stage, with the basis of every number said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mace_bounds.features import usable_cores
from mace_bounds.materials_project import parse_query
from mace_bounds.pipeline.config import AUDIT, DOWNLOAD, FEATURES, FIT, Question
from mace_bounds.pipeline.folder import features_path
from mace_bounds.pipeline.probe import Extent, Speed, measure_fit
from mace_bounds.pipeline.sources import STORE

if TYPE_CHECKING:
    from mace_bounds.backbones import WeightsFile
    from mace_bounds.pipeline.folder import State

FRACTIONS = 118  # columns of the head beside the features
SECONDS_PER_FIT, POPS_PER_FIT = (
    10.0,
    40,
)  # rough: a head takes these seconds and this many POPS fits of all its rows
PROBE_ROWS = 5000  # rows of the fit that is timed; beyond, its time grows in proportion to the rows
SECONDS_PER_AUDIT, SECONDS_PER_ROW = 30.0, 0.005  # rough: plots, maps and report; then statistics of each row
BYTES_PER_ROW, BYTES_PER_AUDIT = (
    800,
    10_000_000,
)  # a row of the bounds table as CSV and Parquet; plots and page
HEAD_BYTES, HEAD_COLUMNS = 4_300_000, 166  # the head of mini; it grows with the square of the columns


@dataclass(frozen=True)
class Estimate:
    """Time and disk of a stage.

    Attributes
    ----------
    stage : str
    done : bool
        Whether it is done already.
    seconds : float or None
        None where it is not known.
    disk_bytes : int or None
        At OUT; None where it is not known.
    basis : str
        Where the numbers are from.
    """

    stage: str
    done: bool
    seconds: float | None
    disk_bytes: int | None
    basis: str


def download_estimate(extents: tuple[Extent, ...], weights: WeightsFile) -> Estimate:
    """The pages that are still to come, at the pace of the first; their file, and the pages beside it meanwhile."""
    looks = [(extent, extent.look) for extent in extents if extent.look is not None]
    if not looks and weights.here:
        return Estimate(DOWNLOAD, True, 0.0, 0, "everything is here")
    bulk = any(parse_query(extent.name).everything for extent, _ in looks)
    seconds = sum(look.seconds * look.documents / look.page for _, look in looks)
    size = sum(look.documents / look.page * (look.file_bytes + look.page_bytes) for _, look in looks)
    basis = "at the pace of the first page" if looks else "the sources are here"
    if bulk:
        basis = "disk of the entries alone; time and disk of the bulk path's own copy are not known"
    if not weights.here:
        basis += "; without the model's weights"
    return Estimate(DOWNLOAD, False, None if bulk else seconds, round(size), basis)


def features_estimate(
    extents: tuple[Extent, ...],
    speed: Speed | None,
    weights: WeightsFile,
    question: Question,
    state: State,
    workers: int | None,
    scheduler: str | None,
) -> Estimate:
    """Atoms that are still to be done, at the pace of the probe in each process."""
    todo = [
        extent
        for place, extent in enumerate(extents)
        if extent.kind != STORE and not state.has(features_path(state.out, place).name)
    ]
    if not todo:
        return Estimate(FEATURES, True, 0.0, 0, "every feature store is there")
    if speed is None:
        why = "no structure of the probe could be scored" if weights.here else "the weights are not here"
        return Estimate(FEATURES, False, None, None, f"not known: {why}")
    atoms, structures = sum(extent.atoms for extent in todo), sum(extent.structures for extent in todo)
    processes = 1
    if speed.device == "cpu" and scheduler is None:
        processes = min(workers or usable_cores(), -(-structures // question.shard_rows))
    seconds = speed.load_seconds + atoms * speed.seconds_per_atom / processes
    basis = f"from {speed.structures} structures on {speed.device}, {1 / speed.seconds_per_atom:,.0f} atoms/s"
    if processes > 1:
        basis += f", as if {processes} processes were {processes} times as fast"
    if scheduler is not None:
        basis += " in this process: divide by the workers of the cluster"
    return Estimate(FEATURES, False, seconds, round(atoms * speed.bytes_per_atom), basis)


def fit_estimate(extents: tuple[Extent, ...], speed: Speed | None, state: State) -> Estimate:
    """One POPS fit is timed, and multiplied."""
    if state.has(FIT):
        return Estimate(FIT, True, 0.0, 0, "the head is there")
    columns = FRACTIONS + (speed.columns if speed is not None else 144)
    rows = sum(extent.labelled for extent in extents)
    timed = min(max(rows, columns), PROBE_ROWS)
    seconds = SECONDS_PER_FIT + POPS_PER_FIT * measure_fit(timed, columns) * max(rows, timed) / timed
    size = HEAD_BYTES * (columns / HEAD_COLUMNS) ** 2
    basis = f"rough: {POPS_PER_FIT} times a fit of {timed:,} made-up rows, in proportion to {rows:,} labels"
    return Estimate(FIT, False, seconds, round(size), basis)


def audit_estimate(
    extents: tuple[Extent, ...], speed: Speed | None, question: Question, state: State
) -> Estimate:
    """Rough numbers for each row; with ``cross_fit`` six fits more."""
    if state.has(AUDIT):
        return Estimate(AUDIT, True, 0.0, 0, "the report is there")
    rows = sum(extent.structures for extent in extents)
    seconds = SECONDS_PER_AUDIT + SECONDS_PER_ROW * rows
    basis = "rough: a constant and a time for each row, assumed"
    if question.cross_fit:
        seconds += 6 * (fit_estimate(extents, speed, state).seconds or 0.0)
        basis += ", and six fits"
    return Estimate(AUDIT, False, seconds, BYTES_PER_AUDIT + BYTES_PER_ROW * rows, basis)
