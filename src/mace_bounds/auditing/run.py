"""An audit: features, bounds for every structure, coverage where there are labels, plots, report, summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.config import AuditConfig
from mace_bounds.auditing.drawing import draw_plots
from mace_bounds.auditing.findings import atlas, counts, failures, measure
from mace_bounds.auditing.opening import is_path, open_own, open_with_head
from mace_bounds.auditing.suspect_file import suspects
from mace_bounds.auditing.times import Stages, read_times
from mace_bounds.bounds import detailed_table, find_head, read_card
from mace_bounds.calibration import CalibratedHead
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureStore
from mace_bounds.fitting import FULL, fit_own_head, published_energies
from mace_bounds.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.auditing.opening import Progress


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
    times : dict
        What ``run.json`` holds: when it ran and how long each stage took, at each start.
    """

    folder: Path
    summary: dict[str, Any]
    coverage: pd.DataFrame | None
    times: dict[str, Any]

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
    config: AuditConfig = AuditConfig(),
    progress: Progress | None = None,
) -> AuditResult:
    """Bounds for every structure of a source, and how often they hold where the source has labels.

    Parameters
    ----------
    source : path, str, object or iterable
        Anything that :func:`mace_bounds.structures.read` takes, or the folder of a finished feature store.
    out : path
        A new folder, or that of an audit that was interrupted: finished features and heads are not made again.
    model, head : str, path or CalibratedHead, optional
        See :func:`mace_bounds.score`; for a feature store the model is the store's.
    config : AuditConfig
        Level, plots, cross-fitting, and the settings of the stages.
    progress : callable, optional
        Called with (stage, done, failed, total or None): structures while ``stage`` is ``"features"``, heads while it
        is ``"fit"``.

    Returns
    -------
    AuditResult

    Raises
    ------
    StoreError
        If ``out`` holds something else, or the store is unfinished.
    HeadError
        If no head fits the model, or the level is not calibrated.
    LabelError
        If the table of predictions does not fit the source, or there are no labels to fit to.
    ModelError, SourceError, EngineError
        If the model, the source or the workers cannot be used.
    """
    out, level, report = Path(out), config.level, progress or _silent
    stages = Stages(out)
    own_rows = None
    if config.cross_fit or config.predictions is not None:
        if head is not None:
            raise HeadError(
                "a head cannot be combined with --cross-fit or --predictions; leave one of them out."
            )
        store, seen = open_own(source, out, model, config, report)
        stages.end("features")
        heads = out / _folder.HEADS
        made = fit_own_head(
            store,
            config.fit,
            published=published_energies(config.predictions, config.energy_column, config.id_column),
            training_keys=seen,
            folder=heads,
            progress=lambda done, total: report("fit", done, 0, total),
        )
        calibrated, own_rows = made.heads.full, made
        calibrated.levels.index(level)
        tables = made.tables(level)
        about_head = _about_head(calibrated, calibrated, model, store)
        about_head |= {
            "name": f"fitted to this source, {len(made.heads.heads)} folds of compositions",
            "folder": f"{_folder.HEADS}/{FULL}",
            "digest": read_card(heads / FULL).digest,
        }
        stages.end("fit")
    else:
        store, calibrated, training_keys = open_with_head(source, out, model, head, config, report)
        stages.end("features")
        tables = _tables(store, calibrated, level, training_keys)
        about_head = _about_head(calibrated, head, model, store)
    for name in (_folder.SUMMARY, _folder.REPORT):  # of an earlier run: not to be taken for this one's
        (out / name).unlink(missing_ok=True)
    _folder.write_bounds(tables, out, calibrated.levels.values)
    stages.end("bounds")
    table = _folder.read_bounds(out / _folder.BOUNDS, _folder.statistics_columns(calibrated.levels.values))
    measured = measure(table, calibrated, level, out)
    measured["suspects"] = suspects(
        table, store.rows() if own_rows is None else own_rows.rows(), calibrated, out
    )
    measured["atlas"] = atlas(table, calibrated, level, out)
    stages.end("statistics")
    summary = {
        "command": "audit",
        "source": str(source) if is_path(source) else type(source).__name__,
        "settings": {
            "level": level,
            "energy_key": config.extract.energy_key,
            "max_atoms": config.extract.max_atoms,
            "dtype": config.extract.dtype,
            "device": config.extract.device,
        },
        "versions": versions(),
        "model": {
            "name": store.manifest.model,
            "digest": store.manifest.model_digest,
            "head": store.manifest.model_head,
        },
        "head": about_head,
        "published": None if own_rows is None else own_rows.about or None,
        "counts": counts(table),
        "failures": failures(table, out),
        **measured,
    }
    drawn = draw_plots(out, summary) if config.plots else []
    stages.end("plots")
    from mace_bounds.auditing.report import write_report

    write_report(out, summary, drawn)
    summary["files"] = _written(out, drawn)
    _folder.write_json(out / _folder.SUMMARY, summary)  # the last: whoever finds it finds all others
    stages.end("report", last=True)
    coverage = _read_coverage(out) if measured["measured_on"]["n"] else None
    return AuditResult(out, summary, coverage, read_times(out))


def _silent(*_: Any) -> None:
    """Report no progress."""


def _tables(
    store: FeatureStore, head: CalibratedHead, level: float, training_keys: NDArray[np.uint64] | None
) -> Iterator[pd.DataFrame]:
    for rows in store.rows(atoms=head.wants_atoms):
        yield detailed_table(rows, head, level, training_keys)


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
        about |= {"name": card.name, "digest": card.digest}
    return about


def _written(out: Path, plots: list[Path]) -> list[str]:
    names = [_folder.REPORT, _folder.SUMMARY, _folder.RUN, _folder.BOUNDS, _folder.BOUNDS_CSV]
    names += [_folder.COVERAGE, _folder.CURVE, _folder.VIOLATIONS, _folder.SUSPECTS, _folder.FAILURES]
    names += [_folder.ATLAS, _folder.ELEMENT_BIAS]
    present = [name for name in names if name == _folder.SUMMARY or (out / name).is_file()]
    return present + [str(path.relative_to(out)) for path in plots]


def _read_coverage(out: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(out / _folder.COVERAGE, keep_default_na=False)
