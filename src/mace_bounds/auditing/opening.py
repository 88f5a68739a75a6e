"""A source opened: its features in a finished store, and the head that goes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.times import begin
from mace_bounds.backbones import DEFAULT_MODEL, load_model, training_compositions
from mace_bounds.bounds import BoundsPredictor, find_head, load_head
from mace_bounds.calibration import CalibratedHead
from mace_bounds.errors import StoreError
from mace_bounds.features import FeatureStore, extract, is_store
from mace_bounds.structures import read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mace_bounds.auditing.config import AuditConfig
    from mace_bounds.backbones import Backbone
    from mace_bounds.features import ExtractSettings

Progress = Callable[[str, int, int, int | None], None]
"""Called with (stage, done, failed, total or None)."""


def open_with_head(
    source: Any,
    out: Path,
    model: str | Path | None,
    head: str | Path | CalibratedHead | None,
    config: AuditConfig,
    progress: Progress,
) -> tuple[FeatureStore, CalibratedHead, NDArray[np.uint64] | None]:
    """A finished store of the source's features, the head, and the compositions of the model's training."""
    if is_path(source) and is_store(source):
        store = _finished(Path(source))
        calibrated = _head_of(store, model, head, config.level)
        begin(out)
        manifest = store.manifest
        return store, calibrated, training_compositions(model or manifest.model, manifest.model_digest)
    settings = config.extract
    predictor = BoundsPredictor(model, head, level=config.level, settings=settings)
    settings = replace(settings, kind=predictor.kind, atoms=predictor.head.wants_atoms)
    store = _extracted(source, out, predictor.model, settings, progress)
    return store, predictor.head, predictor.model.training_compositions


def open_own(
    source: Any, out: Path, model: str | Path | None, config: AuditConfig, progress: Progress
) -> tuple[FeatureStore, NDArray[np.uint64] | None]:
    """A finished store of the source's features, and the compositions of the model's training."""
    if is_path(source) and is_store(source):
        store = _finished(Path(source))
        begin(out)
        manifest = store.manifest
        return store, training_compositions(model or manifest.model, manifest.model_digest)
    settings = config.extract
    frozen = load_model(model or DEFAULT_MODEL, device=settings.device, dtype=settings.dtype)
    return _extracted(source, out, frozen, settings, progress), frozen.training_compositions


def _extracted(
    source: Any, out: Path, frozen: Backbone, settings: ExtractSettings, progress: Progress
) -> FeatureStore:
    begin(out)
    records = read(
        source,
        energy_key=settings.energy_key,
        max_atoms=settings.max_atoms,
        elements=frozenset(frozen.atomic_numbers),
    )
    return extract(
        records,
        out / _folder.FEATURES,
        frozen,
        replace(settings, symmetry=True),
        progress=lambda done, failed: progress("features", done, failed, None),
    )


def _finished(folder: Path) -> FeatureStore:
    store = FeatureStore(folder)
    if not store.manifest.complete:
        raise StoreError(
            f"expected a finished feature store in {folder}, but its run was interrupted; "
            "run the same mace-bounds features command again to finish it."
        )
    return store


def _head_of(
    store: FeatureStore, model: str | Path | None, head: str | Path | CalibratedHead | None, level: float
) -> CalibratedHead:
    manifest = store.manifest
    if isinstance(head, CalibratedHead):
        calibrated = head
    else:
        calibrated = load_head(find_head(model or manifest.model, head, manifest.model_digest)[1])
    calibrated.levels.index(level)
    calibrated.check_fits(manifest.model, manifest.model_digest, manifest.model_head, manifest.kind)
    return calibrated


def is_path(source: Any) -> bool:
    """Whether a source is named rather than given."""
    return isinstance(source, (str, Path))
