"""The whole path for one model: download, features, fit, audit; stopped at any instant, resumed by the same call."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import locked, remove_temporaries
from mace_bounds.pipeline.config import AUDIT, DOWNLOAD, FEATURES, FIT, BuildConfig
from mace_bounds.pipeline.folder import AUDIT_FOLDER, HEAD, State, digest
from mace_bounds.pipeline.sources import resolve_sources
from mace_bounds.pipeline.stages import (
    audit_the_head,
    extract_features,
    fit_the_head,
    stamp,
    weights_sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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
        remove_temporaries(out)
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
