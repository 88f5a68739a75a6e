"""The whole path for one model: download, features, fit, audit; stopped at any instant, resumed by the same call."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import DEFAULT_MODEL
from mace_bounds.errors import SourceError
from mace_bounds.pipeline.config import AUDIT, DEFAULT_SOURCE, DOWNLOAD, FEATURES, FIT, STAGES, ask
from mace_bounds.pipeline.folder import AUDIT_FOLDER, HEAD, State, digest
from mace_bounds.pipeline.sources import check_labels, obtain
from mace_bounds.pipeline.stages import (
    audit_the_head,
    extract_features,
    fit_the_head,
    stamp,
    weights_sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class BuildResult:
    """What a build has come to.

    Attributes
    ----------
    folder : Path
    stages : dict
        What ``build.json`` says of every finished stage.
    head, report : Path or None
        The head's folder and the page of the audit; None before these stages.
    training : str
        What the labels have to do with the model's own training; empty before the fit.
    """

    folder: Path
    stages: dict[str, Any]
    head: Path | None
    report: Path | None
    training: str


def build(
    out: str | Path,
    source: str | Path = DEFAULT_SOURCE,
    *,
    also: Sequence[str | Path] = (),
    model: str | Path = DEFAULT_MODEL,
    include_training: bool = False,
    balance: bool = False,
    cross_fit: bool = False,
    energy_key: str | None = None,
    max_atoms: int = 500,
    dtype: str = "float32",
    shard_rows: int = 256,
    device: str = "auto",
    workers: int | None = 1,
    scheduler: str | None = None,
    plots: bool = True,
    until: str = AUDIT,
    progress: Callable[[str, int, int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> BuildResult:
    """Make a head for a model: download, features, fit, audit, each stage once.

    Parameters
    ----------
    out : path
        A new folder, or that of a build that was interrupted: what is done is not done again.
    source : str or path
        Labelled structures: a query of the Materials Project, or anything named that
        :func:`mace_bounds.structures.read` takes, or a finished feature store with atoms.
    also : sequence of str or path
        More labelled structures. They may be added until the fit is done.
    model : str or path
        See :func:`mace_bounds.load_model`.
    include_training, balance
        See :func:`mace_bounds.fitting.fit` and :class:`mace_bounds.calibration.FitConfig`.
    cross_fit : bool
        Let the audit fit heads of its own, so that every label is bounded by one that has not seen it; it takes
        six times the fit. Without it, the head itself bounds all, and coverage is measured on its test split.
    energy_key, max_atoms
        See :func:`mace_bounds.structures.read`.
    dtype, device
        See :func:`mace_bounds.load_model`.
    shard_rows, workers, scheduler
        See :func:`mace_bounds.features.extract`.
    plots : bool
        Draw the plots of the report.
    until : {"download", "features", "fit", "audit"}
        The last stage to do.
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
        If ``out`` was built for another question, or holds something else.
    SourceError, ModelError, EngineError
        If a source, the model or the workers cannot be used.
    HeadError
        If there are too few labels; downloads and features stay.
    """
    if until not in STAGES:
        raise SourceError(f"expected a stage among {', '.join(STAGES)}, got {until!r}; choose one")
    question = ask(
        source,
        also,
        model,
        energy_key=energy_key,
        max_atoms=max_atoms,
        dtype=dtype,
        shard_rows=shard_rows,
        include_training=include_training,
        balance=balance,
        cross_fit=cross_fit,
    )
    out = Path(out)
    state = State(out, question)
    tell, update = note or _silent, progress or _silent
    todo = STAGES[: STAGES.index(until) + 1]
    out.mkdir(parents=True, exist_ok=True)
    since = time.perf_counter()
    sources = obtain(question, out, progress=lambda done, total: update(DOWNLOAD, done, 0, total), note=tell)
    check_labels(sources)
    weights = weights_sha256(question, sources, state, tell)
    inputs = digest([source.digest for source in sources], weights)
    if not state.finished(DOWNLOAD, inputs):
        made = [source.told() for source in sources]
        state.finish(DOWNLOAD, inputs, {"sources": made, "weights_sha256": weights}, stamp(since))
    if FEATURES in todo:
        where = {"device": device, "workers": workers, "scheduler": scheduler}
        extract_features(sources, weights, question, state, update, tell, **where)
    sentence = ""
    if FIT in todo:
        store, sentence = fit_the_head(sources, question, state, update)
    if AUDIT in todo:
        audit_the_head(store, question, state, plots=plots, progress=update)
    return BuildResult(
        out,
        dict(state.stages),
        out / HEAD if FIT in todo else None,
        out / AUDIT_FOLDER / "report.html" if AUDIT in todo else None,
        sentence,
    )


def _silent(*_: Any) -> None:
    """Tell nothing."""
