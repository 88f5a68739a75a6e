"""An audit: features, bounds for every structure, coverage where there are labels, plots, report, summary."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.audit import _folder
from mace_bounds.audit._library import find_head, read_card
from mace_bounds.audit._measured import (
    ALL,
    SUSPECT,
    coverage,
    curve,
    detailed_table,
    headline,
    labelled,
    metrics,
    overall,
    sentence,
    violation_table,
)
from mace_bounds.audit._plot import plot
from mace_bounds.audit._score import feature_kind, open_pair, wants_atoms
from mace_bounds.audit._versions import now, versions
from mace_bounds.calibration import CalibratedHead, load_head
from mace_bounds.errors import StoreError
from mace_bounds.features import FeatureStore, extract, is_store, training_compositions
from mace_bounds.structures import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.audit._measured import Measured

SHARD_ROWS = 256


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What an audit found.

    Attributes
    ----------
    folder : Path
        Where everything was written; ``report.html`` is the page to open.
    summary : dict
        What ``summary.json`` holds.
    coverage : DataFrame or None
        Measured coverage, overall and by group; None without labels.
    """

    folder: Path
    summary: dict[str, Any]
    coverage: pd.DataFrame | None

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.folder / _folder.REPORT


def audit(
    source: Any,
    out: str | Path,
    *,
    model: str | Path | None = None,
    head: str | Path | CalibratedHead | None = None,
    level: float = 0.95,
    energy_key: str | None = None,
    max_atoms: int = 500,
    device: str = "auto",
    dtype: str = "float32",
    shard_rows: int = SHARD_ROWS,
    workers: int | None = 1,
    scheduler: str | None = None,
    plots: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> AuditResult:
    """Bounds for every structure of a source, and how often they hold where the source has labels.

    Parameters
    ----------
    source : path, str, object or iterable
        Anything that :func:`mace_bounds.structures.read` takes, or the folder of a finished feature store.
    out : path
        A new folder, or that of an audit that was interrupted: finished features are not computed again.
    model, head : str, path or CalibratedHead, optional
        See :func:`mace_bounds.score`; for a feature store the model is the store's.
    level : float
        Level of the list of violations and of the plots by group; coverage is measured at every level.
    energy_key, max_atoms, device, dtype
        See :func:`mace_bounds.score`; not used for a feature store.
    shard_rows : int
        Structures per shard of the features.
    workers, scheduler
        Where the features are computed: see :func:`mace_bounds.features.extract`.
    plots : bool
        Draw plots; without them the report has tables only, and :func:`plot` can draw them later.
    progress : callable, optional
        Called with (structures done, failed among them) after each shard.

    Returns
    -------
    AuditResult

    Raises
    ------
    StoreError
        If ``out`` holds something else, or the store is unfinished.
    HeadError
        If no head fits the model, or the level is not calibrated.
    ModelError, SourceError, EngineError
        If the model, the source or the workers cannot be used.
    """
    out, clock = Path(out), _Clock()
    settings = {
        "level": level,
        "energy_key": energy_key,
        "max_atoms": max_atoms,
        "dtype": dtype,
        "device": device,
    }
    if _is_path(source) and is_store(source):
        store, calibrated, backbone = _open_store(Path(source), model, head, level)
        _folder.open_folder(out)
    else:
        frozen, calibrated = open_pair(model, head, level=level, device=device, dtype=dtype)
        backbone = frozen.training_compositions
        _folder.open_folder(out)
        elements = frozenset(frozen.atomic_numbers)
        records = read(source, energy_key=energy_key, max_atoms=max_atoms, elements=elements)
        store = extract(
            records,
            out / _folder.FEATURES,
            frozen,
            kind=feature_kind(calibrated),
            atoms=wants_atoms(calibrated),
            shard_rows=shard_rows,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
        )
    clock.lap("features")
    _folder.write_bounds(_tables(store, calibrated, level, backbone), out, calibrated.levels)
    clock.lap("bounds")
    table = _folder.read_bounds(out / _folder.BOUNDS)
    measured = _measure(table, calibrated, level, out)
    clock.lap("statistics")
    summary = {
        "command": "audit",
        "source": str(source) if _is_path(source) else type(source).__name__,
        "settings": settings,
        "versions": versions(),
        "model": {
            "name": store.manifest.model,
            "digest": store.manifest.model_digest,
            "head": store.manifest.model_head,
        },
        "head": _about_head(calibrated, head, model, store),
        "started": clock.started,
        "counts": _counts(table),
        "failures": _failures(table, out),
        **measured,
    }
    _folder.write_json(out / _folder.SUMMARY, {**summary, "finished": now(), "seconds": clock.laps})
    drawn = plot(out) if plots else []
    clock.lap("plots")
    from mace_bounds.audit._report import write_report

    summary |= {"finished": now(), "seconds": clock.laps, "files": []}
    write_report(out, summary, drawn)
    clock.lap("report")
    summary["files"] = _written(out, drawn)
    summary["finished"] = now()
    _folder.write_json(out / _folder.SUMMARY, summary)
    return AuditResult(out, summary, _read_coverage(out) if measured["measured_on"]["n"] else None)


class _Clock:
    """Seconds of each stage, rounded; and when the run began."""

    def __init__(self) -> None:
        self.started, self.laps, self._last = now(), dict[str, float](), time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        before, self._last = self._last, time.perf_counter()
        self.laps[name] = round(self._last - before, 2)


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, Path))


def _open_store(
    folder: Path, model: str | Path | None, head: str | Path | CalibratedHead | None, level: float
) -> tuple[FeatureStore, CalibratedHead, NDArray[np.uint64] | None]:
    store = FeatureStore(folder)
    manifest = store.manifest
    if not manifest.complete:
        raise StoreError(
            f"expected a finished feature store in {folder}, but its run was interrupted; "
            "run the same mace-bounds features command again to finish it."
        )
    if isinstance(head, CalibratedHead):
        calibrated = head
    else:
        calibrated = load_head(find_head(model or manifest.model, head, manifest.model_digest)[1])
    calibrated.conformal.check(level)
    calibrated.check_fits(manifest.model, manifest.model_digest, manifest.model_head, manifest.kind)
    return store, calibrated, training_compositions(model or manifest.model, manifest.model_digest)


def _tables(
    store: FeatureStore, head: CalibratedHead, level: float, backbone: NDArray[np.uint64] | None
) -> Iterator[pd.DataFrame]:
    for rows in store.rows(atoms=wants_atoms(head)):
        yield detailed_table(rows, head, level, backbone)


def _measure(table: pd.DataFrame, head: CalibratedHead, level: float, out: Path) -> dict[str, Any]:
    """Write coverage, curve and violations; return what the summary says of them."""
    everything = labelled(table, head.levels)
    for name in (_folder.COVERAGE, _folder.CURVE, _folder.VIOLATIONS):
        (out / name).unlink(missing_ok=True)
    outside = violation_table(labelled(table, head.levels, suspect=True), level)
    if len(outside):
        _folder.write_csv(outside, out / _folder.VIOLATIONS)
    if len(everything) == 0:
        why = "every label is suspect" if len(outside) else "no labels"
        return {"measured_on": {"rows": None, "n": 0, "sentence": f"{why}, so bounds only"}}
    chosen = headline(everything, head)
    full = coverage(everything)
    if chosen is not everything:
        import pandas as pd

        full = pd.concat([coverage(chosen), full], ignore_index=True)
    _folder.write_csv(full, out / _folder.COVERAGE)
    _folder.write_csv(_curve_table(chosen, head), out / _folder.CURVE)
    roles = {str(k): int(v) for k, v in everything.table["seen_in"].value_counts().items()}
    return {
        "measured_on": {
            "rows": chosen.name,
            "n": len(chosen),
            "in_training": chosen.n_in_training,
            "sentence": sentence(chosen, roles, head),
        },
        "seen_in": roles,
        "coverage": overall(full, chosen.name),
        "coverage_all_labelled": overall(full, ALL),
        "metrics": metrics(chosen),
        "violations": {"level": level, "n": len(outside)},
    }


def _curve_table(rows: Measured, head: CalibratedHead) -> pd.DataFrame:
    import pandas as pd

    drawn = curve(rows, head)
    return pd.DataFrame(
        {
            "nominal": drawn.nominal,
            "coverage": drawn.observed,
            "coverage_low": drawn.low,
            "coverage_high": drawn.high,
            "n": drawn.n,
        }
    )


def _about_head(
    head: CalibratedHead,
    given: str | Path | CalibratedHead | None,
    model: str | Path | None,
    store: FeatureStore,
) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": "in memory",
        "levels": list(head.levels),
        "quantiles": {f"{x:g}": head.conformal.half_width(x) for x in head.levels},
        "centre": "refit" if head.refit else "model",
        "scale": head.scale.kind,
        "rows": head.provenance.get("rows", {}),
        "coverage_when_made": head.provenance.get("coverage", []),
    }
    if not isinstance(given, CalibratedHead):
        card = read_card(find_head(model or store.manifest.model, given, store.manifest.model_digest)[1])
        about |= {"name": card.name, "path": str(card.path), "digest": card.digest}
    return about


def _counts(table: pd.DataFrame) -> dict[str, int]:
    good = table["reason"].isna()
    flags = table["flags"].fillna("").str.split(";")
    return {
        "structures": len(table),
        "scored": int(good.sum()),
        "failed": int((~good).sum()),
        "labelled": int((good & table["energy_dft_ev"].notna()).sum()),
        "suspect_labels": int(flags.map(lambda row: SUSPECT in row).sum()),
        "refused_labels": int(flags.map(lambda row: "label_refused" in row).sum()),
        "extrapolating": int(flags.map(lambda row: "extrapolates" in row).sum()),
        "unseen_elements": int(flags.map(lambda row: "unseen_element" in row).sum()),
    }


def _failures(table: pd.DataFrame, out: Path) -> list[dict[str, Any]]:
    """Write the failed rows; return the commonest reasons, most frequent first."""
    failed = table[table["reason"].notna()][["id", "source", "reason"]]
    (out / _folder.FAILURES).unlink(missing_ok=True)
    if len(failed) == 0:
        return []
    _folder.write_csv(failed, out / _folder.FAILURES)
    return [{"reason": str(k), "n": int(v)} for k, v in failed["reason"].value_counts().head(20).items()]


def _written(out: Path, plots: list[Path]) -> list[str]:
    names = [_folder.REPORT, _folder.SUMMARY, _folder.BOUNDS, _folder.BOUNDS_CSV, _folder.COVERAGE]
    names += [_folder.CURVE, _folder.VIOLATIONS, _folder.FAILURES]
    present = [name for name in names if name == _folder.SUMMARY or (out / name).is_file()]
    return present + [str(path.relative_to(out)) for path in plots]


def _read_coverage(out: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(out / _folder.COVERAGE, keep_default_na=False)
