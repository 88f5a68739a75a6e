"""An audit: features, bounds for every structure, coverage where there are labels, plots, report, summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.config import AuditConfig
from mace_bounds.auditing.drawing import draw_plots
from mace_bounds.auditing.findings import about_head, atlas, counts, failures, flag_counts, labels, measure
from mace_bounds.auditing.folder import AuditFolder
from mace_bounds.auditing.suspects import suspects
from mace_bounds.auditing.system_hull import write_system_hull
from mace_bounds.backbones import DEFAULT_MODEL, Backbone, training_compositions
from mace_bounds.bounds import BoundsPredictor, detailed_table, find_head, load_head, provenance
from mace_bounds.calibration import CalibratedHead
from mace_bounds.errors import HeadError, StoreError
from mace_bounds.features import (
    READING_FIELDS,
    ExtractSettings,
    FeatureRows,
    FeatureStore,
    extract,
    is_store,
    judged_labels,
    refused_labels,
    require_labels,
    same_quantity,
    training_keys,
    without_refused,
)
from mace_bounds.fitting import FULL, cross_fit_store
from mace_bounds.structures import Record, Source, joined_keys, require_usable
from mace_bounds.versions import now, versions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_MAX_NAMED = 3
"""Sources that the title of a report names."""

Progress = Callable[[str, int, int, int | None], None]
"""Called with (stage, done, failed, total or None)."""


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What an audit found.

    Attributes
    ----------
    folder : Path
        Where everything was written; ``report.html`` is the page to open.
    summary : dict
        What ``summary.json`` holds, also when the run began and how many seconds each stage took.
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

    def __repr__(self) -> str:
        return f"AuditResult({str(self.folder)!r}, {self.summary['counts']['scored']:,} structures bounded)"


@dataclass(frozen=True, eq=False)
class _Opened:
    """A source that can be bounded: a finished store of features, or the backbone that makes one."""

    store: FeatureStore | None
    backbone: Backbone | None
    head: CalibratedHead | None
    training_keys: NDArray[np.uint64] | None
    extract: ExtractSettings
    records: Iterator[Record] | None = None  # what has been read ahead of a source that can be read only once


@dataclass(frozen=True, eq=False)
class _Bounded:
    """Bounds on their way into the folder: tables and rows of features, shard by shard."""

    head: CalibratedHead
    tables: Iterable[pd.DataFrame]
    rows: Callable[[], Iterable[FeatureRows]]
    about_head: dict[str, Any]
    published: dict[str, Any] | None = None


def audit(
    source: Source,
    out: str | Path,
    *,
    model: Any = None,
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
        A new folder, or that of an audit that was interrupted: finished features and heads are not made again, and
        the tables are those of a run in one piece. A second run into the same folder is refused.
    model, head : optional
        See :class:`mace_bounds.BoundsPredictor`; for a feature store the model is the store's.
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
        If ``out`` holds something else or is being written by another run, or the store is unfinished.
    HeadError
        If no head fits the model, or the level is not calibrated.
    LabelError
        If the table of predictions does not fit the source, there are no labels to fit to, or what is there are the
        model's own energies or another quantity.
    ModelError, SourceError, EngineError
        If the model, the source or the workers cannot be used.
    """
    path, report = Path(out), progress or (lambda *_: None)
    cross_fit = config.cross_fit or config.predictions is not None
    if cross_fit and head is not None:
        raise HeadError("--head cannot be combined with --cross-fit or --predictions; leave one of them out.")
    stages = _Stages()
    opened = _open_store(source, model, head, config) or _open_model(source, model, head, config)
    with _folder.held(path):
        audited = _audited(source, opened, config)
        _folder.check_same(path, audited)
        with _folder.nothing_kept_if_refused(path):
            store = opened.store or _extracted(source, path, opened, config, report)
            stages.end("features")
            if cross_fit:
                bounded = _cross_fitted(store, path, opened, config, report)
                stages.end("fit")
            else:
                bounded = _with_head(store, opened, config)
        folder = _folder_of(path, bounded.head, config.level)
        folder.remove(_folder.SUMMARY, _folder.REPORT)
        folder.write_bounds(bounded.tables, bounded.head.levels)
        stages.end("bounds")
        summary = {
            "command": "audit",
            "source": _source_name(source),
            "title": _title(source, folder),
            "audited": audited,
            "settings": _settings(config),
            "versions": versions(),
            "model": {
                "name": store.manifest.model,
                "digest": store.manifest.model_digest,
                "head": store.manifest.model_head,
            },
            "head": bounded.about_head,
            "published": bounded.published,
            **_findings(folder, bounded, config.level),
            "hull": write_system_hull(bounded.rows(), bounded.head, config.level, folder),
        }
        stages.end("statistics")
        plots = draw_plots(path, summary) if config.plots else []
        stages.end("plots")
        from mace_bounds.auditing.report import write_report

        write_report(path, summary, plots)
        stages.end("report")
        present = [name for name in _folder.FILES if name == _folder.SUMMARY or folder.has(name)]
        summary["files"] = present + [str(plot.relative_to(path)) for plot in plots]
        summary |= stages.about()
        folder.write_summary(summary)
    coverage = folder.read(_folder.COVERAGE) if summary["measured_on"]["n"] else None
    return AuditResult(path, summary, coverage)


def _audited(source: Source, opened: _Opened, config: AuditConfig) -> dict[str, str]:
    """What a folder holds the audit of, in words: a second audit in it may only be of the same."""
    if opened.store is not None:
        model, digest = opened.store.manifest.model, opened.store.manifest.model_digest
    else:
        assert opened.backbone is not None
        model, digest = opened.backbone.name, opened.backbone.digest
    head, published = opened.head, config.predictions
    return {
        "source": _file_name(_source_name(source)),
        "structures": "" if opened.store is None else f"(features {opened.store.digest()[:12]})",
        "labels": f"with the labels in {config.extract.energy_key}" if config.extract.energy_key else "",
        "energies": f"with the energies in {config.energy_column} of {published.name}" if published else "",
        "model": f"by {model} ({digest[:12]})",
        "head": f"with the head {head.name} ({head.digest[:12]})"
        if head
        else "with heads fitted to its labels",
    }


def _open_store(
    source: Any, model: Any, head: str | Path | CalibratedHead | None, config: AuditConfig
) -> _Opened | None:
    """A finished store as the source, and the head for it; None for structures."""
    if not (_is_path(source) and is_store(source)):
        return None
    store = FeatureStore(source)
    manifest = store.manifest
    if not manifest.complete:
        raise StoreError(
            f"the feature store in {source} is unfinished; run the same mace-bounds features command again."
        )
    keys = training_keys(manifest, model, config.fit.trained_on)
    if config.cross_fit or config.predictions is not None:
        return _Opened(store, None, None, keys, config.extract)
    if not isinstance(head, CalibratedHead):
        digest = None if manifest.energies_of else manifest.model_digest
        head = load_head(find_head(manifest.energies_of or model or manifest.model, head, digest))
    head.levels.index(config.level)
    head.check_store(manifest)
    return _Opened(store, None, head, joined_keys(keys, head.training_compositions), config.extract)


def _open_model(
    source: Any, model: Any, head: str | Path | CalibratedHead | None, config: AuditConfig
) -> _Opened:
    """The backbone that makes the features, and the head for it; nothing is written before both are there."""
    extract = replace(config.extract, symmetry=True)
    ahead = require_usable(extract.read(source))  # an error before the model is loaded
    records = None if _is_path(source) and source != "-" else ahead
    if config.cross_fit or config.predictions is not None:
        backbone = extract.load(model or DEFAULT_MODEL)
        keys = training_compositions(backbone, backbone.digest, config.fit.trained_on)
        return _Opened(None, backbone, None, keys, extract, records)
    predictor = BoundsPredictor(
        model, head, level=config.level, settings=extract, trained_on=config.fit.trained_on
    )
    predictor.refuse_if_published()
    extract = replace(extract, kind=predictor.kind, atoms=predictor.head.wants_atoms)
    return _Opened(None, predictor.model, predictor.head, predictor.training_keys, extract, records)


def _extracted(
    source: Any, out: Path, opened: _Opened, config: AuditConfig, progress: Progress
) -> FeatureStore:
    """The store of features in the audit's folder, finished."""
    backbone, settings = opened.backbone, opened.extract
    assert backbone is not None
    records = settings.read(source if opened.records is None else opened.records, backbone)
    if opened.head is not None:
        records = same_quantity(records, config.fit.quantity, opened.head.identity.quantity)
    return extract(
        records,
        out / _folder.FEATURES,
        backbone,
        settings,
        progress=lambda done, failed: progress("features", done, failed, None),
    )


def _with_head(store: FeatureStore, opened: _Opened, config: AuditConfig) -> _Bounded:
    head = opened.head
    assert head is not None
    labels = store.labels()
    refused = refused_labels(labels, config.fit.quantity, head.identity.quantity)
    left = judged_labels(labels, refused)
    require_labels(refused, int((left["reason"].isna() & left["energy_ev"].notna()).sum()))

    def rows(*, atoms: bool = False) -> Iterator[FeatureRows]:
        return (without_refused(part, refused) for part in store.rows(atoms=atoms))

    tables = (
        detailed_table(part, head, config.level, opened.training_keys)
        for part in rows(atoms=head.wants_atoms)
    )
    return _Bounded(head, tables, rows, about_head(head), _folder.about_energies(store))


def _cross_fitted(
    store: FeatureStore, out: Path, opened: _Opened, config: AuditConfig, progress: Progress
) -> _Bounded:
    """Heads fitted to the labels of the source; each row is bounded by one that has not seen its composition."""
    made = cross_fit_store(
        store,
        config.fit,
        published=config,
        training_keys=opened.training_keys,
        folder=out / _folder.HEADS,
        progress=lambda done, total: progress("fit", done, 0, total),
    )
    full = made.heads.full
    full.levels.index(config.level)
    about = about_head(full) | {
        "name": f"fitted to this source, {len(made.heads.heads)} folds of compositions",
        "folder": f"{_folder.HEADS}/{FULL}",
    }
    energies = made.about or _folder.about_energies(store)
    return _Bounded(full, made.tables(config.level), made.cross_fitted_rows, about, energies)


def _folder_of(path: Path, head: CalibratedHead, level: float) -> AuditFolder:
    stamp = provenance(head, level)
    whole = {"model_digest": head.identity.model_digest, "head_digest": head.digest}
    return AuditFolder(path, stamp, {k: str(v) for k, v in (stamp | whole).items()})


def _settings(config: AuditConfig) -> dict[str, Any]:
    """Settings that the numbers depend on, as plain values."""
    chosen = {
        "level": config.level,
        "cross_fit": config.cross_fit or config.predictions is not None,
        **{name: getattr(config.extract, name) for name in READING_FIELDS if name != "memory_bytes"},
    }
    return chosen | ({"fit": asdict(config.fit)} if chosen["cross_fit"] else {})


def _findings(folder: AuditFolder, bounded: _Bounded, level: float) -> dict[str, Any]:
    """Everything that is measured on the bounds table, written and summed up."""
    head = bounded.head
    table = folder.bounds_for_statistics(head.levels)
    listed = suspects(table, bounded.rows(), head.levels, folder)
    warned = [*head.provenance.get("warnings", ()), *listed.pop("warnings", ())]
    return {
        "warnings": warned,
        "counts": counts(table),
        "labels": labels(table),
        "flags": flag_counts(table),
        "failures": failures(table, folder),
        **measure(table, head, level, folder),
        "suspects": listed,
        "atlas": atlas(table, head, level, folder),
    }


class _Stages:
    """When the run began, and the seconds of its stages."""

    def __init__(self) -> None:
        self._started, self._last = now(), time.perf_counter()
        self._seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """End a stage."""
        before, self._last = self._last, time.perf_counter()
        self._seconds[name] = round(self._last - before, 2)

    def about(self) -> dict[str, Any]:
        """For the summary; the only values in which equal audits differ."""
        return {"started": self._started, "finished": now(), "seconds": self._seconds}


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, Path))


def _source_name(source: Any) -> str:
    return str(source) if _is_path(source) else type(source).__name__


def _file_name(source: str) -> str:
    return source.rstrip("/").split("/")[-1] or source


def _title(source: Any, folder: AuditFolder) -> str:
    """Name of the source for people; of a feature store and of objects, the sources that their structures name."""
    if _is_path(source) and not is_store(source):
        return _file_name(str(source))
    named = list(dict.fromkeys(name for name in folder.read(_folder.BOUNDS, ["source"])["source"] if name))
    if not named:
        return _file_name(_source_name(source))
    return ", ".join(named[:_MAX_NAMED]) + (
        f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    )
