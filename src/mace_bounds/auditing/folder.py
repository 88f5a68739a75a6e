"""The folder of an audit: its files, written whole or not at all under a lock, and read back."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import atomic, locked, visible, write_json
from mace_bounds.columns import BOUNDS as BOUNDS_COLUMNS
from mace_bounds.columns import GEOMETRY, MEASURED, level_columns, names
from mace_bounds.errors import LabelError, StoreError
from mace_bounds.features import FeatureStore
from mace_bounds.levels import Levels
from mace_bounds.tables import arrow_schema, read_table, stamped, write_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FEATURES, HEADS, PLOTS = "features", "heads", "plots"
BOUNDS, BOUNDS_CSV = "bounds.parquet", "bounds.csv"
COVERAGE, CURVE, VIOLATIONS, FAILURES = "coverage.csv", "curve.csv", "violations.csv", "failures.csv"
SUSPECTS, ATLAS, ELEMENT_BIAS = "suspects.csv", "atlas.csv", "element_bias.csv"
HULL, HULL_PHASES = "hull.csv", "hull_phases.csv"
SUMMARY, REPORT = "summary.json", "report.html"
FILES = {
    REPORT: "this page",
    BOUNDS_CSV: "the bounds of all structures, one row each",
    BOUNDS: "the same with types and whole digests, for pandas and others",
    COVERAGE: "coverage, overall and by group, at each level",
    CURVE: "the calibration curve",
    VIOLATIONS: "labelled structures outside their bounds",
    SUSPECTS: "labels that look wrong",
    ATLAS: "coverage and mean error by many more groups",
    ELEMENT_BIAS: "the error that each element brings",
    HULL: "distances from the convex hull, where the source is a chemical system",
    HULL_PHASES: "the phases that shape it",
    FAILURES: "structures that could not be scored, with the reason",
    SUMMARY: "model, head, settings, versions, times and the numbers of this page",
}
"""Every file of an audit beside features, heads and plots, and what it holds."""

FOLDERS = {
    PLOTS: "all plots as files; mace-bounds plot draws them again, also as PDF",
    f"{HEADS}/full": "the head of all labels, for mace-bounds score --head",
    FEATURES: "the features, so that the audit can go on or be made again",
}
"""Folders beside them."""

_FOR_STATISTICS = (
    "id",
    "formula",
    "n_atoms",
    "chemistry",
    "chemical_system",
    "seen_in",
    "run_type",
    "source",
    "flags",
    "reason",
    "energy_dft_ev",
    "label_kind",
    "label_reason",
    "error_mev_per_atom",
    "expected_error_mev_per_atom",
    "sigma_mev_per_atom",
    "covered_above_level",
    "extrapolation_grade",
    "novelty",
    *names(GEOMETRY),
)
_FOR_PLOTS = (
    "n_atoms",
    "energy_dft_ev",
    "energy_model_ev",
    "error_mev_per_atom",
    "expected_error_mev_per_atom",
    "sigma_mev_per_atom",
    "seen_in",
    "flags",
)
FOR_REPORT = (
    "id",
    "formula",
    "n_atoms",
    "chemistry",
    "energy_model_ev",
    "expected_error_mev_per_atom",
    "lower_mev_per_atom",
    "upper_mev_per_atom",
    "novelty",
    "error_mev_per_atom",
    "inside",
    "flags",
    "source",
    "reason",
)
"""Columns of the bounds that the page lists."""
_GROUP_ROWS = 8192
"""Rows of a row group in Parquet: a few megabytes in hand, and few enough groups to read fast."""


@dataclass(frozen=True)
class AuditFolder:
    """Tables of an audit."""

    path: Path  # the folder
    # values of :data:`mace_bounds.columns.PROVENANCE` that go into every table that is written
    provenance: Mapping[str, Any] = field(default_factory=dict)
    # the same with whole digests, for the footer of the Parquet file
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(self, name: str, table: pd.DataFrame) -> None:
        """Write a table with its provenance."""
        write_table(stamped(table, self.provenance), self.path / name)

    def remove(self, *names: str) -> None:
        """Delete files of an earlier run, which must not be taken for this one's."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.path / name).is_file()

    def read(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read a table; raises :class:`StoreError` if it is missing or damaged."""
        if not self.has(name):
            raise StoreError(f"{self.path} has no {name}; run the audit again.")
        return read_table(self.path / name, columns)

    def write_bounds(self, tables: Iterable[pd.DataFrame], levels: Levels) -> int:
        """Stream tables of bounds into ``bounds.parquet`` and ``bounds.csv``; returns the number of rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = (*BOUNDS_COLUMNS, *MEASURED, *level_columns(levels))
        schema = arrow_schema(columns, self.metadata)
        n_rows, waiting = 0, list[pa.Table]()
        with (
            atomic(self.path / BOUNDS_CSV) as csv,
            atomic(self.path / BOUNDS) as parquet,  # in its place first: an audit's folder is known by it
            pq.ParquetWriter(parquet, schema, compression="zstd") as writer,
            csv.open("w", newline="", encoding="utf-8") as handle,
        ):
            for table in tables:
                picked = table[schema.names]
                waiting.append(pa.Table.from_pandas(picked, schema=schema, preserve_index=False))
                if sum(part.num_rows for part in waiting) >= _GROUP_ROWS:
                    _flush(writer, waiting)
                picked.to_csv(handle, index=False, header=n_rows == 0)
                n_rows += len(picked)
            _flush(writer, waiting)
        return n_rows

    def bounds_for_statistics(self, levels: Levels) -> pd.DataFrame:
        """Read the columns that statistics are made from: half of them, and memory grows with the rows."""
        return self.read(BOUNDS, [*_FOR_STATISTICS, *names(level_columns(levels))])

    def bounds_for_plots(self, levels: Levels) -> pd.DataFrame:
        """Read the columns that are drawn."""
        return self.read(BOUNDS, [*_FOR_PLOTS, *names(level_columns(levels))])

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``, last of all: whoever finds it finds all other files."""
        write_json(self.path / SUMMARY, summary)


def _flush(writer: Any, waiting: list[pa.Table]) -> None:
    import pyarrow as pa

    if waiting:
        writer.write_table(pa.concat_tables(waiting))
        waiting.clear()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder of an audit: a new one, or one that an earlier run began; no second run gets in."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; choose a folder for the audit.")
    present = visible(out)
    if present and present.isdisjoint({SUMMARY, BOUNDS, FEATURES}) and present != {HEADS}:
        raise StoreError(
            f"{out} holds something else than an audit; choose a new folder, or that of an earlier audit."
        )
    with locked(out):
        yield


@contextmanager
def nothing_kept_if_refused(out: Path) -> Iterator[None]:
    """Delete the features of an audit whose labels are refused: with another key of labels they are others."""
    try:
        yield
    except LabelError:
        if not (out / SUMMARY).is_file():
            for name in (FEATURES, HEADS):
                shutil.rmtree(out / name, ignore_errors=True)
        raise


def check_same(out: Path, audited: Mapping[str, str]) -> None:
    """Refuse the folder of a finished audit of something else; ``audited`` says in words what this one is of."""
    before = read_summary(out).get("audited", audited) if (out / SUMMARY).is_file() else audited
    if before != audited:
        there, here = (" ".join(part for part in about.values() if part) for about in (before, audited))
        raise StoreError(
            f"{out} holds the audit of {there}, and this one is of {here}; choose another folder, or remove that one."
        )


def read_summary(out: Path) -> dict[str, Any]:
    """Read ``summary.json`` of a finished audit; raises :class:`StoreError` if there is none."""
    try:
        values: dict[str, Any] = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        if values["command"] != "audit":
            raise ValueError("the summary of another command")
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{out} is not the folder of a finished audit ({type(error).__name__}); "
            "run mace-bounds audit SOURCE OUT first."
        ) from error


def energies_name(summary: Mapping[str, Any]) -> str:
    """Whose energies an audit bounds: the model, or what published energies are called.

    A column ``mace_mpa_0_energy_ev`` holds the energies of ``mace_mpa_0``; a column that is only called energy, those
    of its file.
    """
    published = summary.get("published")
    if not published:
        return str(summary["model"]["name"])
    named = re.sub(r"(?i)_?(total_|potential_)?(energy|energies)(_ev)?$|_ev$", "", str(published["column"]))
    return named.strip("_ ") or Path(published["file"]).name.split(".")[0]


def about_energies(store: FeatureStore) -> dict[str, Any] | None:
    """What a summary says of a store's energies where they are of another model than its features."""
    manifest = store.manifest
    if not manifest.energies_of:
        return None
    n = manifest.n_records - manifest.n_failed
    about = {"file": str(store.folder), "column": manifest.energies_of, "features": manifest.model}
    return about | {"n": n, "n_missing": 0}
