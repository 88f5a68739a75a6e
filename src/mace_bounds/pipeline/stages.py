"""The stages after the download: features, fit, audit; each is done once for the same input."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds._io import file_sha256, heads_folder
from mace_bounds.auditing import AuditConfig, audit
from mace_bounds.backbones import fetch_weights, find_weights, load_model
from mace_bounds.bounds import read_card
from mace_bounds.calibration import FitConfig
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, is_store, join
from mace_bounds.fitting import CardNotes, fit
from mace_bounds.head import is_head_folder
from mace_bounds.pipeline.config import AUDIT, FIT
from mace_bounds.pipeline.folder import AUDIT_FOLDER, HEAD, JOINED, digest
from mace_bounds.pipeline.sources import STORE, Source, describe, licences
from mace_bounds.pipeline.training import training_is_known, training_sentence, unknown_sentence
from mace_bounds.structures import read
from mace_bounds.versions import now, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from mace_bounds.pipeline.config import Question
    from mace_bounds.pipeline.folder import State

    Progress = Callable[[str, int, int, int | None], None]
    Note = Callable[[str], None]

LEVEL = 0.95


def weights_sha256(question: Question, sources: list[Source], state: State, note: Note) -> str:
    """SHA-256 of the weights' file; mace fetches it where it is not here and something still needs it."""
    open_ones = [source for source in sources if source.kind != STORE]
    weights = find_weights(question.model)
    if not weights.here:
        told = [state.made(s.store.name)["weights_sha256"] for s in open_ones if s.store.name in state.stages]
        for known in told:
            if all(_features_done(s, features_inputs(s, known, question), state) for s in open_ones):
                return str(known)
        if not open_ones:
            return ""
        note(f"note: mace downloads {question.model} once, from {weights.url}")
        weights = fetch_weights(question.model)
    return file_sha256(weights.path)


def features_inputs(source: Source, weights: str, question: Question) -> str:
    """What a feature store is made from."""
    settings = (question.energy_key, question.max_atoms, question.dtype, question.shard_rows)
    return digest(source.digest, weights, *settings)


def extract_features(
    sources: list[Source],
    weights: str,
    question: Question,
    state: State,
    progress: Progress,
    note: Note,
    **where: Any,
) -> None:
    """Fill the feature store of every source that is not done; those that were begun are finished.

    ``where`` is ``device``, ``workers`` and ``scheduler``.
    """
    device = where.pop("device")
    todo = [s for s in sources if not _features_done(s, features_inputs(s, weights, question), state)]
    if not todo:
        return
    frozen = load_model(question.model, dtype=question.dtype, device=device)
    for warning in frozen.warnings:
        note(f"note: {warning}")
    elements = frozenset(frozen.atomic_numbers)
    for source in todo:
        since = time.perf_counter()
        records = read(
            source.path, energy_key=question.energy_key, max_atoms=question.max_atoms, elements=elements
        )
        beside = kept_beside(source.store, note)
        total = source.about.get("counts", {}).get("structures")
        store = extract(
            records,
            source.store,
            frozen,
            ExtractSettings(
                atoms=beside["atoms"],
                symmetry=beside["symmetry"],
                shard_rows=question.shard_rows,
                **where,
            ),
            progress=partial(_told, progress, source.store.name, total),
        )
        manifest = store.manifest
        made = {
            "folder": source.store.name,
            "rows": manifest.n_records,
            "failed": manifest.n_failed,
            "device": frozen.device,
            "weights_sha256": weights,
            "model": {"name": manifest.model, "digest": manifest.model_digest, "head": manifest.model_head},
        }
        state.finish(source.store.name, features_inputs(source, weights, question), made, stamp(since))


def kept_beside(store: Path, note: Note) -> dict[str, bool]:
    """What a store keeps beside the features: single atoms, which a head needs to grade atoms, and space groups.

    A store that was begun elsewhere is finished as it was begun.
    """
    if not is_store(store):
        return {"atoms": True, "symmetry": True}
    manifest = FeatureStore(store).manifest
    if not manifest.atoms:
        note(
            f"note: {store} was begun without --atoms, so the head will grade structures but not single atoms"
        )
    return {"atoms": manifest.atoms, "symmetry": manifest.symmetry}


def _told(progress: Progress, stage: str, total: int | None, done: int, failed: int) -> None:
    progress(stage, done, failed, total)


def _features_done(source: Source, inputs: str, state: State) -> bool:
    if source.kind == STORE:
        return True
    done = state.finished(source.store.name, inputs) and is_store(source.store)
    return done and FeatureStore(source.store).manifest.complete


def fit_the_head(
    sources: list[Source], question: Question, state: State, progress: Progress
) -> tuple[Path, str]:
    """Fit, calibrate and measure the head; the store of all sources, and what the head is worth."""
    out, head = state.out, state.out / HEAD
    stores = [FeatureStore(source.store) for source in sources]
    settings = (question.include_training, question.balance)
    inputs = digest([store.digest() for store in stores], *settings)
    joined = stores[0].folder if len(stores) == 1 else out / JOINED
    if state.finished(FIT, inputs) and is_head_folder(head) and is_store(joined):
        return joined, str(state.made(FIT)["training"])
    since = time.perf_counter()
    for left in out.glob(f".{HEAD}.*"):
        shutil.rmtree(left)
    if len(stores) > 1:
        shutil.rmtree(joined, ignore_errors=True)  # links only
        for left in out.glob(f".{JOINED}.*"):
            shutil.rmtree(left)
        join(joined, [store.folder for store in stores])
    progress(FIT, 0, 0, 1)
    about = _fit(joined, head, question, sources)
    sentence = training_sentence(question.model, about)
    made: dict[str, Any] = {"folder": HEAD, "digest": read_card(head).digest, "training": sentence}
    made |= {key: about[key] for key in ("rows", "left_out", "coverage", "levels", "sources")}
    made["new_to_model"] = about["training_compositions_known"] and not about["includes_training"]
    state.finish(FIT, inputs, made, stamp(since))
    progress(FIT, 1, 0, 1)
    return joined, sentence


def _fit(store: Path, head: Path, question: Question, sources: list[Source]) -> dict[str, Any]:
    notes = [describe(sources)]
    if not training_is_known(question.model):
        notes.append(unknown_sentence(question.model))
    try:
        report = fit(
            store,
            config=FitConfig(balance=question.balance),
            model=question.model,
            include_training=question.include_training,
        ).save(head, CardNotes(". ".join(notes), licences(sources)), overwrite=True)
    except HeadError as error:
        raise HeadError(
            f"{str(error).rstrip('.')}; downloads and features in {head.parent} are kept, so run the same command "
            "again with --with SOURCE for more labels."
        ) from error
    return report.head.provenance


def audit_the_head(store: Path, question: Question, state: State, *, plots: bool, progress: Progress) -> None:
    """Bounds for every structure of the build, measured coverage, report."""
    head, out = state.out / HEAD, state.out / AUDIT_FOLDER
    card = read_card(head)
    inputs = digest(FeatureStore(store).digest(), card.digest, question.cross_fit, plots)
    if state.finished(AUDIT, inputs) and (out / "report.html").is_file():
        return
    since = time.perf_counter()
    progress(AUDIT, 0, 0, None)
    result = audit(
        store,
        out,
        model=question.model,
        head=None if question.cross_fit else head,
        config=AuditConfig(
            level=LEVEL if LEVEL in card.levels else card.levels[-1],
            plots=plots,
            cross_fit=question.cross_fit,
            fit=FitConfig(balance=question.balance),
        ),
        progress=lambda _stage, done, failed, total: progress(AUDIT, done, failed, total),
    )
    made = {"folder": AUDIT_FOLDER, "report": result.report.name, "counts": result.summary["counts"]}
    made |= {"measured_on": result.summary["measured_on"], "coverage": result.summary.get("coverage", [])}
    state.finish(AUDIT, inputs, made, stamp(since))


def install_head(head: Path, name: str) -> Path:
    """Copy a head to where commands look for heads by themselves.

    Raises
    ------
    HeadError
        If another head of this name is there, or the name is none.
    """
    if Path(name).name != name or name.startswith("."):
        raise HeadError(
            f"expected a plain name for the head, got {name!r}; leave out folders and leading dots."
        )
    target = heads_folder() / name
    if target.exists():
        if is_head_folder(target) and read_card(target).digest == read_card(head).digest:
            return target
        raise HeadError(
            f"expected a free name for the head, but {target} is another one; choose another name or delete it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(head, made)
    made.rename(target)
    return target


def stamp(since: float) -> dict[str, Any]:
    """When a stage was done, with which versions, and how long the run took over it that finished it."""
    return {"finished": now(), "seconds": round(time.perf_counter() - since, 2), "versions": versions()}
