"""The whole path for one model, stage by stage: stopped at any instant, resumed by the same call."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import file_sha256, locked
from mace_bounds.auditing import AuditConfig, audit
from mace_bounds.backbones import fetch_weights, find_weights
from mace_bounds.bounds import read_card
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, is_store, join
from mace_bounds.fitting import CardNotes, TrainingExposure, fit
from mace_bounds.head import is_head_folder
from mace_bounds.pipeline.config import AUDIT, DOWNLOAD, FEATURES, FIT, BuildConfig
from mace_bounds.pipeline.folder import AUDIT_FOLDER, HEAD, JOINED, State, digest
from mace_bounds.pipeline.sources import (
    STORE,
    Source,
    describe,
    licences,
    resolve_sources,
    training_is_known,
    training_text,
)
from mace_bounds.structures import read_compositions
from mace_bounds.versions import now, versions

if TYPE_CHECKING:
    Progress = Callable[[str, int, int, int | None], None]
    Note = Callable[[str], None]


def weights_sha256(config: BuildConfig, sources: list[Source], state: State, note: Note) -> str:
    """SHA-256 of the weights' file; mace fetches it where it is not here and a stage still needs it."""
    with_features_to_do = [source for source in sources if source.kind != STORE]
    weights = find_weights(config.model)
    if not weights.here:
        stores = [source.store.name for source in with_features_to_do]
        digests = [state.made(name)["weights_sha256"] for name in stores if name in state.stages]
        for known in digests:
            if all(
                _features_done(source, features_inputs(source, known, config), state)
                for source in with_features_to_do
            ):
                return str(known)
        if not with_features_to_do:
            return ""
        note(f"note: mace downloads {config.model} once, from {weights.url}")
        weights = fetch_weights(config.model)
    return file_sha256(weights.path)


def features_inputs(source: Source, weights: str, config: BuildConfig) -> str:
    """Digest of what a feature store is made from."""
    return digest(source.digest, weights, *config.extract.decisive().values())


def extract_features(
    sources: list[Source],
    weights: str,
    config: BuildConfig,
    state: State,
    progress: Progress,
    note: Note,
) -> None:
    """Fill the feature store of every source that is not done; those that were begun are finished."""
    todo = [s for s in sources if not _features_done(s, features_inputs(s, weights, config), state)]
    if not todo:
        return
    settings = config.extract
    backbone = settings.load(config.model)
    for warning in backbone.warnings:
        note(f"note: {warning}")
    for source in todo:
        since = time.perf_counter()
        total = source.about.get("counts", {}).get("structures")
        store = extract(
            settings.read(source.path, backbone),
            source.store,
            backbone,
            _as_begun(settings, source.store, note),
            progress=partial(_report, progress, source.store.name, total),
        )
        manifest = store.manifest
        made = {
            "folder": source.store.name,
            "rows": manifest.n_records,
            "failed": manifest.n_failed,
            "device": backbone.device,
            "weights_sha256": weights,
            "model": {"name": manifest.model, "digest": manifest.model_digest, "head": manifest.model_head},
        }
        state.finish(source.store.name, features_inputs(source, weights, config), made, stamp(since))


def _as_begun(settings: ExtractSettings, store: Path, note: Note) -> ExtractSettings:
    """Keep single atoms, which a head needs to grade atoms, and space groups; a store begun without stays without."""
    if not is_store(store):
        return replace(settings, kind="readout", atoms=True, symmetry=True, part=None)
    manifest = FeatureStore(store).manifest
    if not manifest.atoms:
        note(
            f"note: {store} was begun without --atoms, so the head will grade structures but not single atoms"
        )
    return replace(settings, kind="readout", atoms=manifest.atoms, symmetry=manifest.symmetry, part=None)


def _report(progress: Progress, stage: str, total: int | None, done: int, failed: int) -> None:
    progress(stage, done, failed, total)


def _features_done(source: Source, inputs: str, state: State) -> bool:
    if source.kind == STORE:
        return True
    done = state.finished(source.store.name, inputs) and is_store(source.store)
    return done and FeatureStore(source.store).manifest.complete


def fit_the_head(
    sources: list[Source], config: BuildConfig, state: State, progress: Progress
) -> tuple[Path, str]:
    """Fit, calibrate and measure the head.

    Returns ``store``: the features of all sources; ``training``: A sentence on what the labels have to do
    with the model's own training.
    """
    out, head = state.out, state.out / HEAD
    stores = [FeatureStore(source.store) for source in sources]
    trained_on = config.fit.trained_on
    known = "" if trained_on is None else hashlib.sha256(read_compositions(trained_on).tobytes()).hexdigest()
    inputs = digest([store.digest() for store in stores], config.decisive()[FIT], known)
    joined = stores[0].folder if len(stores) == 1 else out / JOINED
    if state.finished(FIT, inputs) and is_head_folder(head) and is_store(joined):
        return joined, str(state.made(FIT)["training"])
    since = time.perf_counter()
    if len(stores) > 1:
        shutil.rmtree(joined, ignore_errors=True)  # links only
        join(joined, [store.folder for store in stores])
    progress(FIT, 0, 0, 1)
    about = _fit(joined, head, config, sources)
    exposure = TrainingExposure.of_head(about)
    sentence = training_text(config.model, exposure)
    made: dict[str, Any] = {"folder": HEAD, "digest": read_card(head).digest, "training": sentence}
    made |= {key: about[key] for key in ("rows", "left_out", "coverage", "levels", "sources", "verdict")}
    made["new_to_model"] = exposure.known and not exposure.included
    made["quantity"] = config.fit.quantity
    state.finish(FIT, inputs, made, stamp(since))
    progress(FIT, 1, 0, 1)
    return joined, sentence


def _fit(store: Path, head: Path, config: BuildConfig, sources: list[Source]) -> dict[str, Any]:
    notes = [describe(sources)]
    if not training_is_known(config):
        notes.append(training_text(config.model, TrainingExposure(known=False)))
    try:
        report = fit(
            store,
            config=config.fit,
            model=config.model,
            include_training=config.include_training,
        ).save(head, CardNotes(". ".join(notes), licences(sources)), overwrite=True)
    except HeadError as error:
        raise HeadError(
            f"{str(error).rstrip('.')}; downloads and features in {head.parent} are kept, so run the same command "
            "again with --with SOURCE for more labels."
        ) from error
    return report.head.provenance


def audit_the_head(store: Path, config: BuildConfig, state: State, progress: Progress) -> None:
    """Bounds for every structure of the build, measured coverage, report."""
    head, out = state.out / HEAD, state.out / AUDIT_FOLDER
    inputs = digest(
        FeatureStore(store).digest(), read_card(head).digest, config.decisive()[AUDIT], config.plots
    )
    if state.finished(AUDIT, inputs) and (out / "report.html").is_file():
        return
    since = time.perf_counter()
    progress(AUDIT, 0, 0, None)
    (out / "summary.json").unlink(missing_ok=True)  # an audit of what the build was before
    result = audit(
        store,
        out,
        model=config.model,
        head=None if config.cross_fit else head,
        config=AuditConfig(
            level=config.level, plots=config.plots, cross_fit=config.cross_fit, fit=config.fit
        ),
        progress=lambda _stage, done, failed, total: progress(AUDIT, done, failed, total),
    )
    made = {"folder": AUDIT_FOLDER, "report": result.report.name, "counts": result.summary["counts"]}
    made |= {"measured_on": result.summary["measured_on"], "coverage": result.summary.get("coverage", [])}
    state.finish(AUDIT, inputs, made, stamp(since))


def stamp(since: float) -> dict[str, Any]:
    """When a stage was done, with which versions, and how long the run took over it that finished it."""
    return {"finished": now(), "seconds": round(time.perf_counter() - since, 2), "versions": versions()}


@dataclass(frozen=True)
class BuildResult:
    """What a build has made so far.

    Attributes
    ----------
    folder : Path
    stages : dict
        What ``build.json`` holds of every finished stage.
    head, report : Path or None
        The head's folder and the page of the audit; None before these stages.
    training : str
        A sentence on what the labels have to do with the model's own training; empty before the fit.
    """

    folder: Path
    stages: dict[str, Any]
    head: Path | None
    report: Path | None
    training: str


def build(
    out: str | Path,
    config: BuildConfig = BuildConfig(),
    *,
    progress: Callable[[str, int, int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> BuildResult:
    """Make a head for a model: download, features, fit, audit, each stage once.

    Parameters
    ----------
    out : path
        A new folder, or that of a build that was interrupted: finished stages are not done again. One run at a time.
    config : BuildConfig, optional
        Sources, model and settings; by default a head for MACE-MPA-0 from all of the Materials Project.
    progress : callable, optional
        Called with (stage, done, failed, total or None).
    note : callable, optional
        Called with sentences that a user should read.

    Returns
    -------
    BuildResult

    Raises
    ------
    StoreError
        If ``out`` was built with other settings, holds something else, or is being written by another run.
    SourceError, ModelError, EngineError
        If a source, the model or the workers cannot be used.
    HeadError
        If there are too few labels; downloads and features stay.

    Examples
    --------
    >>> from mace_bounds.pipeline import BuildConfig, build
    >>> build("heads/mine", BuildConfig(source="labels.extxyz", model="mini"))  # doctest: +SKIP
    """
    out, config = Path(out), config.resolved()
    State(out, config)  # refuses before the folder is made
    with locked(out):
        return _build(out, config, progress or (lambda *_: None), note or (lambda _: None))


def _build(
    out: Path,
    config: BuildConfig,
    progress: Callable[[str, int, int, int | None], None],
    note: Callable[[str], None],
) -> BuildResult:
    state, since = State(out, config), time.perf_counter()
    sources = resolve_sources(
        config, out, progress=lambda done, total: progress(DOWNLOAD, done, 0, total), note=note
    )
    weights = weights_sha256(config, sources, state, note)
    inputs = digest([source.digest for source in sources], weights)
    if not state.finished(DOWNLOAD, inputs):
        summaries = [source.summary() for source in sources]
        state.finish(DOWNLOAD, inputs, {"sources": summaries, "weights_sha256": weights}, stamp(since))
    head, report, training = None, None, ""
    if FEATURES in config.stages:
        extract_features(sources, weights, config, state, progress, note)
    if FIT in config.stages:
        store, training = fit_the_head(sources, config, state, progress)
        head = out / HEAD
    if AUDIT in config.stages:
        audit_the_head(store, config, state, progress)
        report = out / AUDIT_FOLDER / "report.html"
    return BuildResult(out, dict(state.stages), head, report, training)
